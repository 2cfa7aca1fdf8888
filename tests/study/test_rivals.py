"""Bounds kept once in a ledger: which cells may share them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from palp_lab.study.result import Protocol, Result
from palp_lab.study.rivals import keeps_bounds, same_rivals, with_bounds


def each(result: Result, **changes: Any) -> Result:
    """The result with every record changed."""
    return replace(result, records=tuple(replace(record, **changes) for record in result.records))


def knobs(result: Result, **changes: Any) -> Result:
    return replace(result, records=tuple(replace(r, knobs={**r.knobs, **changes}) for r in result.records))


def data(result: Result, **hashes: str) -> Result:
    return replace(result, data={"hashes": {"model": "m", "photos": "p", **hashes}})


ALIKE: dict[str, Callable[[Result], Result]] = {
    "another method": lambda r: replace(r, run="other", axes={**r.axes, "method": "p_plus"}),
    "another training seed": lambda r: replace(r, run="other", axes={**r.axes, "train_seed": 7}),
    "half strength": lambda r: knobs(r, strength=0.5),
    "a prompt without the concept more": lambda r: replace(
        r, records=(*r.records, replace(r.records[0], prompt="a dog"))
    ),
}
OTHER: dict[str, Callable[[Result], Result]] = {
    "concept": lambda r: replace(r, axes={**r.axes, "concept": "robot 12"}),
    "base": lambda r: replace(r, axes={**r.axes, "model": "tiny_small"}),
    "shots": lambda r: replace(r, axes={**r.axes, "shots": 1}),
    "photos": lambda r: data(r, photos="q"),
    "base weights": lambda r: data(r, model="n"),
    "protocol": lambda r: replace(r, protocol=Protocol("tiny", "9", {})),
    "guidance": lambda r: knobs(r, guidance=9.0),
    "prompts": lambda r: replace(r, records=r.records[1:2]),
    "picture seeds": lambda r: each(r, picture_seeds=(7,)),
}


@pytest.mark.parametrize("change", [*ALIKE, *OTHER])
def test_bounds_are_shared_by_what_they_were_drawn_and_measured_for(study: list[Result], change: str) -> None:
    keeper = data(study[0])
    bare = replace((ALIKE | OTHER)[change](keeper), bounds=())
    assert same_rivals(keeper, bare) is (change in ALIKE)
    assert (with_bounds(bare, [keeper]).bounds == keeper.bounds) is (change in ALIKE)


def test_bounds_of_ones_own_come_first(study: list[Result]) -> None:
    own = replace(study[0], bounds=study[0].bounds[:1])
    assert with_bounds(own, study).bounds == own.bounds


def test_fewer_bounds_never_stand_for_all(study: list[Result]) -> None:
    """A protocol told to measure one rival alone leaves a line that is no keeper of the others."""
    whole = replace(data(study[0]), run="whole")
    few = replace(whole, run="few", bounds=whole.bounds[:1])
    assert len(whole.bounds) > 1
    assert keeps_bounds(replace(whole, run="other"), whole)
    assert not keeps_bounds(few, whole) and not keeps_bounds(whole, few)
    assert with_bounds(replace(whole, bounds=()), [few, whole]).bounds == whole.bounds
