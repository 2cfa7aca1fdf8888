"""The animals of the tiny world. Feet at v = 0, head near v = -1, those seen from the side look to the right."""

from __future__ import annotations

from palp_lab.tinyworld.creatures import BEAK, DARK, ROSE, WHITE, Kit, Wear, eye, pair_of_eyes
from palp_lab.tinyworld.draw import Canvas


def cat(c: Canvas, k: Kit) -> Wear:
    """Sits and faces us: triangular ears, whiskers, a long tail curling up at its side."""
    w, h, e = 0.19 * k.grow("width", 0.2), 0.225 * k.grow("head", 0.12), k.grow("ears", 0.3)
    t = k.grow("tail", 0.2)
    sway = 0.03 * k.pose
    c.limb(w * 0.6, -0.07, 0.40, -0.10, 0.05, k.coat)
    c.limb(0.40, -0.10, 0.42 + sway, -0.16 - 0.30 * t, 0.05, k.coat, 0.042)
    c.ellipse(0.42 + sway, -0.18 - 0.30 * t, 0.058, 0.07, k.second)
    c.ellipse(0.0, -0.25, w, 0.27, k.coat)
    if k.proportions["belly"] > -0.3:
        c.ellipse(0.0, -0.20, w * 0.55, 0.15 + 0.03 * k.proportions["belly"], k.second, line=False)
    r = 0.06 * k.grow("limbs", 0.25)
    for s in (-1.0, 1.0):
        c.ellipse(s * w * 0.55, -0.045, r * 1.35, r * 0.85, k.body)
    y = -0.45 - h * 0.8
    for s in (-1.0, 1.0):
        tip = (s * h * 1.0, y - h * 0.75 - 0.17 * e)
        c.polygon([(s * h * 1.02, y - h * 0.15), tip, (s * h * 0.12, y - h * 0.75)], k.coat, 0.012)
        c.polygon(
            [(s * h * 0.85, y - h * 0.4), (tip[0] * 0.95, tip[1] + 0.06), (s * h * 0.4, y - h * 0.7)],
            k.second,
            line=False,
        )
    c.ellipse(0.0, y, h * 1.12, h * 0.95, k.coat)
    for s in (-1.0, 1.0):
        for a in (-0.02, 0.05):
            c.limb(s * h * 0.55, y + h * 0.42, s * h * 1.5, y + h * 0.35 + a, 0.006, DARK, line=False, shade=False)
    spot = pair_of_eyes(c, k, 0.0, y - h * 0.02, h * 0.45, 0.066)
    c.polygon([(-0.035, y + h * 0.32), (0.035, y + h * 0.32), (0.0, y + h * 0.5)], ROSE, 0.008)
    return Wear((0.0, y - h * 0.78, h * 0.8), spot, (0.0, y + h * 0.98, w * 0.95), (-w * 1.1, -0.3))


def dog(c: Canvas, k: Kit) -> Wear:
    """Stands in profile on four legs, head to the right, hanging ear, muzzle with a dark nose, tail up."""
    b, h, e = 0.145 * k.grow("width", 0.2), 0.165 * k.grow("head", 0.15), k.grow("ears", 0.25)
    leg, t = 0.28 * k.grow("limbs", 0.2), k.grow("tail", 0.25)
    top = -leg - b
    step = 0.03 * k.pose
    c.limb(-0.36, top - 0.05, -0.50 - 0.03 * k.pose, top - 0.05 - 0.20 * t, 0.042, k.coat, 0.03)
    for x, shift in ((-0.25, step), (0.24, -step)):
        c.limb(x, top, x + shift, -0.05, 0.055, k.second)
    c.limb(-0.26, top, 0.22, top - 0.02, b, k.coat)
    for x, shift in ((-0.34, -step), (0.15, step)):
        c.limb(x, top + 0.03, x + shift, -0.055, 0.062, k.coat)
    x, y = 0.30, top - 0.10 - h * 1.1
    c.limb(0.20, top - 0.02, x - 0.02, y + 0.04, 0.095, k.coat)
    c.ellipse(x, y, h * 1.05, h, k.coat)
    c.limb(x + h * 0.6, y + h * 0.3, x + h * 1.35, y + h * 0.38, h * 0.5, k.second, h * 0.42)
    c.ellipse(x + h * 1.72, y + h * 0.15, 0.05, 0.042, DARK)
    if k.pose > 0.0:
        c.limb(x + h * 1.1, y + h * 0.85, x + h * 1.15, y + h * 1.15, 0.03, ROSE)
    r = 0.062 * k.grow("eyes", 0.18)
    eye(c, k, x + h * 0.32, y - h * 0.25, r, 0.5)
    c.limb(x - h * 0.55, y - h * 0.45, x - h * 0.72, y + h * 0.25 + 0.14 * e, 0.07, k.second, 0.088)
    return Wear(
        (x, y - h * 0.72, h * 0.8),
        (x + h * 0.32, y - h * 0.25, 0.10, r),
        (x - 0.05, y + h * 1.08, 0.15),
        (-0.1, top - b),
    )


