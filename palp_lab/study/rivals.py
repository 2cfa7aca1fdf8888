"""The rivals that need no training, the bounds: a ledger keeps those of a concept once, in one of its cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from palp_lab.study.result import Result


def same_rivals(other: Result, result: Result) -> bool:
    """Whether another cell keeps bounds that are this one's too: same concept and words for it, base, protocol, prompts
    and knobs. Older lines say no words; they are taken by the concept's name."""
    said = {(one.data or {}).get("hashes", {}).get("words") for one in (other, result)} - {None}
    return bool(other.bounds) and len(said) < 2 and _rivals_of(other) == _rivals_of(result)


def keeps_bounds(other: Result, result: Result) -> bool:
    """Whether another cell keeps this one's bounds, each of them and no more: a protocol may measure fewer of them."""
    mine, theirs = ({(bound.name, bound.prompt) for bound in one.bounds} for one in (result, other))
    return mine == theirs and same_rivals(other, result)


def with_bounds(result: Result, others: Iterable[Result]) -> Result:
    """`result` with its bounds, which may be kept by another cell of the ledger, that with the most where several do;
    as it is where none keeps them."""
    if result.bounds:
        return result
    kept = (other.bounds for other in others if same_rivals(other, result))
    return replace(result, bounds=max(kept, key=len, default=()))


def _rivals_of(result: Result) -> tuple[object, ...]:
    axes = result.axes
    drawn = {
        (record.prompt, tuple(sorted((key, value) for key, value in record.knobs.items() if key != "strength")))
        for record in result.records
        if "{}" in record.prompt
    }
    seeds = {record.picture_seeds for record in result.records}
    where = (axes["dataset"], axes["concept"], axes["model"], axes.get("shots"))
    hashes = (result.data or {}).get("hashes") or {}
    made_of = tuple(sorted((key, value) for key, value in hashes.items() if key != "words"))
    return (*where, made_of, result.protocol, frozenset(drawn), frozenset(seeds))
