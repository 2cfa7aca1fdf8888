"""What all metrics share: a pure function of what the protocol's networks saw once."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from palp_lab.metrics.elements import Element
    from palp_lab.types import Images

Axis = Literal["image", "text", "neither"]
Level = Literal["image", "pair", "set"]
Subject = Literal["concept", "drift"]


@dataclass(frozen=True)
class Score:
    """A measured value with its parts. `value` None: not measured (no reference, too few pictures)."""

    level: Level
    value: float | None
    per_image: tuple[float | None, ...] | None
    n: int

    def json(self) -> dict[str, object]:
        return {
            "level": self.level,
            "value": self.value,
            "per_image": None if self.per_image is None else list(self.per_image),
            "n": self.n,
        }


@dataclass(frozen=True)
class Evidence:
    """All a metric may read about the pictures of one prompt.

    `text` is the prompt as text metrics read it (slot stripped by the protocol); `photos` are the training photos,
    `held_out` others of the same subject, `true_renders` the subject itself in the prompted scene, each None where
    there are none; `twins` are the base model's pictures of the same seeds and prompt (drift only). `see` gives the
    features of pictures in a named space, `read` those of prompts, `gap` the distance between the two in that space
    (None where it was not measured). `phrases` are the words of the prompt's elements by kind; `wanted` and `found`
    what the prompt asks for and which of it the reader finds [n k], None without a reader.
    """

    images: Images
    text: str
    see: Callable[[str, Images], Tensor]
    read: Callable[[str, Sequence[str]], Tensor]
    gap: Callable[[str], Tensor | None] = lambda space: None
    photos: Images | None = None
    held_out: Images | None = None
    true_renders: Images | None = None
    twins: Images | None = None
    class_word: bool = False
    """Drift only: the prompt holds the class word."""
    wanted: tuple[Element, ...] | None = None
    found: Bool[Tensor, "n k"] | None = None
    phrases: Mapping[str, str] = field(default_factory=dict)


class AbstractMetric(ABC):
    """`name` in results, unless the protocol gives another; `axis` of the front it belongs to; `level` of its parts;
    `space` the network it lives in ("" for none); `subject` the pictures it is about: those of the concept, or those
    of prompts without it."""

    name: str
    axis: Axis
    level: Level
    space: str = ""
    higher_is_better: bool | None
    subject: Subject = "concept"

    @abstractmethod
    def measure(self, evidence: Evidence) -> Score:
        """The score of the pictures of one prompt. Not measured, rather than wrong, where evidence is missing."""

    def missing(self, images: Images) -> Score:
        """Not measured."""
        return Score(self.level, None, None, 0)


def per_image(values: Float[Tensor, " n"]) -> Score:
    """The score of one value per picture; values that are not finite count as not measured."""
    parts = tuple(float(v) if math.isfinite(float(v)) else None for v in values)
    measured = [v for v in parts if v is not None]
    return Score("image", math.fsum(measured) / len(measured) if measured else None, parts, len(measured))


def over_pairs(values: Float[Tensor, " n"]) -> Score:
    """The score of one value per pair of pictures."""
    measured = [float(v) for v in values if math.isfinite(float(v))]
    return Score("pair", math.fsum(measured) / len(measured) if measured else None, None, len(measured))


def cosine(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosine of all pairs, in float64."""
    return torch.nn.functional.normalize(a.double(), dim=-1) @ torch.nn.functional.normalize(b.double(), dim=-1).T