def rabbit(c: Canvas, k: Kit) -> Wear:
    """Sits and faces us: two very long ears, big front teeth, a round tail."""
    w, h, e = 0.20 * k.grow("width", 0.2), 0.18 * k.grow("head", 0.13), 0.36 * k.grow("ears", 0.2)
    c.ellipse(w * 1.05, -0.12, 0.085 * k.grow("tail", 0.25), 0.085 * k.grow("tail", 0.25), WHITE)
    c.ellipse(0.0, -0.21, w, 0.225, k.coat)
    if k.proportions["belly"] > -0.3:
        c.ellipse(0.0, -0.18, w * 0.6, 0.14 + 0.03 * k.proportions["belly"], k.second, line=False)
    f = 0.075 * k.grow("limbs", 0.25)
    for s in (-1.0, 1.0):
        c.ellipse(s * w * 0.62, -0.04, f * 1.35, f * 0.75, k.body)
    y = -0.38 - h * 0.75
    lean = 0.05 * k.pose
    for s in (-1.0, 1.0):
        foot, tip = (
            (s * h * 0.42, y - h * 0.55),
            (s * h * (0.62 + 0.15 * k.proportions["ears"]) + lean, y - h * 0.6 - e),
        )
        c.limb(*foot, *tip, 0.062, k.coat, 0.058)
        c.limb(foot[0], foot[1] - 0.05, *tip, 0.028, k.second, 0.026, line=False)
    c.ellipse(0.0, y, h * 1.02, h * 0.95, k.coat)
    spot = pair_of_eyes(c, k, 0.0, y - h * 0.15, h * 0.46, 0.06)
    c.ellipse(0.0, y + h * 0.25, 0.035, 0.026, ROSE)
    c.box(0.0, y + h * 0.62, 0.045, 0.05, WHITE, 0.01)
    return Wear((0.0, y - h * 0.72, h * 0.85), spot, (0.0, y + h * 1.0, w * 0.85), (-w, -0.25))


def bear(c: Canvas, k: Kit) -> Wear:
    """Stands broad and faces us: small round ears, muzzle, arms at the sides, thick legs."""
    w, h, e = 0.26 * k.grow("width", 0.15), 0.215 * k.grow("head", 0.1), k.grow("ears", 0.22)
    arm = k.grow("limbs", 0.2)
    for s in (-1.0, 1.0):
        c.limb(s * w * 0.58, -0.15, s * w * 0.62, -0.085, 0.11, k.coat)
        swing = 0.06 * k.pose * s
        c.limb(s * w * 0.85, -0.46, s * (w * 1.0 + 0.10), -0.46 + 0.19 * arm + swing, 0.082, k.coat)
    c.ellipse(0.0, -0.34, w, 0.27, k.coat)
    if k.proportions["belly"] > -0.3:
        c.ellipse(0.0, -0.30, w * 0.62, 0.17 + 0.03 * k.proportions["belly"], k.second, line=False)
    y = -0.57 - h * 0.85
    for s in (-1.0, 1.0):
        c.ellipse(s * h * 0.88, y - h * 0.68, 0.098 * e, 0.098 * e, k.coat)
        c.ellipse(s * h * 0.88, y - h * 0.68, 0.052 * e, 0.052 * e, k.second, line=False)
    c.ellipse(0.0, y, h * 1.1, h * 0.98, k.coat)
    c.ellipse(0.0, y + h * 0.42, h * 0.52, h * 0.38, k.second)
    c.ellipse(0.0, y + h * 0.26, 0.055, 0.042, DARK)
    spot = pair_of_eyes(c, k, 0.0, y - h * 0.2, h * 0.46, 0.056)
    return Wear((0.0, y - h * 0.78, h * 0.85), spot, (0.0, y + h * 1.0, w * 0.85), (-w - 0.10, -0.28))


