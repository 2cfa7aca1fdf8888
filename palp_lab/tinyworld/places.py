"""The places: painted in pixels behind the subjects, each with salient shapes near the picture's border."""

from __future__ import annotations

import numpy as np

from palp_lab.tinyworld.draw import SIZE, Canvas, noise

_ROW = ((np.arange(SIZE, dtype=np.float32) + 0.5) / SIZE)[:, None, None]
_COLUMN = np.arange(SIZE, dtype=np.float32) + 0.5


def rgb(*values: float) -> np.ndarray:
    """A colour from 0..255 numbers, float32 in [0, 1]."""
    return np.asarray(values, np.float32) / 255.0


def _sky(c: Canvas, top: np.ndarray, bottom: np.ndarray) -> None:
    c.rgb[:] = top + (bottom - top) * _ROW


def _hills(rng: np.random.Generator, base: float, swing: float, waves: float = 1.2) -> np.ndarray:
    phase = rng.uniform(0.0, 6.28)
    return (base + swing * np.sin(_COLUMN / SIZE * 6.28 * waves + phase)).astype(np.float32)


def _side(rng: np.random.Generator) -> float:
    return -1.0 if rng.random() < 0.5 else 1.0


def _at(side: float, inset: float) -> float:
    """A column ``inset`` pixels away from the left (side -1) or the right border."""
    return inset if side < 0 else SIZE - inset


def plain(c: Canvas, rng: np.random.Generator) -> None:
    """A soft backdrop of a random muted colour, lighter in the middle."""
    hue = rng.uniform(0.35, 0.85, 3).astype(np.float32)
    base = 0.5 * hue + 0.5 * hue.mean() + 0.05
    c.rgb[:] = base * (1.06 - 0.22 * _ROW)


def beach(c: Canvas, rng: np.random.Generator) -> None:
    """Blue sky with a yellow sun, a strip of deep blue sea, sand, a palm tree at one side."""
    _sky(c, rgb(96, 178, 240), rgb(176, 224, 250))
    s = _side(rng)
    c.ellipse(_at(-s, 12 + rng.uniform(-2, 2)), 13 + rng.uniform(-2, 2), 6.0, 6.0, rgb(255, 226, 70))
    sea = 33 + rng.uniform(-2, 2)
    c.below(np.full(SIZE, sea, np.float32), rgb(24, 108, 196))
    c.below(_hills(rng, 44 + rng.uniform(-2, 2), 1.2, 1.5), rgb(236, 208, 142))
    x, lean = _at(s, 9 + rng.uniform(-2, 1)), s * -2.0
    c.limb(x, 54, x + lean, 20, 2.0, rgb(134, 92, 52), 1.5)
    for dx, dy in ((-9, 3), (9, 3), (-7, -4), (7, -4)):
        c.limb(x + lean, 19, x + lean + dx, 19 + dy, 2.4, rgb(42, 140, 60), 1.0)


def forest(c: Canvas, rng: np.random.Generator) -> None:
    """Dark green wood: thick trunks at both sides with round crowns, a green floor."""
    _sky(c, rgb(70, 130, 74), rgb(122, 168, 92))
    c.below(_hills(rng, 46, 1.0), rgb(62, 104, 44))
    for x, w in ((9, 3.2), (55, 3.2), (22 + rng.uniform(-2, 2), 1.8), (43 + rng.uniform(-2, 2), 1.8)):
        x += rng.uniform(-2, 2)
        c.box(x, 30, w, 24 if w > 2 else 18, rgb(98, 62, 34))
    green = rgb(26, 92, 40)
    for x, y, r in ((32, 2, 9), (6, 7, 12), (58, 7, 12), (18, 4, 8), (46, 4, 8)):
        c.ellipse(x + rng.uniform(-2, 2), y + rng.uniform(-1, 2), r, r * 0.85, green * rng.uniform(0.85, 1.2))


