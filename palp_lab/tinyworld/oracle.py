"""True renders: an identity in any prompted scene, photos of a held-out identity, and the labels readers learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from palp_lab.tinyworld.factors import (
    ACCESSORIES,
    ARTWORKS,
    CLASSES,
    COLOUR_NAMES,
    FRAMINGS,
    PATTERNS,
    PLACES,
    RELATIONS,
    STYLES,
    stable_hash,
)  # fmt: skip
from palp_lab.tinyworld.identity import Identity, sample_identity
from palp_lab.tinyworld.parse import Elements, parse
from palp_lab.tinyworld.render import render
from palp_lab.tinyworld.scene import Scene
from palp_lab.types import UserError

_COLOUR_LABELS = ["none", *COLOUR_NAMES]

LABELS: dict[str, list[str]] = {
    "style": [*STYLES, "artwork"],
    "place": PLACES,
    "class_": ["none", *CLASSES],
    "second_class": ["none", *CLASSES],
    **dict.fromkeys(ACCESSORIES, _COLOUR_LABELS),
    "colour": _COLOUR_LABELS,
    "second_colour": _COLOUR_LABELS,
    "pattern": ["none", *PATTERNS],
    "framing": FRAMINGS,
    "relation": RELATIONS,
    "artwork": ["none", *ARTWORKS],
    "degraded": ["no", "yes"],
}
"""What each index of :func:`labels` means. Coats and accessories of artworks have lost their colours: mask them."""


def labels(scene: Scene) -> dict[str, int]:
    """The factors of ``scene`` as indices into :data:`LABELS`; an accessory is 0 or its colour's index + 1."""
    worn = dict(scene.accessories)
    first = scene.subjects[0] if scene.subjects else None
    coat = first if not scene.artwork else None
    return {
        "style": LABELS["style"].index("artwork" if scene.artwork else scene.style),
        "place": PLACES.index(scene.place),
        "class_": CLASSES.index(first.superclass) + 1 if first else 0,
        "second_class": CLASSES.index(scene.subjects[1].superclass) + 1 if len(scene.subjects) > 1 else 0,
        **{name: COLOUR_NAMES.index(worn[name]) + 1 if name in worn else 0 for name in ACCESSORIES},
        "colour": COLOUR_NAMES.index(coat.colour) + 1 if coat else 0,
        "second_colour": COLOUR_NAMES.index(coat.second) + 1 if coat else 0,
        "pattern": PATTERNS.index(coat.pattern) + 1 if coat else 0,
        "framing": FRAMINGS.index(scene.framing),
        "relation": RELATIONS.index(scene.relation),
        "artwork": ARTWORKS.index(scene.artwork) + 1 if scene.artwork in ARTWORKS else 0,
        "degraded": int(bool(scene.degradation)),
    }


def scene_for(identity: Identity, prompt: str | Elements, seed: int) -> Scene:
    """``identity`` in the prompted scene; what the prompt leaves open is drawn from ``seed``, its place is plain."""
    elements = parse(prompt) if isinstance(prompt, str) else prompt
    rng = np.random.default_rng([1213, int(seed)])
    subjects = [identity]
    if len(elements.classes) > 1 and elements.classes[1] in CLASSES:
        partner = sample_identity(elements.classes[1], int(rng.integers(0, 2**31)), "heldout")
        subjects.append(_dressed(partner, elements.partner_colours, elements.partner_pattern))
    drawn = [COLOUR_NAMES[rng.integers(0, len(COLOUR_NAMES))] for _ in elements.accessories]
    accessories: dict[str, str] = {}
    for (name, word), other in zip(elements.accessories, drawn, strict=True):
        accessories.setdefault(name, word or other)
    relation = (elements.relation or "next to") if len(subjects) > 1 else "none"
    return Scene(
        tuple(subjects), elements.style or "photo", elements.place or "plain", tuple(accessories.items()),
        elements.framing or "none", relation, elements.artwork, seed=int(seed),
    )  # fmt: skip


def scene_from(prompt: str | Elements, seed: int) -> Scene:
    """A true render of a prompt without a concept: a held-out identity of its first class, in its colours."""
    elements = parse(prompt) if isinstance(prompt, str) else prompt
    rng = np.random.default_rng([1217, int(seed)])
    known = [name for name in elements.classes if name in CLASSES]
    superclass = known[0] if known else CLASSES[rng.integers(0, len(CLASSES))]
    identity = sample_identity(superclass, int(rng.integers(0, 2**31)), "heldout")
    return scene_for(_dressed(identity, elements.colours, elements.pattern), elements, seed)


def _dressed(identity: Identity, colours: tuple[str, ...], pattern: str) -> Identity:
    if colours:
        identity = replace(identity, colour=colours[0])
        if len(colours) > 1:
            identity = replace(identity, second=colours[1])
        elif identity.second == identity.colour:
            identity = replace(identity, second="white" if identity.colour != "white" else "gray")
    return replace(identity, pattern=pattern) if pattern else identity


def photos(superclass: str, seed: int, shots: int, places: str = "varied") -> list[tuple[np.ndarray, Scene]]:
    """``shots`` (1 to 6) photos of the held-out identity ``seed`` in varied poses, places "varied" or the "same"."""
    if not 1 <= shots <= 6:
        raise UserError(f"shots {shots} must be 1 to 6")
    if places not in ("varied", "same"):
        raise UserError(f"places {places!r} is unknown; choose varied or same")
    identity = sample_identity(superclass, seed, "heldout")
    order = np.random.default_rng([1223, CLASSES.index(superclass), int(seed)]).permutation(len(PLACES))
    found = []
    for shot in range(shots):
        place = PLACES[order[0 if places == "same" else shot]]
        scene = Scene((identity,), "photo", place, seed=stable_hash("photo", superclass, seed, shot))
        found.append((render(scene), scene))
    return found
