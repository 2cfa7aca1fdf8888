"""Artworks as concepts: a palette and a brush of their own, laid over any scene or shown without a subject."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palp_lab.tinyworld.draw import X, Y, noise
from palp_lab.tinyworld.factors import ARTWORKS, stable_hash

BRUSHES = ["waves", "cells", "strokes", "rings"]


@dataclass(frozen=True)
class Artwork:
    """A palette from dark to light, float [5, 3], and a brush: its kind, period in pixels and angle."""

    name: str
    palette: tuple[tuple[float, float, float], ...]
    brush: str
    period: float
    angle: float


def _hex(*codes: str) -> tuple[tuple[float, float, float], ...]:
    return tuple(tuple(int(code[i : i + 2], 16) / 255.0 for i in (0, 2, 4)) for code in codes)  # type: ignore[misc]


_NAMED = {
    "mosaic": (_hex("1d2b53", "1f8a8a", "d98e32", "f0d9a0", "ffffff"), "cells", 11.0, 0.1),
    "waves": (_hex("071e3d", "1f4e8c", "3f9bd0", "a8dcec", "ffffff"), "waves", 12.0, 0.15),
    "fire": (_hex("240404", "8c1408", "e2480c", "fbb32a", "fff6c8"), "waves", 13.0, 1.45),
    "ice": (_hex("24466b", "5f9cc4", "9ccfe6", "d6eff8", "ffffff"), "cells", 14.0, 0.7),
    "candy": (_hex("b0226e", "f45fa4", "ffa6cf", "a8ecdc", "fffbe0"), "strokes", 11.0, 0.8),
    "jungle": (_hex("08240f", "14602a", "4fa52c", "b9d94a", "f4f7b0"), "strokes", 13.0, -0.9),
    "marble": (_hex("2b2b30", "77747c", "b9b4b4", "e3dfda", "ffffff"), "waves", 17.0, 0.7),
    "autumn": (_hex("3a1206", "8e3310", "cf7016", "e9b33c", "fbeab8"), "cells", 10.0, 0.4),
    "storm": (_hex("0c0d18", "2c2e4c", "5b5c80", "9fa2b8", "f4efc0"), "strokes", 12.0, 0.35),
    "ribbons": (_hex("2a0a52", "7a24b8", "e0409c", "ff9a62", "ffec9e"), "waves", 15.0, -0.6),
    "bubbles": (_hex("0a2f4a", "10708a", "34b8b0", "9ae8d0", "f4fff4"), "rings", 12.0, 0.0),
    "sunrise": (_hex("341a5a", "93346e", "ef6a5a", "fdb668", "fff2c0"), "rings", 18.0, 0.0),
}


def named_artwork(name: str) -> Artwork:
    """One of the twelve artworks of the pretraining set."""
    palette, brush, period, angle = _NAMED[name]
    return Artwork(name, palette, brush, period, angle)


def sample_artwork(seed: int) -> Artwork:
    """A held-out artwork: a palette of one dark, three vivid and one light colour, and a brush, from its seed."""
    rng = np.random.default_rng([613, int(seed)])
    hue, spread = rng.uniform(0.0, 1.0), rng.choice([-0.3, -0.15, 0.15, 0.3, 0.5])
    palette = []
    for i, value in enumerate((0.16, 0.46, 0.72, 0.9, 1.0)):
        h = (hue + spread * i / 3.0) % 1.0
        wheel = np.clip(np.abs((h * 6.0 + np.asarray([0.0, 4.0, 2.0])) % 6.0 - 3.0) - 1.0, 0.0, 1.0)
        saturation = (0.7, 0.8, 0.75, 0.5, 0.12)[i]
        palette.append(tuple(float(x) for x in value * (1.0 - saturation * (1.0 - wheel))))
    brush = BRUSHES[rng.integers(0, len(BRUSHES))]
    return Artwork(f"artwork {seed}", tuple(palette), brush, float(rng.uniform(9, 18)), float(rng.uniform(-1.5, 1.5)))


def by_name(name: str) -> Artwork:
    """An artwork by the name a scene carries: a named one, or "artwork <seed>"."""
    return named_artwork(name) if name in ARTWORKS else sample_artwork(int(name.split()[-1]))


def _brush(artwork: Artwork, rng: np.random.Generator) -> np.ndarray:
    """The brush's relief in [-1, 1], float32 [64, 64]; soft, no finer than nine pixels."""
    k = 2.0 * math.pi / artwork.period
    cos, sin = math.cos(artwork.angle), math.sin(artwork.angle)
    p, q = cos * X + sin * Y, cos * Y - sin * X
    phase = rng.uniform(0.0, 6.28)
    # The layout belongs to the artwork, its phase to the scene.
    own = np.random.default_rng([17, stable_hash(artwork.name)])
    if artwork.brush == "waves":
        return np.sin(k * q + 1.6 * noise(own, 4) + 0.9 * np.sin(0.5 * k * p + phase))
    if artwork.brush == "cells":
        return np.clip(2.2 * np.sin(k * p + phase) * np.sin(k * q + phase), -1.0, 1.0)
    if artwork.brush == "strokes":
        return np.clip(1.6 * np.sin(k * q + 0.7 * np.sin(0.35 * k * p)) * np.cos(0.4 * k * p + phase), -1.0, 1.0)
    return np.cos(k * np.hypot(X - 32.0 - 12.0 * cos, Y - 20.0 - 12.0 * sin) + phase)


def _paint(artwork: Artwork, tone: np.ndarray) -> np.ndarray:
    palette = np.asarray(artwork.palette, np.float32)
    at = np.clip(tone, 0.0, 1.0) * (len(palette) - 1)
    stops = np.arange(len(palette))
    return np.stack([np.interp(at, stops, palette[:, i]) for i in range(3)], axis=-1).astype(np.float32)


def recolour(picture: np.ndarray, cover: np.ndarray, artwork: Artwork, rng: np.random.Generator) -> np.ndarray:
    """The scene in the artwork's palette and brush; ``picture`` float [64, 64, 3], subjects ``cover`` [64, 64, 1]."""
    gray = picture @ np.asarray([0.30, 0.59, 0.11], np.float32)
    relief = _brush(artwork, rng)
    calm = 0.16 * (1.0 - 0.55 * cover[..., 0])
    painted = _paint(artwork, 0.04 + 0.92 * gray + calm * relief)
    keep = 0.10 + 0.22 * cover
    return painted + keep * (picture - painted)


def abstract_painting(artwork: Artwork, rng: np.random.Generator) -> np.ndarray:
    """The artwork itself: its palette in large soft forms under its brush, no subject; float [64, 64, 3]."""
    tone = 0.5 + 0.38 * noise(rng, 3) + 0.16 * noise(rng, 5) + 0.16 * _brush(artwork, rng)
    return _paint(artwork, tone)
