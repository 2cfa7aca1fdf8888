"""Small pictures on disk for the tests of datasets."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from palp_lab.types import UserError


def photo(path: Path, size: tuple[int, int] = (60, 40), mode: str = "RGB", seed: int = 0, **how: object) -> Path:
    """A picture of noise; another seed is another picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **how)  # type: ignore[arg-type]
    return path


def photos(folder: Path, count: int) -> Path:
    """A folder of different pictures, 00.png and on."""
    for number in range(count):
        photo(folder / f"{number:02}.png", seed=number)
    return folder


def said(make: object) -> str:
    """The one line that comes of calling something with bad input."""
    with pytest.raises(UserError) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def real_photos() -> Path:
    """The DreamBooth dataset below PALP_LAB_DATA; skips, and says why, where there is none."""
    named = os.environ.get("PALP_LAB_DATA")
    if named is None:
        pytest.skip("PALP_LAB_DATA names no folder of real photos")
    root = Path(named) / "dreambench"
    if not root.is_dir():
        pytest.skip(f"PALP_LAB_DATA={named} holds no dreambench")
    return root