def snow(c: Canvas, rng: np.random.Generator) -> None:
    """Pale sky with falling flakes, white hills, fir trees with snow at both sides."""
    _sky(c, rgb(158, 188, 216), rgb(212, 226, 240))
    c.below(_hills(rng, 41, 2.0), rgb(240, 245, 250))
    for x, y in ((8, 44), (56, 46)):
        x, y = x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)
        c.box(x, y + 1, 1.4, 3, rgb(96, 66, 44))
        for i, w in enumerate((8.0, 6.5, 5.0)):
            v = y - 2 - 7 * i
            c.polygon([(x - w, v), (x, v - 11), (x + w, v)], rgb(38, 104, 88))
            c.polygon([(x - w * 0.45, v - 6), (x, v - 11), (x + w * 0.45, v - 6)], rgb(250, 252, 255), line=False)
    for x, y in (
        (20, 8),
        (33, 5),
        (45, 11),
        (5, 9),
        (59, 10),
        (26, 16),
        (40, 19),
        (15, 25),
        (50, 22),
        (6, 56),
        (57, 58),
    ):
        c.ellipse(x + rng.uniform(-2, 2), y + rng.uniform(-2, 2), 1.5, 1.5, rgb(255, 255, 255))


def desert(c: Canvas, rng: np.random.Generator) -> None:
    """Orange sky with a huge red sun, sand dunes, a tall cactus at one side."""
    _sky(c, rgb(246, 164, 86), rgb(252, 214, 142))
    s = _side(rng)
    c.ellipse(_at(-s, 14 + rng.uniform(-2, 2)), 15 + rng.uniform(-2, 2), 8.5, 8.5, rgb(236, 84, 46))
    c.below(_hills(rng, 40, 2.5, 1.0), rgb(226, 156, 82))
    c.below(_hills(rng, 48, 2.0, 0.8), rgb(206, 130, 62))
    x, green = _at(s, 9 + rng.uniform(-1, 2)), rgb(52, 128, 66)
    c.limb(x - 5.5, 34, x - 5.5, 28, 1.9, green)
    c.limb(x - 5.5, 35, x, 35, 1.9, green)
    c.limb(x + 5.5, 31, x + 5.5, 25, 1.9, green)
    c.limb(x + 5.5, 32, x, 32, 1.9, green)
    c.limb(x, 52, x, 19, 2.7, green)


def city(c: Canvas, rng: np.random.Generator) -> None:
    """Gray-blue sky, tall buildings with lit windows, a dark road with white dashes."""
    _sky(c, rgb(150, 168, 196), rgb(206, 208, 214))
    walls = [rgb(120, 104, 112), rgb(92, 98, 122), rgb(150, 112, 92), rgb(108, 116, 128)]
    first = int(rng.integers(0, 4))
    for i, (x, w, top) in enumerate(((23, 6.0, 24), (41, 6.0, 21), (9, 7.5, 9), (55, 7.5, 12))):
        x, top = x + rng.uniform(-1, 1), top + rng.uniform(-4, 4)
        c.box(x, (top + 52) / 2, w, (52 - top) / 2, walls[(first + i) % 4])
        if w > 7:
            for row in range(3):
                for dx in (-3.2, 3.2):
                    c.box(x + dx, top + 6 + 9 * row, 1.7, 2.3, rgb(255, 224, 120), line=row < 3)
    c.below(np.full(SIZE, 50.0, np.float32), rgb(72, 72, 80))
    for x in (4, 24, 44, 62):
        c.box(x, 58.5, 4.5, 1.0, rgb(240, 240, 232), line=False)


def meadow(c: Canvas, rng: np.random.Generator) -> None:
    """Blue sky with white clouds, bright green hills, big flowers along the lower border."""
    _sky(c, rgb(122, 194, 250), rgb(206, 236, 252))
    for x, y in ((12, 10), (51, 13)):
        x, y = x + rng.uniform(-3, 3), y + rng.uniform(-2, 2)
        for dx, dy, r in ((-5, 1, 3.5), (5, 1, 3.5), (0, -1, 5.0)):
            c.ellipse(x + dx, y + dy, r * 1.1, r, rgb(252, 253, 255), line=dx != 0 or r > 4)
    c.below(_hills(rng, 38, 2.5, 1.0), rgb(132, 204, 92))
    c.below(_hills(rng, 47, 2.0, 0.7), rgb(96, 180, 70))
    petals = [rgb(255, 90, 130), rgb(255, 240, 120), rgb(250, 250, 255), rgb(190, 110, 230)]
    for i, (x, y) in enumerate(((6, 47), (58, 48), (12, 58), (51, 58), (4, 60), (60, 59))):
        x, y = x + rng.uniform(-1.5, 1.5), y + rng.uniform(-1.5, 1.5)
        c.ellipse(x, y, 3.2, 3.2, petals[i % 4])
        c.ellipse(x, y, 1.3, 1.3, rgb(250, 180, 40), line=False)


