"""Reading a picture that anybody may have made: any mode, any orientation, one clear line where it cannot be used."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from palp_lab.types import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from palp_lab.types import Images

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
SMALLEST = 32
"""Shortest side in pixels that still shows a subject (ours)."""
LARGEST = 100_000_000
"""Most pixels: beyond this a decoded picture fills a third of a gigabyte (ours)."""


def picture_files(folder: Path, key: str) -> list[Path]:
    """The pictures of a folder in the order of their names. Raises UserError for a missing or empty folder."""
    if not folder.exists():
        raise UserError(f"{key}={folder}: no such folder")
    if not folder.is_dir():
        raise UserError(f"{key}={folder}: is a file; give the folder that holds the pictures")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(f"{key}={folder}: holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return files


def read_picture(path: Path) -> tuple[Image.Image, list[str]]:
    """A picture as 8 bit RGB, upright as its EXIF says and on white where it is transparent, and what was done to it.

    Raises UserError for what cannot be read, has more than one frame, or is tiny or huge.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(path)
            if image.width * image.height > LARGEST:
                raise UserError(f"{path}: {image.width} x {image.height} pixels are too many; scale it down")
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{path}: is animated ({frames} frames); save one of them as a picture")
            image.load()
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: has too many pixels; scale it down") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path}: cannot be read as a picture ({error}); save it again as PNG or JPEG") from error
    if min(image.size) < SMALLEST:
        raise UserError(f"{path}: {image.width} x {image.height} pixels are too few; give at least {SMALLEST} a side")
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    done = []
    if image.getexif().get(0x0112, 1) != 1:
        image = ImageOps.exif_transpose(image)
        done.append("turned upright")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max() > 255 else 255.0
        image = Image.fromarray((values / top * 255).round().clip(0, 255).astype(np.uint8))
        done.append("16 bits reduced to 8")
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        done.append("laid on white")
    if image.mode == "CMYK":
        done.append("CMYK turned to RGB")
    return image.convert("RGB"), done


def square(image: Image.Image, side: int) -> tuple[Image.Image, str | None]:
    """The centred square of a picture at `side` x `side` pixels, and what was done (None: nothing)."""
    if image.size == (side, side):
        return image, None
    short = min(image.size)
    left, top = (image.width - short) // 2, (image.height - short) // 2
    cut = image.crop((left, top, left + short, top + short)).resize(
        (side, side), Image.Resampling.BICUBIC, reducing_gap=3
    )
    return cut, f"{image.width} x {image.height} cut to the middle {short} x {short} and scaled to {side} x {side}"


def to_tensor(image: Image.Image) -> Tensor:
    """An RGB picture as [3 h w] (uint8)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def digest(images: Images) -> str:
    """Hash of the pixels of a batch and its shape."""
    return hashlib.sha256(str(tuple(images.shape)).encode() + images.contiguous().numpy().tobytes()).hexdigest()
