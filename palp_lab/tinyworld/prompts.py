"""Evaluation prompts: sentences with one slot ``{}``, each from combinations no pretraining picture shows.

The slot stands for the concept ("<v>", "<v> cat") or for the class word ("cat"). Every style, place and accessory
combination, and every style, place and second class, is in :data:`palp_lab.tinyworld.scene.RESERVED`, so a prompt is
held out for all classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from palp_lab.tinyworld.factors import CLASSES
from palp_lab.tinyworld.parse import Elements, parse
from palp_lab.tinyworld.scene import combination_heldout
from palp_lab.types import UserError


@dataclass(frozen=True)
class Prompt:
    """A sentence with one slot, its group, and the elements a picture of it is checked for."""

    text: str
    group: str
    elements: Elements

    def fill(self, concept: str) -> str:
        """The sentence with ``concept`` in its slot."""
        return self.text.replace("{}", concept)


_TEXTS: dict[str, list[str]] = {
    "style": [
        "a sketch of a {} wearing a red hat in the snow",
        "a watercolor of a {} wearing a blue scarf in the city",
        "a neon sign of a {} wearing a yellow crown on the beach",
        "a cartoon of a {} wearing purple sunglasses underwater",
        "a blueprint of a {} wearing an orange hat in the forest",
        "an oil painting of a {} wearing a green scarf at night",
        "a sketch of a {} holding a pink balloon in a kitchen",
        "a cartoon of a {} wearing a teal hat in the desert",
        "a sketch of a {} on the beach",
        "an oil painting of a {} in the snow",
        "a watercolor of a {} in the desert",
        "a neon sign of a {} in the forest",
    ],
    "same_style": [
        "a photo of a {} wearing a red hat at night",
        "a photo of a {} wearing a blue crown in the snow",
        "a photo of a {} wearing a purple scarf on the beach",
        "a photo of a {} wearing yellow sunglasses in the forest",
        "a photo of a {} holding a red balloon in the city",
        "a photo of a {} wearing an orange hat underwater",
        "a photo of a {} wearing a green crown in a kitchen",
        "a photo of a {} wearing a teal scarf in the desert",
        "a photo of a {} wearing a pink hat and a blue scarf in a meadow",
        "a photo of a {} wearing a yellow crown and red sunglasses at night",
    ],
    "framing": [
        "a close-up photo of a {} wearing a purple crown in the snow",
        "a cropped photo of a {} wearing a red scarf on the beach",
        "a bright photo of a {} wearing green sunglasses in the forest",
        "a dark photo of a {} holding a white balloon in the city",
        "a photo of a small {} wearing a pink scarf in the desert",
        "a photo of a dirty {} wearing a blue crown in a kitchen",
        "a photo of a {} wearing a yellow hat far away at night",
    ],
    "relation": [
        "a sketch of a {} next to a robot in a kitchen",
        "a photo of a {} next to a teapot on the beach",
        "a photo of a {} in front of a car in the snow",
        "a photo of a {} next to a bird in a meadow",
        "a watercolor of a {} in front of a bear in the forest",
        "a cartoon of a {} next to a cat in the city",
        "a photo of a {} in front of a fish at night",
        "an oil painting of a {} next to a teapot in a kitchen",
    ],
}

GROUPS: dict[str, list[Prompt]] = {
    group: [Prompt(text, group, parse(text)) for text in texts] for group, texts in _TEXTS.items()
}
"""The standard prompts: new styles, the photos' own style with a new place and accessory, framing, relation."""

DRIFT: list[str] = [
    "a photo of a red {other} on the beach",
    "a sketch of a {other} wearing a blue hat",
    "a watercolor of a spotted {other} in a meadow",
    "a photo of a {other} in the city",
    "a cartoon of a {other} in the snow",
    "a neon sign of a {other}",
    "an oil painting of a green {other} in the forest",
    "a photo of a {other} wearing a yellow crown",
]
"""Sentences about another class: what a personalised model must not change."""


def drift_prompts(superclass: str) -> list[str]:
    """The drift sentences with classes other than ``superclass``, in a fixed order."""
    others = [name for name in CLASSES if name != superclass]
    return [text.replace("{other}", others[(3 * i) % len(others)]) for i, text in enumerate(DRIFT)]


def clean_prompt(superclass: str) -> str:
    """The control's prompt: the class and none of a target's elements."""
    return f"a photo of a {superclass}"


def is_heldout_prompt(text: str) -> bool:
    """Whether a full prompt (class word in the slot) names a combination no pretraining picture shows."""
    elements = parse(text)
    if not elements.classes or elements.classes[0] not in CLASSES:
        raise UserError(f"prompt {text!r} names no class of the tiny world; put one of {', '.join(CLASSES)} in it")
    worn = tuple(name for name, _ in elements.accessories)
    return combination_heldout(elements.classes, elements.style or "photo", elements.place or "plain", worn)
