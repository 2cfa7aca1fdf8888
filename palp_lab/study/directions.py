"""Which way is better: the one registry of metric directions that the front, the tests and the tables read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from palp_lab.types import UserError


@dataclass(frozen=True)
class Direction:
    """How a metric is read.

    `higher_is_better` is True, False, or None for a number that has no better end (a saturation of 1.3 is as wrong
    as one of 0.7); such a metric is shown in tables and never ranked. `label` is what axes and tables print.
    """

    name: str
    higher_is_better: bool | None
    label: str


_DIRECTIONS: dict[str, Direction] = {}


def register_metric(name: str, higher_is_better: bool | None, label: str | None = None) -> Direction:
    """Declare a metric's direction once; declaring it again with another direction is an error."""
    direction = Direction(name, higher_is_better, label or name.replace("_", " "))
    known = _DIRECTIONS.get(name)
    if known is not None and known.higher_is_better is not higher_is_better:
        raise UserError(f"metric '{name}' is registered with higher_is_better={known.higher_is_better} already")
    return _DIRECTIONS.setdefault(name, direction)


def known_metrics() -> tuple[str, ...]:
    """The names that have a direction, in order of registration."""
    return tuple(_DIRECTIONS)


def direction_of(name: str) -> Direction:
    """The direction of a metric; an unknown name is a `UserError` that names the nearest known one."""
    if name not in _DIRECTIONS:
        own = f"say which end is better, higher_is_better=[{name}] or lower_is_better=[{name}]"
        raise UserError(f"metric '{name}' has no known direction: {own}{nearest(name, _DIRECTIONS)}")
    return _DIRECTIONS[name]


def higher_is_better(name: str) -> bool | None:
    """True, False, or None where the metric has no better end."""
    return direction_of(name).higher_is_better


def label_of(name: str) -> str:
    """What to print for a metric; a name nobody registered is printed with spaces."""
    return _DIRECTIONS[name].label if name in _DIRECTIONS else name.replace("_", " ")


def nearest(name: str, choices: Iterable[object]) -> str:
    """A tail for an error line: the nearest of the choices, or all of them where none is near."""
    words = [str(choice) for choice in choices]
    close = difflib.get_close_matches(name, words, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; there are: {', '.join(words)}" if words else ""


for _name, _higher in {
    "text_alignment": True,
    "text_alignment_l14": True,
    "text_alignment_corrected": True,
    "clipscore": True,
    "style_alignment": True,
    "class_alignment": True,
    "ambiance_1_alignment": True,
    "ambiance_2_alignment": True,
    "image_alignment": True,
    "image_alignment_held_out": True,
    "identity": True,
    "identity_held_out": True,
    "identity_oracle": True,
    "identity_dinov2": True,
    "identity_dinov2_held_out": True,
    "elements": True,
    "style_found": True,
    "place_found": True,
    "class_found": True,
    "accessories_found": True,
    "relation_found": True,
    "diversity": True,
    "diversity_lpips": True,
    "diversity_ssim": True,
    "saturation": None,
    "contrast": None,
    "drift_with_class_word": False,
    "drift_without_class_word": False,
    "class_collapse": False,
    "copy": False,
    "modality_gap": None,
    "scorer_gap": None,
}.items():
    register_metric(_name, _higher)
