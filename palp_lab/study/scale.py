"""Axes of a drawing: from numbers to places, with round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """From the data to the drawing, along one axis."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    @property
    def step(self) -> float:
        """A round distance between ticks, so that there are about six."""
        rough = (self.high - self.low) / 7
        unit = 10.0 ** math.floor(math.log10(rough))
        return float(unit * next(factor for factor in (1, 2, 5, 10) if factor * unit >= rough))

    def words(self, value: float) -> str:
        """A tick with as many decimals as the ticks differ in."""
        return f"{value:.{max(0, -math.floor(math.log10(self.step)))}f}"

    def ticks(self) -> list[float]:
        """The round numbers along the axis."""
        step, first = self.step, math.ceil(self.low / self.step)
        return [round(step * i, 10) for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def scale_over(spans: Sequence[tuple[float, float]], start: float, end: float) -> Scale:
    """A scale that holds all spans (low, high) with a little room at both ends."""
    low, high = min((s[0] for s in spans), default=0.0), max((s[1] for s in spans), default=1.0)
    room = 0.06 * (high - low) or 0.05
    return Scale(low - room, high + room, start, end)
