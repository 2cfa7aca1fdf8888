"""Masks of the subject: beside the photos, in a folder of their own, or from a segmentation model."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from palp_lab.dataset.picture_file import PreparedPicture, cut, picture_files, read_picture, to_tensor
from palp_lab.model.segmentation import TextSegmenter
from palp_lab.study.writing import write_bytes
from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Images, Masks

MASK_SUFFIXES = ("_mask", "-masklabel")
"""`photo.jpg` may have `photo_mask.png` beside it, or `photo-masklabel.png` as OneTrainer names it."""
SMALLEST_SHARE = 0.002
"""A mask that covers less of the photo found nothing (ours: 23 x 23 of 512 x 512 pixels)."""


def photo_stem(path: Path) -> str | None:
    """The stem of the photo a mask file belongs to, its suffix in any case; None for a file that is no mask."""
    return next((path.stem[: -len(end)] for end in MASK_SUFFIXES if path.stem.lower().endswith(end)), None)


def masks_in(folder: Path, key: str) -> dict[str, Path]:
    """The masks of a folder by the stem of their photo, with or without a suffix."""
    return {photo_stem(path) or path.stem: path for path in picture_files(folder, key)}


def read_masks(photos: Sequence[Path], masks: Mapping[str, Path], about: Sequence[PreparedPicture]) -> Masks:
    """The masks of some photos, cut and scaled as the photos were: true where they are more white than black.

    Raises UserError for a photo without a mask, a mask of another shape than its photo, or one that is all black.
    """
    return torch.stack(
        [_read_mask(photo, masks.get(photo.stem), done) for photo, done in zip(photos, about, strict=True)]
    )


def _read_mask(photo: Path, path: Path | None, about: PreparedPicture) -> Tensor:
    if path is None:
        raise UserError(f"{photo}: has no mask {photo.stem}{MASK_SUFFIXES[0]}.png, though others have; add it")
    image, _ = read_picture(path, ground="black")
    if abs(image.width * about.height - image.height * about.width) > max(image.size) * 2:
        raise UserError(
            f"{path}: is {image.width} x {image.height}, its photo {about.width} x {about.height}; "
            "a mask has the shape of its photo"
        )
    mask = to_tensor(cut(image, about.side)).float().mean(0) > 127
    if mask.float().mean() < SMALLEST_SHARE:
        raise UserError(f"{path}: shows no white where the photo is cut; white marks the subject")
    return mask


def segment(
    photos: Images,
    model: str | Path,
    words: str,
    threshold: float,
    cache: Path | None,
    about: Sequence[PreparedPicture],
) -> Masks:
    """Where a segmentation model sees `words` in each photo, by what it says of them, kept in `cache` by content.

    Raises UserError for a model that is not there, or a photo in which it finds nothing.
    """
    if not 0 < threshold < 1:
        raise UserError(f"dataset.segment_threshold={threshold}: must lie between 0 and 1")
    segmenter = TextSegmenter(model, "dataset.segment")
    found = torch.stack([_likelihood(segmenter, photo, words, cache) for photo in photos]) > threshold
    for mask, picture in zip(found, about, strict=True):
        if (share := mask.float().mean().item()) < SMALLEST_SHARE:
            raise UserError(
                f"{picture.file}: {model} finds {words!r} in {share:.1%} of it; lower dataset.segment_threshold, "
                "choose other dataset.segment_words, or give a mask"
            )
    return found


def _likelihood(segmenter: TextSegmenter, photo: Tensor, words: str, cache: Path | None) -> Tensor:
    """The likelihood of each pixel [h w], rounded to 8 bits whether it was kept or made just now."""
    path = None if cache is None else cache / f"{_key(segmenter.fingerprint, photo, words)}.png"
    if path is not None and path.is_file():
        try:
            with Image.open(path) as kept:
                return torch.from_numpy(np.array(kept.convert("L"))).float() / 255
        except OSError:
            path.unlink()  # damaged: made again below
    levels = (segmenter.likelihood(photo[None], words)[0] * 255).round().to(torch.uint8)
    if path is not None:
        write_bytes(path, _png(levels))
    return levels.float() / 255


def _key(fingerprint: str, photo: Tensor, words: str) -> str:
    named = f"{fingerprint}\n{words}\n{tuple(photo.shape)}\n".encode()
    return hashlib.sha256(named + photo.contiguous().numpy().tobytes()).hexdigest()[:24]


def _png(levels: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels.numpy()).save(buffer, "PNG")
    return buffer.getvalue()
