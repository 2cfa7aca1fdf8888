"""Which parts train when: a run is a row of stages, each a number of steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from palp_lab.types import UserError

PARTS = ("tokens", "edits")
KEYS = ("trains", "until")


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
        self.rows: Sequence[Stage] = [_stage(stage) for stage in stages] or [Stage()]
        ends = [stage.until for stage in self.rows]
        if None in ends[:-1] or ends[-1] is not None or ends[:-1] != sorted(set(ends[:-1]), key=lambda end: end or 0):
            raise UserError(
                "stages: every stage but the last needs its own `until`, in rising order; "
                "the last one has none and runs to trainer.max_steps"
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


def _stage(row: Stage | Mapping[str, Any]) -> Stage:
    """A row as a stage. Raises UserError for a key that means nothing, and an end that is no step."""
    if isinstance(row, Stage):
        return row
    if not isinstance(row, Mapping):
        example = "'stages=[{trains: tokens, until: 300},{trains: edits}]'"
        raise UserError(f"stages: {row!r} is no stage; write e.g. {example}")
    if strange := [str(key) for key in row if key not in KEYS]:
        raise UserError(f"stages: {strange[0]} is no key of a stage; there are {' and '.join(KEYS)}")
    until = row.get("until")
    if until is not None and (not isinstance(until, int) or isinstance(until, bool) or until < 1):
        raise UserError(f"stages: until={until}: must be a whole number of steps, 1 or more")
    return Stage(_names(row.get("trains", PARTS)), until)


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if unknown := [name for name in names if name not in PARTS]:
        raise UserError(f"stages: trains={unknown[0]}: must be {' or '.join(PARTS)}")
    return names
