"""Models: the only place that knows diffusers and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from palp_lab.model.base import AbstractModel


def open_model(path: str | Path, device: str = "cpu", dtype: str = "float32", **options: Any) -> AbstractModel:
    """Opens a model of whatever family its model_index.json names: a folder, a hub id, or `tiny` / `tiny_small`.

    `device` may be auto (cuda, then mps, then cpu). Options are those of the family's `open`. Raises UserError.
    """
    from palp_lab.model.folder import Folder
    from palp_lab.model.unet import UNetModel

    families = {"StableDiffusionPipeline": UNetModel}
    folder = Folder.find(path, revision=options.get("revision"))
    folder.expect(*families)
    return families[folder.index["_class_name"]].open(path, dtype=dtype, device=choose_device(device), **options)


def choose_device(name: str) -> str:
    """The device a name stands for; `auto` is cuda, then mps, then cpu."""
    import torch

    if name != "auto":
        return name
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
