"""Models: the only place that knows diffusers and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.model.base import AbstractModel

DTYPES = ("float32", "bfloat16", "float16")


def open_model(path: str | Path, device: str = "cpu", dtype: str = "float32", **options: Any) -> AbstractModel:
    """Opens a model of whatever family its model_index.json names: a folder, a hub id, or `tiny` / `tiny_small`.

    `device` may be auto (cuda, then mps, then cpu). Options are those of the family's `open`. Raises UserError.
    """
    from palp_lab.model.folder import Folder
    from palp_lab.model.unet import UNetModel

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype}: must be {', '.join(DTYPES)}")
    families = {"StableDiffusionPipeline": UNetModel}
    folder = Folder.find(path, revision=options.get("revision"))
    folder.expect(*families)
    return families[folder.index["_class_name"]].open(path, dtype=dtype, device=choose_device(device), **options)


def choose_device(name: str) -> str:
    """The device a name stands for; `auto` is cuda, then mps, then cpu. Raises UserError for one that is not here."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind in there if there[kind])
    kind = name.split(":")[0]
    if kind not in there:
        raise UserError(f"device={name}: must be auto, cpu, cuda or mps")
    if not there[kind]:
        raise UserError(
            f"device={name}: torch {torch.__version__} sees none here; use device=auto or another build of torch"
        )
    return name