def underwater(c: Canvas, rng: np.random.Generator) -> None:
    """Teal depth with light rays, tall seaweed at both sides, rising bubbles, a sandy bottom."""
    _sky(c, rgb(54, 168, 196), rgb(8, 74, 122))
    for x in (18, 34, 50):
        x += rng.uniform(-4, 4)
        c.polygon([(x, 0), (x + 5, 0), (x - 4, 50), (x - 14, 50)], rgb(140, 220, 230), line=False, opacity=0.16)
    c.below(_hills(rng, 56, 1.5), rgb(110, 128, 118))
    for x, height in ((4, 34), (10, 24), (54, 26), (60, 38)):
        x, height = x + rng.uniform(-1, 1), height + rng.uniform(-4, 4)
        y, bend = 62.0, _side(rng) * 2.4
        for _ in range(3):
            c.limb(x, y, x + bend, y - height / 3, 1.9, rgb(30, 128, 78))
            x, y, bend = x + bend, y - height / 3, -bend
    for x, y, r in ((7, 14, 3.0), (12, 6, 2.0), (55, 10, 3.2), (50, 4, 2.0), (58, 20, 2.0)):
        x, y = x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)
        c.ring(x, y, r, r, 0.7, rgb(190, 236, 246))


def night(c: Canvas, rng: np.random.Generator) -> None:
    """Dark blue sky with a big crescent moon and stars, black hills."""
    _sky(c, rgb(12, 14, 46), rgb(38, 42, 96))
    s = _side(rng)
    x, y = _at(s, 13 + rng.uniform(-2, 2)), 13 + rng.uniform(-2, 2)
    region = c.region(x - 9, y - 9, x + 9, y + 9)
    if region is not None:
        u, v = c.u[region], c.v[region]
        moon = np.maximum(np.hypot(u - x, v - y) - 7.5, 6.2 - np.hypot(u - x - s * 3.8, v - y + 1.8))
        c.paint(region, moon, rgb(255, 240, 170))
    for x, y in ((8, 8), (20, 5), (32, 9), (44, 5), (56, 9), (5, 24), (15, 17), (59, 26), (49, 18), (26, 15), (38, 18)):
        x, y = x + rng.uniform(-2, 2), y + rng.uniform(-2, 2)
        c.ellipse(x, y, 0.9, 0.9, rgb(255, 255, 225), line=False)
    c.below(_hills(rng, 49, 2.0, 1.3), rgb(14, 30, 34))


def kitchen(c: Canvas, rng: np.random.Generator) -> None:
    """A warm wall with a window, a shelf with jars and a hanging lamp, a wooden table in front."""
    _sky(c, rgb(250, 232, 196), rgb(240, 212, 166))
    s = _side(rng)
    x, y = _at(-s, 12 + rng.uniform(-1, 2)), 16 + rng.uniform(-2, 2)
    c.box(x, y, 8.5, 9.5, rgb(252, 252, 250))
    for dx in (-4, 4):
        for dy in (-4.5, 4.5):
            c.box(x + dx, y + dy, 2.9, 3.4, rgb(120, 190, 240))
    x, y = _at(s, 10), 26 + rng.uniform(-2, 2)
    c.box(x, y, 9.5, 1.5, rgb(140, 88, 48))
    for dx, tone in ((-5.5, rgb(210, 70, 60)), (0.5, rgb(70, 150, 140)), (6, rgb(240, 190, 60))):
        c.box(x + dx, y - 6, 2.3, 4.3, tone, 1.0)
    c.below(np.full(SIZE, 49.0, np.float32), rgb(176, 112, 62))
    c.below(np.full(SIZE, 56.0, np.float32), rgb(150, 90, 48))


PAINTERS = {
    "plain": plain, "beach": beach, "forest": forest, "snow": snow, "desert": desert,
    "city": city, "meadow": meadow, "underwater": underwater, "night": night, "kitchen": kitchen,
}  # fmt: skip
"""The painter of every place, by its word."""

LIGHT = {"night": rgb(206, 209, 240), "underwater": rgb(196, 236, 250), "desert": rgb(255, 240, 222)}
"""Colour of the light that falls on subjects, where it is not white."""


def paint_place(c: Canvas, place: str, rng: np.random.Generator) -> None:
    """Paints ``place`` over the whole canvas; soft large-scale unevenness so that no two skies are the same."""
    PAINTERS[place](c, rng)
    if c.look.shading:
        c.rgb *= (1.0 + 0.05 * noise(rng, 4))[..., None]
