"""Models: the only place that knows diffusers and transformers."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    from palp_lab.model.base import AbstractModel

DTYPES = ("float32", "bfloat16", "float16")

FAMILIES = {
    "StableDiffusionPipeline": "palp_lab.model.unet.UNetModel",
    "StableDiffusionXLPipeline": "palp_lab.model.sdxl.SdxlModel",
}
"""Families of models by the `_class_name` of their model_index.json. Imported when one is opened. A family has
`read(parts, dtype, device, **options)`, where `parts` is an `AbstractParts` and the options are the keys of its
`conf/model/*.yaml` beside those of `open_model`."""


def open_model(
    path: str | Path,
    device: str = "cpu",
    dtype: str = "float32",
    *,
    revision: str | None = None,
    variant: str | None = None,
    **options: Any,
) -> AbstractModel:
    """Opens a model of whatever family its model_index.json names: a folder, a hub id, or `tiny` / `tiny_small`.

    Args:
        path: where the model is.
        device: auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps.
        dtype: what the frozen weights are held in.
        revision: a branch, tag or commit of the hub.
        variant: which files of a folder, e.g. fp16.
        options: those of the family's `read`.

    Raises:
        UserError: in one line, for what is missing, incomplete, damaged or of no known family.
    """
    import torch

    from palp_lab.model.folder import Folder

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype}: must be {', '.join(DTYPES)}")
    parts = Folder.find(path, revision, variant)
    parts.expect(*FAMILIES)
    module, _, name = FAMILIES[parts.index["_class_name"]].rpartition(".")
    family = getattr(importlib.import_module(module), name)
    return family.read(parts, getattr(torch, dtype), torch.device(choose_device(device)), **options)


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
