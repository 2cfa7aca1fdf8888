"""Pictures on disk: PNG files that say how they were made, and any other tool's pictures read safely."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from palp_lab.dataset import picture_file
from palp_lab.study.writing import write_bytes
from palp_lab.types import UserError

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from torch import Tensor

Scalar = str | int | float | bool | None
CHUNK = "palp_lab"
"""PNG text chunk that holds what is known about a picture, as JSON."""


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


def read_image(path: Path) -> UInt8[Tensor, "3 h w"]:
    """The pixels of an image file of any tool. Raises UserError for what is corrupt, animated, tiny or huge."""
    return picture_file.to_tensor(picture_file.read_picture(Path(path))[0])


def read_picture(path: Path) -> Picture:
    """A picture with its description. Raises UserError for a file that palp-lab did not write."""
    image, _ = picture_file.read_picture(Path(path))
    try:
        about = json.loads(image.info[CHUNK])
        pixels = picture_file.to_tensor(image)
        return Picture(about["prompt"], about["sentence"], about["seed"], pixels, about["knobs"])
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: does not say how it was made; list other tools' pictures in a prompts.json") from None


def read_pictures(folder: Path) -> list[Picture]:
    """All pictures palp-lab wrote into a folder, by name."""
    return [read_picture(path) for path in picture_file.picture_files(Path(folder), "pictures")]
