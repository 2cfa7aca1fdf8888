"""The named factors of the tiny world: every class, style, place, accessory, colour and framing word."""

from __future__ import annotations

import numpy as np

SIZE = 64
"""Side of a picture in pixels."""

WORLD_VERSION = 3
"""Raised whenever a pixel or a caption of the world changes."""

CLASSES = ["cat", "dog", "rabbit", "bear", "bird", "fish", "turtle", "robot", "teapot", "car"]
STYLES = ["photo", "sketch", "watercolor", "neon", "cartoon", "blueprint", "oil painting"]
PLACES = ["plain", "beach", "forest", "snow", "desert", "city", "meadow", "underwater", "night", "kitchen"]
ACCESSORIES = ["hat", "crown", "sunglasses", "scarf", "balloon"]
PATTERNS = ["plain", "spotted", "striped", "patched", "two-tone"]
FRAMINGS = ["none", "close-up", "far away", "cropped", "small", "large", "dark", "bright", "clean", "dirty", "weird"]
RELATIONS = ["none", "next to", "in front of"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 42),
    "orange": (246, 134, 28),
    "yellow": (250, 218, 50),
    "green": (58, 160, 66),
    "teal": (36, 188, 188),
    "blue": (44, 92, 216),
    "purple": (128, 58, 182),
    "pink": (250, 148, 196),
    "brown": (126, 78, 42),
    "black": (40, 38, 44),
    "white": (246, 246, 242),
    "gray": (142, 144, 150),
}
COLOUR_NAMES = list(COLOURS)

ARTWORKS = [
    "mosaic", "waves", "fire", "ice", "candy", "jungle",
    "marble", "autumn", "storm", "ribbons", "bubbles", "sunrise",
]  # fmt: skip
"""Named artworks of the pretraining set; others are addressed by a seed, see :mod:`artworks`."""

DEGRADATIONS = ["blur", "low contrast", "noise", "darkness", "low resolution"]

NEGATIVE_WORDS = [
    "unrealistic", "blurry", "low quality", "out of focus", "ugly",
    "low contrast", "dull", "dark", "low-resolution", "gloomy",
]  # fmt: skip
"""The negative prompt of NFSD. Source: 2310.17590, section 4."""


def stable_hash(*parts: str | int) -> int:
    """A 32-bit FNV-1a hash of the parts, the same in every process and on every machine."""
    value = 2166136261
    for byte in "|".join(str(part) for part in parts).encode():
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    # FNV's low bits are weak: mix them once more before anyone takes a remainder.
    value ^= value >> 15
    value = (value * 0x2C1B3C6D) & 0xFFFFFFFF
    return value ^ (value >> 13)


def colour(name: str) -> np.ndarray:
    """The colour word as float32 RGB in [0, 1]."""
    return np.asarray(COLOURS[name], np.float32) / 255.0
