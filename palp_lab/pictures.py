"""Pictures on disk: PNG files that say how they were made, and any other tool's pictures read safely."""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from palp_lab.study.writing import write_bytes
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

Scalar = str | int | float | bool | None
CHUNK = "palp_lab"
"""PNG text chunk that holds what is known about a picture, as JSON."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@dataclass(frozen=True)
class Picture:
    """One generated picture [3 h w] (uint8). `sentence` has the slot (drift sentences have none), `prompt` is what the
    text encoder read; `knobs` say how it was made: scheduler, steps, guidance, strength, adapter, model, version."""

    prompt: str
    sentence: str
    seed: int
    image: UInt8[Tensor, "3 h w"]
    knobs: Mapping[str, Scalar] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """All but the pixels, as plain data."""
        return {"prompt": self.prompt, "sentence": self.sentence, "seed": self.seed, "knobs": dict(self.knobs)}

    def file_name(self) -> str:
        """A name that tells what it shows and that no other prompt, seed or knob shares."""
        digest = hashlib.sha256(json.dumps(self.about(), sort_keys=True).encode()).hexdigest()[:10]
        words = re.sub(r"[^a-z0-9]+", "-", self.sentence.lower()).strip("-")[:60].rstrip("-")
        return f"{words or 'empty'}-seed{self.seed:04d}-{digest}.png"


def png_bytes(image: UInt8[Tensor, "3 h w"], about: Mapping[str, Any] | None = None) -> bytes:
    """A PNG of a picture, with `about` in its text chunks (`palp_lab`: all of it; `Description`: the prompt)."""
    chunks = PngImagePlugin.PngInfo()
    if about is not None:
        chunks.add_text(CHUNK, json.dumps(about, sort_keys=True))
        chunks.add_text("Software", "palp-lab")
        if about.get("prompt"):
            chunks.add_itxt("Description", str(about["prompt"]))
    buffer = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def write_picture(folder: Path, picture: Picture) -> Path:
    """Writes a picture under its own name, whole or not at all."""
    return write_bytes(Path(folder) / picture.file_name(), png_bytes(picture.image, picture.about()))


def write_pictures(folder: Path, pictures: Iterable[Picture]) -> list[Path]:
    """Writes pictures as they come; the paths in their order."""
    return [write_picture(folder, picture) for picture in pictures]


def open_image(path: Path) -> Image.Image:
    """An image file, decoded, turned as its EXIF says and laid on white where it is transparent, as RGB.

    Raises UserError for a missing, corrupt, animated or monstrous file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image: Image.Image = Image.open(path)
            if (frames := getattr(image, "n_frames", 1)) > 1:
                raise UserError(f"{path}: is animated ({frames} frames); give a still picture")
            image.load()
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise UserError(f"{path}: has too many pixels to open; scale it down") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise UserError(f"{path}: is not a readable picture ({error}); save it again as PNG or JPEG") from None
    text = dict(getattr(image, "text", {}))
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    image = image.convert("RGB")
    image.info = text
    return image


def read_image(path: Path) -> UInt8[Tensor, "3 h w"]:
    """The pixels of an image file."""
    return torch.from_numpy(np.array(open_image(Path(path)))).permute(2, 0, 1).contiguous()


def read_picture(path: Path) -> Picture:
    """A picture with its description. Raises UserError for a file that palp-lab did not write."""
    image = open_image(Path(path))
    try:
        about = json.loads(image.info[CHUNK])
        return Picture(
            about["prompt"], about["sentence"], about["seed"],
            torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous(), about["knobs"],
        )  # fmt: skip
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: does not say how it was made; list other tools' pictures in a prompts.json") from None


def picture_files(folder: Path) -> list[Path]:
    """The image files of a folder, by name. Raises UserError where there are none."""
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of pictures")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not files:
        raise UserError(f"{folder}: holds no pictures ({', '.join(SUFFIXES)})")
    return files


def read_pictures(folder: Path) -> list[Picture]:
    """All pictures palp-lab wrote into a folder, by name."""
    return [read_picture(path) for path in picture_files(folder)]
