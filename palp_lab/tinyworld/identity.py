"""Identity: a superclass, named factors, and continuous factors that no caption names."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import numpy as np

from palp_lab.tinyworld.factors import CLASSES, COLOUR_NAMES, PATTERNS, colour, stable_hash
from palp_lab.types import UserError

HIDDEN = [
    "ears", "head", "width", "limbs", "tail", "eyes", "belly",
    "hue", "value", "second_hue", "second_value",
    "marking_frequency", "marking_angle", "marking_layout", "eye_colour",
]  # fmt: skip
"""Names of the unnamed factors, each uniform in [0, 1]."""

SPLITS = ("pretrain", "heldout")


@dataclass(frozen=True)
class Identity:
    """One individual. ``hidden`` holds a value in [0, 1] per name in :data:`HIDDEN`."""

    superclass: str
    colour: str
    second: str
    pattern: str
    hidden: tuple[float, ...] = field(repr=False)

    def factor(self, name: str) -> float:
        """The unnamed factor called ``name``, in [0, 1]."""
        return self.hidden[HIDDEN.index(name)]

    def vector(self) -> np.ndarray:
        """The identity as a point: named factors one-hot over sqrt(2), unnamed ones as they are; float32 [n]."""
        named = np.zeros(2 * len(COLOUR_NAMES) + len(PATTERNS), np.float32)
        named[COLOUR_NAMES.index(self.colour)] = 1
        named[len(COLOUR_NAMES) + COLOUR_NAMES.index(self.second)] = 1
        named[2 * len(COLOUR_NAMES) + PATTERNS.index(self.pattern)] = 1
        return np.concatenate([named / np.sqrt(2.0), np.asarray(self.hidden)]).astype(np.float32)

    def body_rgb(self) -> np.ndarray:
        """The body colour with its own small offset of hue and value, float32 [3]."""
        return _offset(colour(self.colour), self.factor("hue"), self.factor("value"))

    def second_rgb(self) -> np.ndarray:
        """The second colour with its own small offset of hue and value, float32 [3]."""
        return _offset(colour(self.second), self.factor("second_hue"), self.factor("second_value"))


def _offset(rgb: np.ndarray, hue: float, value: float) -> np.ndarray:
    h, s, v = colorsys.rgb_to_hsv(*(float(x) for x in rgb))
    h = (h + 0.036 * (hue - 0.5)) % 1.0
    v = min(1.0, max(0.0, v * (1.0 + 0.16 * (value - 0.5))))
    return np.asarray(colorsys.hsv_to_rgb(h, s, v), np.float32)


def is_heldout(superclass: str, body: str, second: str, pattern: str) -> bool:
    """Whether a named combination is reserved: one in seven, by a stable hash, never drawn for pretraining."""
    return stable_hash("identity", superclass, body, second, pattern) % 7 == 0


def sample_identity(superclass: str, seed: int, split: str = "pretrain") -> Identity:
    """Draws one identity of ``superclass``; ``split`` "heldout" draws only reserved named combinations."""
    if superclass not in CLASSES:
        raise UserError(f"superclass {superclass!r} is not in the tiny world; choose one of {', '.join(CLASSES)}")
    if split not in SPLITS:
        raise UserError(f"split {split!r} is unknown; choose pretrain or heldout")
    rng = np.random.default_rng([7919 if split == "heldout" else 101, CLASSES.index(superclass), int(seed)])
    while True:
        body, second = (COLOUR_NAMES[i] for i in rng.integers(0, len(COLOUR_NAMES), 2))
        pattern = PATTERNS[rng.integers(0, len(PATTERNS))]
        # Black on gray and the like would hide the second colour: the two must differ.
        if body != second and is_heldout(superclass, body, second, pattern) == (split == "heldout"):
            return Identity(superclass, body, second, pattern, tuple(float(x) for x in rng.random(len(HIDDEN))))


def nearest_pretraining_identity(identity: Identity, count: int = 2000, seed: int = 0) -> float:
    """Smallest distance from ``identity`` to ``count`` pretraining identities of its class.

    A differing named factor adds 1 to the squared distance, an unnamed one at most 1; identical identities have 0.
    """
    point = identity.vector()
    others = (sample_identity(identity.superclass, seed + i).vector() for i in range(count))
    return float(min(np.linalg.norm(point - other) for other in others))
