"""From 8 bit pictures to what a vision network takes: resize as PIL does, crop, normalise, without torchvision.

The published evaluators resize PIL pictures, so PIL does it here: the same 8 bit pixels, not nearly the same ones. The
image processors of transformers rescale floats in [0, 1] a second time; this takes uint8 only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch.nn import functional

from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from torch import Tensor

FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""PIL's numbers of its filters, as preprocessor_config.json has them."""
SHORTEST = ("CLIP", "Bit")
"""Image processors of transformers for which a bare number is the shorter side, which crop, and whose filter is bicubic
where their file is silent; for all others (ViT, so DINO) it is a square, uncropped, bilinear."""


@dataclass(frozen=True)
class Preprocessing:
    """Resize, crop, scale to [0, 1], normalise. `shortest` or `size` (height, width) or neither says how to resize;
    `crop` (height, width) is taken from the centre. `antialias` false resizes float tensors, as textual inversion's
    evaluator does: no antialiasing, no rounding to whole levels (bicubic and bilinear only)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    shortest: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    filter: str = "bicubic"
    antialias: bool = True

    def __call__(self, images: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 x y"]:
        if images.dtype != torch.uint8:
            raise TypeError(f"pictures are uint8, not {images.dtype}: floats would be scaled twice")
        pixels = self._resized(images.cpu())
        if self.crop is not None:
            pixels = _centre(pixels, self.crop)
        mean, std = torch.tensor(self.mean).view(-1, 1, 1), torch.tensor(self.std).view(-1, 1, 1)
        return (pixels / 255 - mean) / std

    def target(self, height: int, width: int) -> tuple[int, int]:
        """The size a picture is resized to."""
        if self.shortest is None:
            return self.size or (height, width)
        # As torchvision and transformers: the longer side is cut to a whole number, not rounded.
        long = int(self.shortest * max(height, width) / min(height, width))
        return (self.shortest, long) if height <= width else (long, self.shortest)

    def _resized(self, images: Tensor) -> Tensor:
        height, width = self.target(*images.shape[-2:])
        if (height, width) == tuple(images.shape[-2:]):
            return images.float()
        if not self.antialias:
            return functional.interpolate(images.float(), (height, width), mode=self.filter, align_corners=False)
        way = Image.Resampling[self.filter.upper()]
        resized = [
            Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy()).resize((width, height), way)
            for picture in images
        ]
        flat = [torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8) for picture in resized]
        return torch.stack(flat).view(-1, height, width, 3).permute(0, 3, 1, 2).float()


def preprocessing(
    mean: Sequence[float],
    std: Sequence[float],
    shortest: int | None = None,
    size: int | Sequence[int] | None = None,
    crop: int | Sequence[int] | None = None,
    filter: str = "bicubic",
    antialias: bool = True,
) -> Preprocessing:
    """A preprocessing from configuration: the one a protocol was published with, where it is not the one of the
    network's folder. Numbers stand for squares."""
    if filter not in FILTERS.values() or (not antialias and filter == "lanczos"):
        raise UserError(f"preprocessing.filter={filter}: must be bicubic, bilinear, or, antialiased, lanczos")
    if shortest is not None and size is not None:
        raise UserError(f"preprocessing: shortest={shortest} and size={size} contradict each other; give one")

    def pair(value: int | Sequence[int] | None) -> tuple[int, int] | None:
        return None if value is None else (value, value) if isinstance(value, int) else (value[0], value[1])

    return Preprocessing(tuple(mean), tuple(std), shortest, pair(size), pair(crop), filter, antialias)


def _centre(pixels: Tensor, crop: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    down, right = max(0, crop[0] - height), max(0, crop[1] - width)
    if down or right:  # smaller than the crop: black around it, as transformers pads, the odd row above and left
        pixels = functional.pad(pixels, (right - right // 2, right // 2, down - down // 2, down // 2))
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
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    by_shortest = kind.startswith(SHORTEST)
    if values.get("do_resize", True):
        wanted = values.get("size", 224)
        if isinstance(wanted, int):
            wanted = {"shortest_edge": wanted} if by_shortest else {"height": wanted, "width": wanted}
        shortest = wanted.get("shortest_edge")
        if shortest is None:
            size = _pair(wanted, path, "size")
        if values.get("crop_pct"):
            raise UserError(f"{path}: crop_pct (ConvNeXt's resize) is not known; give size and crop_size")
    number = int(values.get("resample", 3 if by_shortest else 2))
    if number not in FILTERS:
        raise UserError(f"{path}: resample={number} is not known; there are {FILTERS}")
    if values.get("do_center_crop", by_shortest):
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
