"""Pictures encoded once: their latents are kept by content, in this process and in files that trainings share."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from palp_lab.model.base import AbstractModel
from palp_lab.study.writing import write_bytes

if TYPE_CHECKING:
    from palp_lab.types import Pixels

logger = logging.getLogger(__name__)

KEPT_BYTES = 64 << 20
"""Latents that stay in memory between trainings of one process (ours: 500 pictures of Stable Diffusion 1.x)."""

_kept: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()
"""The latest, by content: a process trains the cells of a sweep one after the other."""


def posterior(model: AbstractModel, pixels: Pixels, folder: Path | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [b c h w] of the latents of pictures, float32 on the CPU.

    A picture is known by its pixels and by what encodes it: autoencoder, dtype, kind of device, threads, versions of
    torch and diffusers. It is encoded alone, so that its latents depend on no other picture and have the same bits
    whether they are fresh, remembered, or read from `folder` (None: no files). A damaged file is written anew.
    """
    with_what = [model.autoencoder_fingerprint, str(model.dtype), model.device.type, torch.get_num_threads()]
    machine = "/".join(map(str, [*with_what, torch.__version__, metadata.version("diffusers"), *pixels.shape[1:]]))
    found = [_one(model, picture, _key(machine, picture), folder) for picture in pixels]
    return torch.stack([mean for mean, _ in found]), torch.stack([std for _, std in found])


def _key(machine: str, picture: Tensor) -> str:
    return hashlib.sha256(machine.encode() + picture.contiguous().cpu().numpy().tobytes()).hexdigest()


def _one(model: AbstractModel, picture: Tensor, key: str, folder: Path | None) -> tuple[Tensor, Tensor]:
    path = None if folder is None else folder / key[:2] / f"{key}.safetensors"
    found = _kept.pop(key, None) or (_read(path) if path is not None else None)
    if found is None:
        encoded = model.encode_image(picture[None].to(model.device))
        found = encoded.mean[0].float().cpu(), encoded.std[0].float().cpu()
        if path is not None:
            _write(path, *found)
    elif path is not None and not path.is_file():  # remembered from a training that shared nothing
        _write(path, *found)
    _keep(key, found)
    return found


def _keep(key: str, found: tuple[Tensor, Tensor]) -> None:
    _kept[key] = found
    size = sum(tensor.nbytes for both in _kept.values() for tensor in both)
    while size > KEPT_BYTES:
        _, dropped = _kept.popitem(last=False)
        size -= sum(tensor.nbytes for tensor in dropped)


def _write(path: Path, mean: Tensor, std: Tensor) -> None:
    tensors = {"mean": mean.contiguous(), "std": std.contiguous()}
    write_bytes(path, save(tensors, {"sha256": _digest(tensors["mean"], tensors["std"])}))


def _read(path: Path) -> tuple[Tensor, Tensor] | None:
    """What a file holds; None where there is none, or one that does not hold what was written."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            mean, std = file.get_tensor("mean").clone(), file.get_tensor("std").clone()
            if (file.metadata() or {}).get("sha256") == _digest(mean, std):
                return mean, std
    except (OSError, SafetensorError):
        pass
    logger.warning("%s: damaged; the picture is encoded again", path)
    return None


def _digest(mean: Tensor, std: Tensor) -> str:
    return hashlib.sha256(mean.numpy().tobytes() + std.numpy().tobytes()).hexdigest()
