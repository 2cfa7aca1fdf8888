"""The styles: each asks the painter for a look and turns its canvas into the finished picture."""

from __future__ import annotations

import numpy as np

from palp_lab.tinyworld.draw import Canvas, Look, X, Y, blur, noise
from palp_lab.tinyworld.factors import SIZE
from palp_lab.tinyworld.places import rgb

LOOKS = {
    "photo": Look(shading=1.0),
    "sketch": Look(0.25, 0.75, 0.6),
    "watercolor": Look(0.35, 0.6, 0.5),
    "neon": Look(0.0, 0.75, 0.6),
    "cartoon": Look(0.0, 0.85, 0.65),
    "blueprint": Look(0.0, 0.75, 0.6),
    "oil painting": Look(0.8),
    "artwork": Look(shading=1.0),
}
"""What each style asks of the painter."""

_LUMA = np.asarray([0.30, 0.59, 0.11], np.float32)
_EDGE = np.minimum(np.minimum(X, SIZE - X), np.minimum(Y, SIZE - Y))
"""Distance of a pixel to the border, in pixels."""
_GRID = (np.minimum((X + 4) % 8, (Y + 4) % 8) < 1.0).astype(np.float32)[..., None]
_VIGNETTE = (np.hypot(X - 32, Y - 32)[..., None] / 45.0) ** 2


def photo(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Soft shading, a faint vignette."""
    return c.rgb * (1.04 - 0.16 * _VIGNETTE)


def sketch(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Gray pencil lines on warm paper with a light tint of the colours."""
    paper = rgb(244, 241, 233)
    gray = (c.rgb @ _LUMA)[..., None]
    inside = coverage(c)
    tint = inside * 0.42 + (1.0 - inside) * 0.14
    out = paper * (0.80 + 0.20 * gray) + tint * (c.rgb - gray) - 0.16 * inside * (1.0 - gray)
    return out + (0.92 * c.line)[..., None] * (rgb(70, 70, 76) - out)


def watercolor(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Pale pigment in soft blotches, darker at its edges, on white paper with a wavy border."""
    paper = rgb(252, 250, 245)
    pigment = 0.62 + 0.16 * noise(rng, 6) + 0.10 * noise(rng, 11) + 0.06 * coverage(c)[..., 0]
    out = paper + pigment[..., None] * (c.rgb - paper)
    out = out + (0.42 * c.line)[..., None] * (c.ink * 0.5 - out)
    border = np.clip((_EDGE - 4.0 + 2.2 * noise(rng, 7)) * 0.7, 0.0, 1.0)[..., None]
    return paper + border * (out - paper)


def neon(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Glowing tubes in the colours of the shapes on near-black."""
    ink = c.ink
    top = ink.max(axis=-1, keepdims=True)
    low = ink.min(axis=-1, keepdims=True)
    vivid = (ink - 0.6 * low) / (top - 0.6 * low + 1e-3)
    # Dark colours have no glow of their own: brown and black become dim tubes, told apart from orange and white.
    strength = 0.42 + 0.58 * np.clip(top * 1.25 - 0.2, 0.0, 1.0)
    inside = coverage(c)
    tube = c.line[..., None] * vivid * strength * (0.55 + 0.45 * inside)
    glow = blur(tube, 3)
    fill = c.rgb * (0.07 + 0.20 * inside)
    return rgb(9, 8, 20) + fill + 0.95 * glow + tube * 0.85


def cartoon(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Flat, saturated colours and thick black outlines."""
    gray = (c.rgb @ _LUMA)[..., None]
    out = np.clip(gray + 1.45 * (c.rgb - gray), 0.0, 1.0)
    return out * (1.0 - c.line)[..., None]


def blueprint(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """White lines on blue with a faint grid; subjects keep a transparent tint of their colours."""
    base = rgb(26, 70, 158)
    inside = coverage(c)
    gray = (c.rgb @ _LUMA)[..., None]
    out = base * (0.86 + 0.28 * gray) + 0.05 * _GRID * (1.0 - inside)
    out = out + 0.55 * inside * (c.rgb - out)
    return out + (0.9 * c.line)[..., None] * (rgb(226, 238, 255) - out)


def oil_painting(c: Canvas, rng: np.random.Generator) -> np.ndarray:
    """Warm, dark, brushy paint inside a golden frame. What is worn or held is small and painted with a finer brush."""
    a, b = noise(rng, 9), noise(rng, 9)
    rows = np.clip((Y + 1.5 * a).astype(np.intp), 0, SIZE - 1)
    columns = np.clip((X + 1.5 * b).astype(np.intp), 0, SIZE - 1)
    out = c.rgb[rows, columns]
    out = 0.4 * out + 0.6 * blur(out)
    out = out * (1.02 + 0.12 * a + 0.06 * b)[..., None]
    out = (out * 0.92 + 0.05) * rgb(255, 234, 196) * (1.06 - 0.22 * _VIGNETTE)
    if c.worn is not None:
        out = out + 0.9 * c.worn[..., None] * (c.rgb - out)
    frame = np.clip(4.6 - _EDGE, 0.0, 1.0)[..., None]
    gold = rgb(196, 148, 62) * (0.75 + 0.5 * np.clip(1.0 - np.abs(_EDGE - 2.0) / 2.5, 0.0, 1.0))[..., None]
    return out + frame * (gold - out)


def coverage(c: Canvas) -> np.ndarray:
    """Coverage of all subjects together, float32 [64, 64, 1]."""
    if not c.subjects:
        return np.zeros((SIZE, SIZE, 1), np.float32)
    cover = c.subjects[0]
    for other in c.subjects[1:]:
        cover = np.maximum(cover, other)
    return cover[..., None]


FINISH = {
    "photo": photo, "sketch": sketch, "watercolor": watercolor, "neon": neon,
    "cartoon": cartoon, "blueprint": blueprint, "oil painting": oil_painting,
    "artwork": photo,
}  # fmt: skip
"""The finish of every style, by its words."""
