"""From 8 bit pictures to what a vision network takes, as its folder's own configuration says.

The image processors of transformers rescale floats in [0, 1] a second time and detach; this takes uint8 only, on any
device, and rounds after resizing as PIL does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

FILTERS = {2: "bilinear", 3: "bicubic"}
"""PIL's numbers of the filters torch has with antialiasing."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale to [0, 1], normalise. `shortest` or `size` (height, width) or neither says how to resize;
    `crop` (height, width) is taken from the centre."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    shortest: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    filter: str = "bicubic"

    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 x y"]:
        if images.dtype != torch.uint8:
            raise TypeError(f"pictures are uint8, not {images.dtype}: floats would be scaled twice")
        if self.crop is not None:
            pixels = _centre(self._resized(images), self.crop)
        else:
            pixels = self._resized(images)
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (pixels / 255 - mean) / std

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        target = self.size or (height, width)
        if self.shortest is not None:
            # As transformers: the longer side is cut to a whole number, not rounded.
            short, long = min(height, width), int(self.shortest * max(height, width) / min(height, width))
            target = (self.shortest, long) if short == height else (long, self.shortest)
        if target == (height, width):
            return images.float()
        pixels = functional.interpolate(images.float(), target, mode=self.filter, antialias=True, align_corners=False)
        return pixels.round().clamp(0, 255)


def _centre(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    down, right = max(0, crop[0] - height), max(0, crop[1] - width)
    if down or right:  # smaller than the crop: black around it, as transformers pads
        pixels = functional.pad(pixels, (right // 2, right - right // 2, down // 2, down - down // 2))
        height, width = pixels.shape[-2:]
    top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
    return pixels[..., top : top + crop[0], left : left + crop[1]]


def read_preprocessing(folder: Path) -> Preprocessing:
    """The preprocessing a model folder asks for (`preprocessor_config.json`, or the part of `processor_config.json`).

    Raises UserError where the folder has none, or one that is not a resize, a centre crop and a normalisation.
    """
    alone, nested = folder / "preprocessor_config.json", folder / "processor_config.json"
    path = alone if alone.is_file() else nested
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{alone}: is missing; copy it from where the network comes from") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None
    return parse_preprocessing(values.get("image_processor", values), path)


def parse_preprocessing(values: dict[str, Any], path: Path) -> Preprocessing:
    """The same from the parsed JSON; `path` is named in errors."""
    if not values.get("do_rescale", True) or not values.get("do_normalize", True):
        raise UserError(f"{path}: do_rescale and do_normalize must be true")
    if abs(values.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-6:
        raise UserError(f"{path}: rescale_factor is {values['rescale_factor']}, only 1/255 is known")
    shortest, size, crop = None, None, None
    if values.get("do_resize", True):
        wanted = values.get("size", 224)
        shortest = wanted if isinstance(wanted, int) else wanted.get("shortest_edge")
        if shortest is None:
            size = _pair(wanted, path, "size")
        if values.get("crop_pct"):
            raise UserError(f"{path}: crop_pct (ConvNeXt's resize) is not known; give size and crop_size")
    number = int(values.get("resample", 3))
    if number not in FILTERS:
        raise UserError(f"{path}: resample={number} is not known; torch has {FILTERS}")
    if values.get("do_center_crop", False):
        wanted = values.get("crop_size", 224)
        crop = (wanted, wanted) if isinstance(wanted, int) else _pair(wanted, path, "crop_size")
    try:
        mean, std = tuple(values["image_mean"]), tuple(values["image_std"])
    except KeyError as error:
        raise UserError(f"{path}: {error.args[0]} is missing") from None
    return Preprocessing(mean, std, shortest, size, crop, FILTERS[number])


def _pair(value: dict[str, int], path: Path, key: str) -> tuple[int, int]:
    try:
        return value["height"], value["width"]
    except (KeyError, TypeError):
        raise UserError(f"{path}: {key}={value} is neither a number, nor shortest_edge, nor height and width") from None
