"""Models: the only place that knows diffusers and transformers."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from palp_lab.types import UserError

if TYPE_CHECKING:
    import torch

    from palp_lab.model.base import AbstractModel
    from palp_lab.model.folder import AbstractParts

DTYPES = ("float32", "bfloat16", "float16")

FAMILIES = {
    "StableDiffusionPipeline": "palp_lab.model.unet.UNetModel",
    "StableDiffusionXLPipeline": "palp_lab.model.sdxl.SdxlModel",
    "StableDiffusion3Pipeline": "palp_lab.model.sd3.Sd3Model",
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
    config: str | Path | None = None,
    dimensions: Mapping[str, Any] | None = None,
    **options: Any,
) -> AbstractModel:
    """Opens a model of whatever family its model_index.json names.

    Args:
        path: a diffusers folder, a hub id, a shipped model (`tiny`), a .safetensors file of the original or ComfyUI
            layout, or `random`: random weights of `dimensions`.
        device: auto (cuda, then mps, then cpu), cpu, cuda, cuda:1, mps; cuda is each rank's own in a run of several.
        dtype: what the frozen weights are held in.
        revision: a branch, tag or commit of the hub, of `path` or else of `config`.
        variant: which files of a folder, e.g. fp16.
        config: for a file, the folder or hub id whose configuration and tokenizers it is read with (weights are not
            needed there); for random weights, the folder whose tokenizers are taken.
        dimensions: the published sizes, as in conf/model/*.yaml; see `palp_lab.model.dimensions`.
        options: those of the family's `read`.

    Raises:
        UserError: in one line, for what is missing, incomplete, damaged or of no known family.
    """
    import torch

    from palp_lab.model.hub import quiet_hub

    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype}: must be {', '.join(DTYPES)}")
    where = torch.device(choose_device(device))
    with quiet_hub():
        parts = find_parts(path, where, revision, variant, config, dimensions)
        family = family_of(parts)
        if strange := sorted(set(options) - keys_of(family)):
            raise UserError(
                f"model.path={path}: is a {parts.index['_class_name']}, which takes no model.{strange[0]}; choose a "
                "preset of its family, model=..., and give it this model.path"
            )
        return family.read(parts, getattr(torch, dtype), where, **options)


def find_parts(
    path: str | Path,
    device: torch.device,
    revision: str | None = None,
    variant: str | None = None,
    config: str | Path | None = None,
    dimensions: Mapping[str, Any] | None = None,
) -> AbstractParts:
    """Where a model's parts are read from; see `open_model`. Random weights are made on `device`. Raises UserError."""
    from palp_lab.model.dimensions import RANDOM, RandomParts
    from palp_lab.model.folder import Folder
    from palp_lab.model.single_file import SingleFile, is_single_file

    if str(path) == RANDOM:
        tokenizers = None if config is None else Folder.find(config, revision, key="model.config")
        return RandomParts(dimensions, device, tokenizers)
    if is_single_file(path):
        return SingleFile.find(path, config, revision)
    return Folder.find(path, revision, variant)


def family_of(parts: AbstractParts) -> Any:
    """The family of a pipeline's parts. Raises UserError for a pipeline that is none of ours."""
    parts.expect(*FAMILIES)
    module, _, name = FAMILIES[parts.index["_class_name"]].rpartition(".")
    return getattr(importlib.import_module(module), name)


def keys_of(family: type) -> set[str]:
    """The keys of `model` that a family takes beside those of `open_model`."""
    told = [vars(one).get(name) for one in family.__mro__ for name in ("read", "__init__")]
    whole = [getattr(one, "__func__", one) for one in told]
    calls = [inspect.signature(one) for one in whole if inspect.isfunction(one)]
    return {word for call in calls for word, one in call.parameters.items() if one.kind is one.KEYWORD_ONLY}


def choose_device(name: str) -> str:
    """The device a name stands for; `auto` is cuda, then mps, then cpu. In a process that is one rank of several, cuda
    without a number is the rank's own, as Lightning counts them. Raises UserError for one that is not here."""
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind in there if there[kind])
    kind = name.split(":")[0]
    if kind not in there:
        raise UserError(f"device={name}: must be auto, cpu, cuda or mps")
    if not there[kind]:
        raise UserError(
            f"device={name}: torch {torch.__version__} sees none here; use device=auto or another build of torch"
        )
    if name != "cuda" or (rank := os.environ.get("LOCAL_RANK")) is None:
        return name
    if int(rank) >= (count := torch.cuda.device_count()):
        raise UserError(
            f"trainer.devices: process {int(rank) + 1} of this run finds {count} CUDA devices; take "
            f"trainer.devices={count}"
        )
    return f"cuda:{rank}"


def synchronize(device: torch.device) -> None:
    """Waits for what an accelerator still has to do, before a look at the clock: it answers first and works then."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