def bird(c: Canvas, k: Kit) -> Wear:
    """Stands in profile on two thin legs: big orange beak, wing, tail feathers."""
    w, h, t = 0.27 * k.grow("width", 0.15), 0.175 * k.grow("head", 0.13), k.grow("tail", 0.25)
    leg = 0.22 * k.grow("limbs", 0.25)
    y = -leg - 0.20
    step = 0.04 * k.pose
    for x, s in ((-0.05, step), (0.08, -step)):
        c.limb(x, y + 0.1, x + s, -0.02, 0.02, BEAK)
        c.limb(x + s, -0.02, x + s + 0.08, -0.02, 0.02, BEAK)
    c.polygon(
        [(-w * 0.6, y - 0.04), (-w - 0.20 * t, y - 0.18), (-w - 0.24 * t, y + 0.0), (-w * 0.6, y + 0.12)],
        k.second,
        0.02,
    )
    c.ellipse(0.0, y, w, 0.205, k.coat, angle=-0.3)
    x, top = w * 0.72, y - 0.20 - h * 0.55
    c.limb(x * 0.8, y - 0.08, x, top, h * 0.7, k.coat)
    c.polygon([(x + h * 0.75, top - 0.05), (x + h + 0.19, top + 0.05), (x + h * 0.7, top + 0.13)], BEAK, 0.012)
    c.ellipse(x, top, h, h, k.coat)
    c.ellipse(-0.06, y - 0.01, w * 0.56 * k.grow("belly", 0.15), 0.11, k.second, angle=-0.35 - 0.25 * k.pose)
    r = 0.062 * k.grow("eyes", 0.18)
    eye(c, k, x + h * 0.3, top - h * 0.15, r, 0.5)
    return Wear(
        (x, top - h * 0.78, h * 0.85),
        (x + h * 0.3, top - h * 0.15, 0.10, r),
        (x - 0.02, top + h * 0.98, h * 0.85),
        (-0.1, y),
    )


def fish(c: Canvas, k: Kit) -> Wear:
    """Floats in profile: an oval body, forked tail, fins, gill."""
    b, t = 0.225 * k.grow("width", 0.15), k.grow("tail", 0.2)
    y, n = -0.45, 0.37 * k.grow("head", 0.08)
    f = k.grow("limbs", 0.3)
    flap = 0.05 * k.pose
    c.polygon(
        [
            (-n * 0.75, y),
            (-n - 0.20 * t, y - 0.21 * t + flap),
            (-n - 0.10 * t, y + flap),
            (-n - 0.20 * t, y + 0.21 * t + flap),
        ],
        k.second,
        0.02,
    )
    c.polygon([(-0.16, y - b * 0.75), (-0.06, y - b - 0.14 * f), (0.14, y - b * 0.85)], k.second, 0.015)
    c.polygon([(-0.10, y + b * 0.7), (-0.14, y + b + 0.11 * f), (0.06, y + b * 0.85)], k.second, 0.015)
    c.ellipse(0.0, y, n, b, k.coat)
    c.polygon(
        [(0.02, y + 0.02), (-0.14, y + 0.03 + 0.07 * f + flap), (-0.12, y + 0.12 + 0.04 * f + flap)], k.second, 0.018
    )
    r = 0.07 * k.grow("eyes", 0.18)
    x = n * 0.55
    eye(c, k, x, y - b * 0.25, r, 0.5)
    c.limb(n * 0.72, y + b * 0.35, n * 0.92, y + b * 0.18, 0.014, DARK, line=False, shade=False)
    return Wear(
        (n * 0.30, y - b * 0.84, 0.15),
        (x, y - b * 0.25, 0.105, r),
        (n * 0.12, y + b * 0.35, b * 0.9),
        (0.0, y - b * 0.9),
    )


def turtle(c: Canvas, k: Kit) -> Wear:
    """Stands in profile under a high domed shell with a rim; legs, tail and head have the second colour."""
    w, d = 0.36 * k.grow("width", 0.12), 0.36 * k.grow("belly", 0.14)
    h, leg = 0.135 * k.grow("head", 0.15), 0.18 * k.grow("limbs", 0.2)
    step = 0.03 * k.pose
    c.polygon(
        [(-w * 0.85, -leg - 0.02), (-w - 0.13 * k.grow("tail", 0.4), -leg + 0.05), (-w * 0.8, -leg + 0.06)],
        k.second,
        0.015,
    )
    x, y = w + 0.10, -leg - 0.20 - 0.05 * k.pose
    c.limb(w * 0.7, -leg, x - 0.03, y + 0.04, 0.075, k.second)
    for p, s in ((-w * 0.62, step), (w * 0.62, -step)):
        c.limb(p, -leg, p + s, -0.065, 0.085, k.second)
    c.ellipse(x, y, h * 1.15, h, k.second)
    outline = [
        (-1.0, 0.0),
        (-0.93, -0.42),
        (-0.68, -0.78),
        (-0.3, -0.97),
        (0.12, -1.0),
        (0.55, -0.86),
        (0.85, -0.55),
        (1.0, 0.0),
    ]
    c.polygon([(w * a, -leg + d * 1.12 * b) for a, b in outline], k.coat, 0.02)
    c.limb(-w, -leg + 0.01, w, -leg + 0.01, 0.042, k.body)
    r = 0.055 * k.grow("eyes", 0.18)
    eye(c, k, x + h * 0.3, y - h * 0.3, r, 0.5)
    return Wear(
        (x - 0.01, y - h * 0.75, h * 0.95),
        (x + h * 0.3, y - h * 0.3, 0.095, r),
        (x - 0.06, y + h * 1.0, h * 0.85),
        (-0.1, -leg - d),
    )
