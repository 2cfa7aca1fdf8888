"""What every subject shares: its kit of colours and proportions, its coat, its eyes, and where things are worn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from palp_lab.tinyworld.draw import Canvas, Fill
from palp_lab.tinyworld.identity import Identity

DARK = np.asarray([0.10, 0.09, 0.11], np.float32)
WHITE = np.asarray([0.98, 0.98, 0.97], np.float32)
BEAK = np.asarray([0.98, 0.62, 0.12], np.float32)
ROSE = np.asarray([0.92, 0.45, 0.52], np.float32)
GLASS = np.asarray([0.72, 0.88, 0.96], np.float32)
LAMP = np.asarray([1.0, 0.93, 0.55], np.float32)
EYES = np.asarray([[0.25, 0.62, 0.95], [0.35, 0.75, 0.30], [0.98, 0.72, 0.15], [0.50, 0.30, 0.15]], np.float32)


@dataclass(frozen=True)
class Wear:
    """Where accessories go, in the subject's units: crown of the head, eyes, neck and hand."""

    head: tuple[float, float, float]
    """(u, v, half width) where a hat sits."""
    eyes: tuple[float, float, float, float]
    """(u, v, half distance between the lenses, lens radius)."""
    neck: tuple[float, float, float]
    """(u, v, half width) of a scarf."""
    hand: tuple[float, float]
    """Where a string is held."""


@dataclass(frozen=True)
class Kit:
    """An identity ready to be painted: coat and colours, and proportions centred at zero in [-1, 1]."""

    coat: Fill
    body: Fill
    second: Fill
    eye: Fill
    pose: float
    proportions: dict[str, float]

    def grow(self, name: str, amount: float) -> float:
        """A factor of 1 ± ``amount`` by the unnamed proportion ``name``."""
        return 1.0 + amount * self.proportions[name]


PROFILE = ("dog", "bird", "fish", "turtle", "car")
"""Seen from the side, looking to the right: their two-tone coat changes half-way along."""

WAIST = {"cat": 0.42, "rabbit": 0.36, "bear": 0.52, "robot": 0.40, "teapot": 0.33}
"""Seen from the front: how far above the feet their two-tone coat changes."""


def kit_for(canvas: Canvas, identity: Identity, pose: float) -> Kit:
    """Builds the kit in the canvas's present frame."""
    names = ("ears", "head", "width", "limbs", "tail", "eyes", "belly")
    body, second = identity.body_rgb(), identity.second_rgb()
    eye = EYES[min(3, int(identity.factor("eye_colour") * 4))]
    return Kit(
        coat=_coat(canvas, identity, body, second), body=body, second=second, eye=eye, pose=pose,
        proportions={name: 2.0 * identity.factor(name) - 1.0 for name in names},
    )  # fmt: skip


def _coat(canvas: Canvas, identity: Identity, body: np.ndarray, second: np.ndarray) -> Fill:
    """The body colour with its markings over the whole picture, or one colour for a plain coat."""
    if identity.pattern == "plain":
        return body
    rng = np.random.default_rng([31, int(identity.factor("marking_layout") * 1e6)])
    turn, a, b, c = rng.uniform(0.0, 2.0 * math.pi, 4)
    u, v = canvas.u, canvas.v
    frequency, angle = identity.factor("marking_frequency"), identity.factor("marking_angle")
    soft = canvas.scale
    if identity.pattern == "spotted":
        k = 2.0 * math.pi / (0.22 + 0.09 * frequency)
        theta = 0.35 + 0.5 * angle
        p = (math.cos(theta) * u + math.sin(theta) * v) * k + a + 0.5 * np.sin(0.3 * k * v + c)
        q = (math.cos(theta) * v - math.sin(theta) * u) * k + b + 0.5 * np.sin(0.3 * k * u + turn)
        # Beyond 1 the dots stand apart; closer they would run together into stripes.
        field = (np.cos(p) + np.cos(q) - 1.0) * (soft / k)
    elif identity.pattern == "striped":
        k = 2.0 * math.pi / (0.19 + 0.10 * frequency)
        theta = math.pi * (0.2 + 0.6 * angle)
        p = (math.cos(theta) * u + math.sin(theta) * v) * k + a
        field = np.sin(p + 0.3 * np.sin(7.0 * u + b)) * (soft / k)
    elif identity.pattern == "patched":
        # Islands of a third of the subject: larger than spots, and several of them on every subject.
        k = 11.5 + 3.0 * frequency
        field = np.sin(k * u + a) + np.sin(k * (0.5 * u + 0.9 * v) + b) + np.sin(k * (0.9 * v - 0.6 * u) + c)
        field = (field - 0.4) * (soft / k)
    else:
        # The half with the head has the body colour: which of two colours comes first can be seen.
        tilt, start = 0.7 * (angle - 0.5), 0.14 * (frequency - 0.5)
        if identity.superclass in PROFILE:
            p = -math.cos(tilt) * u + math.sin(tilt) * (v + 0.4)
        else:
            p = math.cos(tilt) * (v + WAIST[identity.superclass]) + math.sin(tilt) * u
        field = (p + 0.02 * np.sin(12.0 * (u + v) + a) + start) * soft
    mix = np.clip(field + 0.5, 0.0, 1.0)[..., None]
    return (body + mix * (second - body)).astype(np.float32)


def eye(canvas: Canvas, kit: Kit, u: float, v: float, radius: float, look: float = 0.0) -> None:
    """One eye: white, coloured iris, pupil."""
    canvas.ellipse(u, v, radius, radius * 1.1, WHITE, shade=False)
    canvas.ellipse(
        u + look * radius * 0.3, v + 0.1 * radius, radius * 0.72, radius * 0.78, kit.eye, line=False, shade=False
    )
    canvas.ellipse(
        u + look * radius * 0.3, v + 0.1 * radius, radius * 0.42, radius * 0.5, DARK, line=False, shade=False
    )


def pair_of_eyes(
    canvas: Canvas, kit: Kit, u: float, v: float, gap: float, radius: float
) -> tuple[float, float, float, float]:
    """Two eyes seen from the front; returns where sunglasses go."""
    radius *= kit.grow("eyes", 0.18)
    for side in (-1.0, 1.0):
        eye(canvas, kit, u + side * gap, v, radius, 0.4 * kit.pose)
    return (u, v, gap, radius)
