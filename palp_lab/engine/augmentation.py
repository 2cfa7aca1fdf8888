"""From canonical pictures to what the autoencoder takes: resize, random square crop, mirror."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from palp_lab.engine.settings import Augmentation

if TYPE_CHECKING:
    from palp_lab.types import Images, Pixels


def to_pixels(images: Images, resolution: int) -> Pixels:
    """8 bit pictures [b 3 h w] as floats in [-1, 1], resized to a square of the model's side."""
    return _resize(images.float() / 127.5 - 1, resolution).clamp(-1, 1)


def augment(
    picture: Tensor, mask: Tensor | None, how: Augmentation, generator: torch.Generator, resolution: int
) -> tuple[Tensor, Tensor | None]:
    """One augmented version of one picture [3 h w] (uint8) and its mask [h w] (bool).

    Always takes the same number of draws, whatever the settings. Returns [3 r r] in [-1, 1] and [1 r r] in [0, 1].
    """
    share, x, y, coin = torch.rand(4, generator=generator).tolist()
    height, width = picture.shape[-2:]
    side = min(height, width) if how.crop == 1 else round(min(height, width) * (how.crop + (1 - how.crop) * share))
    left, top = round(x * (width - side)), round(y * (height - side))
    if how.crop == 1:
        left, top = (width - side) // 2, (height - side) // 2
    box = (..., slice(top, top + side), slice(left, left + side))
    pixels = to_pixels(picture[box][None], resolution)[0]
    cut = None if mask is None else _resize(mask[box][None, None].float(), resolution)[0]
    if coin < how.flip:
        pixels, cut = pixels.flip(-1), None if cut is None else cut.flip(-1)
    return pixels, cut


def _resize(pictures: Tensor, resolution: int) -> Tensor:
    if pictures.shape[-2:] == (resolution, resolution):
        return pictures
    return functional.interpolate(
        pictures, (resolution, resolution), mode="bicubic" if len(pictures[0]) == 3 else "bilinear", antialias=True
    )
