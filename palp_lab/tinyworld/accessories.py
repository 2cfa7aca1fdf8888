"""What a subject can wear or hold: hat, crown, sunglasses, scarf, balloon, each in a free colour."""

from __future__ import annotations

import numpy as np

from palp_lab.tinyworld.creatures import DARK, LAMP, WHITE, Wear
from palp_lab.tinyworld.draw import Canvas, Fill


def hat(c: Canvas, wear: Wear, fill: Fill) -> None:
    """A top hat with a band and a wide brim."""
    u, v, w = wear.head
    w = max(w, 0.15)
    band = WHITE if float(np.mean(fill)) < 0.6 else DARK
    c.box(u, v - 0.135, w * 0.72, 0.125, fill, 0.015)
    c.box(u, v - 0.055, w * 0.74, 0.028, band, line=False, shade=False)
    c.box(u, v - 0.01, w * 1.3, 0.034, fill, 0.025)


def crown(c: Canvas, wear: Wear, fill: Fill) -> None:
    """A crown with three points and balls on them."""
    u, v, w = wear.head
    w = max(w, 0.14) * 0.95
    low, high, dip = v + 0.03, v - 0.20, v - 0.075
    points = [(-1.0, low), (-1.15, high), (-0.5, dip), (0.0, high - 0.02), (0.5, dip), (1.15, high), (1.0, low)]
    c.polygon([(u + w * a, b) for a, b in points], fill, 0.012)
    for a, b in ((-1.15, high), (0.0, high - 0.02), (1.15, high)):
        c.ellipse(u + w * a, b - 0.01, 0.034, 0.034, LAMP if float(fill[2]) < 0.75 else fill)


def sunglasses(c: Canvas, wear: Wear, fill: Fill) -> None:
    """Two big lenses in the colour of the glasses with dark rims, a bridge and a glint."""
    u, v, gap, r = wear.eyes
    gap, r = max(gap, 0.10), max(r * 1.38, 0.082)
    c.limb(u - gap * 1.7, v - r * 0.35, u + gap * 1.7, v - r * 0.35, 0.026, DARK)
    for s in (-1.0, 1.0):
        c.box(u + s * gap, v + r * 0.08, r * 1.12, r * 0.98, DARK, r * 0.6)
        c.box(u + s * gap, v + r * 0.08, r * 0.82, r * 0.68, fill, r * 0.4, shade=False)


def scarf(c: Canvas, wear: Wear, fill: Fill) -> None:
    """A thick scarf around the neck with an end hanging down."""
    u, v, w = wear.neck
    c.box(u + w * 0.55, v + 0.13, 0.065, 0.14, fill, 0.02, angle=0.12)
    c.limb(u - w, v, u + w, v, 0.066, fill)
    c.ellipse(u + w * 0.55, v + 0.02, 0.075, 0.07, fill)


def balloon(c: Canvas, wear: Wear, fill: Fill) -> None:
    """A balloon on a string, floating beside the head."""
    u, v = wear.hand
    x, y = max(min(u, 0.0) - 0.19, -0.42), min(-0.88, wear.head[1])
    c.limb(u, v, x, y + 0.16, 0.010, DARK, shade=False)
    c.polygon([(x, y + 0.14), (x - 0.03, y + 0.21), (x + 0.03, y + 0.21)], fill)
    c.ellipse(x, y, 0.145, 0.175, fill)
    c.ellipse(x - 0.05, y - 0.07, 0.028, 0.042, WHITE, line=False, shade=False, opacity=0.85)


WEAR = {"hat": hat, "crown": crown, "sunglasses": sunglasses, "scarf": scarf, "balloon": balloon}
"""How each accessory is painted, by its word."""
