"""The things of the tiny world: robot, teapot, car. Same frame as the animals."""

from __future__ import annotations

from palp_lab.tinyworld.creatures import DARK, GLASS, LAMP, WHITE, Kit, Wear, eye, pair_of_eyes
from palp_lab.tinyworld.draw import Canvas


def robot(c: Canvas, k: Kit) -> Wear:
    """Stands and faces us: box head with an antenna, box body with a panel, tube arms, a grille for a mouth."""
    w, h = 0.21 * k.grow("width", 0.18), 0.165 * k.grow("head", 0.15)
    arm, ant = k.grow("limbs", 0.2), 0.10 * k.grow("ears", 0.35)
    for s in (-1.0, 1.0):
        c.box(s * w * 0.52, -0.08, 0.075, 0.085, k.second, 0.02)
        swing = 0.05 * k.pose * s
        x, y = s * (w + 0.13), -0.42 + 0.17 * arm + swing
        c.limb(s * w, -0.46, x, y, 0.045, k.second)
        c.ellipse(x, y + 0.03, 0.065, 0.065, k.body)
    c.box(0.0, -0.34, w, 0.20, k.coat, 0.03)
    p = w * (0.55 + 0.12 * k.proportions["belly"])
    c.box(0.0, -0.32, p, 0.095, k.second, 0.02)
    y = -0.55 - h
    c.limb(0.0, y - h, 0.03 * k.pose, y - h - ant, 0.018, DARK)
    c.ellipse(0.03 * k.pose, y - h - ant, 0.05 * k.grow("tail", 0.3), 0.05 * k.grow("tail", 0.3), k.second)
    c.box(0.0, y, h * 1.3, h, k.coat, 0.025)
    for s in (-1.0, 1.0):
        c.box(s * (h * 1.3 + 0.03), y, 0.03, h * 0.4, k.second, 0.01)
    spot = pair_of_eyes(c, k, 0.0, y - h * 0.2, h * 0.58, 0.066)
    c.box(0.0, y + h * 0.58, h * 0.62, h * 0.2, DARK, 0.01)
    for s in (-0.3, 0.0, 0.3):
        c.box(s * h, y + h * 0.58, h * 0.09, h * 0.17, WHITE, line=False, shade=False)
    return Wear((0.0, y - h * 0.95, h * 1.05), spot, (0.0, -0.545, w * 0.9), (-w - 0.13, -0.27))


def teapot(c: Canvas, k: Kit) -> Wear:
    """A round pot in profile: spout to the right, ring handle to the left, lid with a knob, and a small face."""
    w, b = 0.30 * k.grow("width", 0.14), 0.25 * k.grow("belly", 0.12)
    y = -0.06 - b
    s = k.grow("limbs", 0.25)
    c.ring(-w - 0.02, y - 0.02, 0.14 * k.grow("tail", 0.2), 0.16 * k.grow("tail", 0.2), 0.035, k.second)
    c.limb(w * 0.7, y + 0.08, w + 0.10 * s, y - 0.06, 0.085, k.second, 0.05)
    c.limb(w + 0.10 * s, y - 0.06, w + 0.18 * s, y - 0.20 * s, 0.052, k.second, 0.04)
    c.box(0.0, -0.035, w * 0.55, 0.04, k.second, 0.02)
    c.ellipse(0.0, y, w, b, k.coat)
    lid = w * 0.62 * k.grow("head", 0.15)
    c.ellipse(0.0, y - b * 0.92, lid, 0.075, k.second)
    r = 0.05 * k.grow("ears", 0.3)
    c.ellipse(0.0, y - b * 0.92 - 0.065 - r, r, r, k.body)
    spot = pair_of_eyes(c, k, 0.02 * k.pose, y - b * 0.12, w * 0.38, 0.06)
    c.limb(-0.04, y + b * 0.32, 0.04, y + b * 0.32, 0.016, DARK, line=False, shade=False)
    return Wear((0.0, y - b * 1.0, lid * 0.95), spot, (0.0, y + b * 0.62, w * 0.82), (-w - 0.10, y - 0.1))


def car(c: Canvas, k: Kit) -> Wear:
    """Drives to the right: long body, cabin with two windows, two wheels, a lamp that is also its eye."""
    w, b = 0.46 * k.grow("width", 0.08), 0.125 * k.grow("belly", 0.15)
    r = 0.115 * k.grow("limbs", 0.15)
    cabin, roof = 0.24 * k.grow("head", 0.15), 0.21 * k.grow("ears", 0.18)
    y = -r - b * 0.85
    x = -0.07 + 0.05 * k.proportions["tail"]
    top = y - b - roof
    c.polygon(
        [(x - cabin, y - b * 0.7), (x - cabin * 0.78, top), (x + cabin * 0.62, top), (x + cabin * 1.05, y - b * 0.7)],
        k.second,
        0.025,
    )
    c.polygon(
        [
            (x - cabin * 0.80, y - b * 0.95),
            (x - cabin * 0.64, top + 0.05),
            (x - 0.045, top + 0.05),
            (x - 0.045, y - b * 0.95),
        ],
        GLASS,
        0.0,
    )
    c.polygon(
        [
            (x + 0.045, y - b * 0.95),
            (x + 0.045, top + 0.05),
            (x + cabin * 0.52, top + 0.05),
            (x + cabin * 0.82, y - b * 0.95),
        ],
        GLASS,
        0.0,
    )
    c.box(0.0, y, w, b, k.coat, 0.06)
    c.box(w - 0.01, y + b * 0.65, 0.04, 0.03, k.second, 0.01)
    c.box(-w + 0.01, y + b * 0.65, 0.04, 0.03, k.second, 0.01)
    for s in (-1.0, 1.0):
        c.ellipse(s * w * 0.58, -r, r, r, DARK)
        c.ellipse(s * w * 0.58, -r, r * 0.5, r * 0.5, k.second)
    e = 0.062 * k.grow("eyes", 0.18)
    c.ellipse(w - 0.09, y - b * 0.15, e * 1.15, e * 1.15, LAMP)
    eye(c, k, w - 0.09, y - b * 0.15, e * 0.8, 0.4)
    return Wear(
        (x - 0.02, top + 0.02, cabin * 0.72),
        (x + cabin * 0.12, (y - b + top) / 2, cabin * 0.48, 0.075),
        (w * 0.05, y + b * 0.1, b * 1.5),
        (x - cabin, top + 0.1),
    )
