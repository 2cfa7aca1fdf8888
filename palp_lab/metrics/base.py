"""What all metrics share: a pure function of what the protocol's networks saw once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

Axis = Literal["image", "text", "neither"]
Level = Literal["image", "pair", "set"]


@dataclass(frozen=True)
class Score:
    """A measured value with its parts. `value` None: not measured (no reference, too few pictures)."""

    level: Level
    value: float | None
    per_image: tuple[float, ...] | None
    n: int

    def json(self) -> dict[str, object]:
        return {"level": self.level, "value": self.value, "per_image": None if self.per_image is None else list(self.per_image), "n": self.n}


class AbstractMetric(ABC):
    """`name` in results; `axis` of the front it belongs to; `level` of its parts; `space` the network it lives in."""

    name: str
    axis: Axis
    level: Level
    space: str
    higher_is_better: bool | None


def cosine(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Cosine of all pairs, in float64."""
    return torch.nn.functional.normalize(a.double(), dim=-1) @ torch.nn.functional.normalize(b.double(), dim=-1).T
