"""Which parts train when: a run is a row of stages, each a number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from palp_lab.types import UserError

PARTS = ("tokens", "edits")


@dataclass(frozen=True)
class Stage:
    """The parts that train from the end of the stage before until step `until` (None: to the end)."""

    trains: tuple[str, ...] = PARTS
    until: int | None = None


class Stages:
    """The stages of a run in their order; without any, everything trains all the time. Final.

    Source: arXiv 2407.05312 for two of them (first the word, then the network with the word frozen).
    """

    def __init__(self, stages: Iterable[Stage | Mapping[str, Any]] = ()) -> None:
        rows = [
            stage if isinstance(stage, Stage) else Stage(_names(stage.get("trains", PARTS)), stage.get("until"))
            for stage in stages
        ]
        self.rows: Sequence[Stage] = rows or [Stage()]
        ends = [stage.until for stage in self.rows[:-1]]
        if any(end is None for end in ends) or ends != sorted(set(ends), key=lambda end: end or 0):
            raise UserError(
                "stages: every stage but the last needs its own `until`, in rising order; "
                "the last one runs to trainer.max_steps"
            )

    def at(self, step: int) -> Stage:
        """The stage of an optimizer step (counted from 0)."""
        return next((stage for stage in self.rows if stage.until is None or step < stage.until), self.rows[-1])

    def apply(self, step: int, parts: Iterable[tuple[str, nn.Parameter]]) -> Stage:
        """Lets exactly the parameters of the step's stage take gradients. A pure function of the step, so that a
        resumed run needs no more than the step's number."""
        stage = self.at(step)
        for name, parameter in parts:
            trains = name.partition(".")[0] in stage.trains
            parameter.requires_grad_(trains)
            if not trains:
                parameter.grad = None
        return stage


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if unknown := [name for name in names if name not in PARTS]:
        raise UserError(f"stages: trains={unknown[0]}: must be {' or '.join(PARTS)}")
    return names
