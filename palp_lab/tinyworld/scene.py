"""A scene: who stands where, in which style and place, how it is framed; sampled from a seed or built by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from palp_lab.tinyworld.factors import (
    ACCESSORIES,
    ARTWORKS,
    CLASSES,
    COLOUR_NAMES,
    DEGRADATIONS,
    FRAMINGS,
    PLACES,
    STYLES,
    stable_hash,
)  # fmt: skip
from palp_lab.tinyworld.identity import Identity, sample_identity

Accessory = tuple[str, str]
"""An accessory and its colour word."""


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows. Pose, position, light and the place's details follow from ``seed``."""

    subjects: tuple[Identity, ...]
    style: str = "photo"
    place: str = "plain"
    accessories: tuple[Accessory, ...] = ()
    framing: str = "none"
    relation: str = "none"
    artwork: str = ""
    degradation: str = ""
    seed: int = 0


RESERVED: frozenset[tuple[str, ...]] = frozenset(
    [
        ("sketch", "snow", "hat"), ("watercolor", "city", "scarf"), ("neon", "beach", "crown"),
        ("cartoon", "underwater", "sunglasses"), ("blueprint", "forest", "hat"), ("oil painting", "night", "scarf"),
        ("sketch", "kitchen", "balloon"), ("watercolor", "night", "crown"), ("oil painting", "beach", "sunglasses"),
        ("cartoon", "desert", "hat"), ("neon", "city", "balloon"), ("blueprint", "underwater", "scarf"),
        ("photo", "night", "hat"), ("photo", "snow", "crown"), ("photo", "beach", "scarf"),
        ("photo", "forest", "sunglasses"), ("photo", "city", "balloon"), ("photo", "underwater", "hat"),
        ("photo", "kitchen", "crown"), ("photo", "desert", "scarf"),
        ("photo", "meadow", "hat", "scarf"), ("photo", "night", "crown", "sunglasses"),
        ("sketch", "beach"), ("oil painting", "snow"), ("watercolor", "desert"), ("neon", "forest"),
        ("sketch", "kitchen", "robot"), ("photo", "beach", "teapot"), ("photo", "snow", "car"),
        ("photo", "meadow", "bird"), ("watercolor", "forest", "bear"), ("cartoon", "city", "cat"),
        ("photo", "night", "fish"), ("oil painting", "kitchen", "teapot"),
    ]
)  # fmt: skip
"""Combinations reserved for every class: style, place, then accessories, or the second class of a relation."""


def elements_heldout(scene: Scene) -> bool:
    """Whether the scene shows a reserved combination of elements, never rendered for pretraining.

    Reserved are the tuples of :data:`RESERVED` for every class and, by a stable hash, one in ten of the combinations
    class × style × place × accessories with a place or an accessory in it.
    """
    if not scene.subjects:
        return False
    names = tuple(subject.superclass for subject in scene.subjects)
    return combination_heldout(names, scene.style, scene.place, tuple(name for name, _ in scene.accessories))


def combination_heldout(classes: tuple[str, ...], style: str, place: str, worn: tuple[str, ...]) -> bool:
    """As :func:`elements_heldout`, of the words alone; ``classes`` has the first subject first."""
    worn = tuple(sorted(worn))
    if (style, place, *worn) in RESERVED or (len(classes) > 1 and (style, place, *classes[1:]) in RESERVED):
        return True
    if place == "plain" and not worn:
        return False
    return stable_hash("elements", classes[0], style, place, *worn) % 10 == 0


def sample_scene(seed: int, split: str = "pretrain") -> Scene:
    """Draws a scene. "pretrain" never has a held-out identity or element combination; "heldout" has both."""
    rng = np.random.default_rng([977, int(seed), int(split == "heldout")])
    kind = rng.random()
    if kind < 0.03:
        return Scene((), style="artwork", artwork=ARTWORKS[rng.integers(0, len(ARTWORKS))], seed=int(seed))
    for attempt in range(10_000):
        scene = _draw(rng, int(seed), split, attempt, kind)
        if elements_heldout(scene) == (split == "heldout"):
            return scene
    raise RuntimeError("no scene found: the reserved combinations cover everything")


def _draw(rng: np.random.Generator, seed: int, split: str, attempt: int, kind: float) -> Scene:
    style = "photo" if rng.random() < 0.24 else STYLES[rng.integers(0, len(STYLES))]
    place = PLACES[rng.integers(0, len(PLACES))]
    count = int(rng.choice([0, 1, 2], p=[0.33, 0.50, 0.17]))
    two = 0.03 <= kind < 0.15
    who = [CLASSES[i] for i in rng.integers(0, len(CLASSES), 2 if two else 1)]
    subjects = tuple(sample_identity(w, int(rng.integers(0, 2**31)), split) for w in who)
    scene = Scene(subjects, style, place, sample_accessories(rng, count), seed=seed)
    if two:
        return replace(scene, relation="next to" if rng.random() < 0.5 else "in front of")
    if rng.random() < 0.26:
        scene = replace(scene, framing=FRAMINGS[rng.integers(1, len(FRAMINGS))])
        if scene.framing in ("close-up", "cropped"):
            # A balloon would float outside the picture.
            scene = replace(scene, accessories=tuple(a for a in scene.accessories if a[0] != "balloon"))
    if kind > 0.96:
        return replace(scene, degradation=DEGRADATIONS[rng.integers(0, len(DEGRADATIONS))], framing="none")
    if kind > 0.93:
        return replace(scene, artwork=ARTWORKS[rng.integers(0, len(ARTWORKS))], style="artwork", framing="none")
    return scene


def sample_accessories(rng: np.random.Generator, count: int) -> tuple[Accessory, ...]:
    """Draws ``count`` different accessories in free colours; a hat and a crown never together."""
    names: list[str] = []
    for i in rng.permutation(len(ACCESSORIES)):
        name = ACCESSORIES[i]
        if len(names) < count and not (name in ("hat", "crown") and {"hat", "crown"} & set(names)):
            names.append(name)
    names.sort(key=ACCESSORIES.index)
    return tuple((name, COLOUR_NAMES[rng.integers(0, len(COLOUR_NAMES))]) for name in names)
