"""The tiles at the head of the page: the few differences that the answer rests on, each drawn around zero."""

from __future__ import annotations

from collections.abc import Sequence

from palp_lab.study.directions import label_of
from palp_lab.study.headline import enough, sign
from palp_lab.study.rendering import number, range_of
from palp_lab.study.statistics import Comparison, at_the_end
from palp_lab.study.study import Study
from palp_lab.study.svg import whisker_svg

TILES = 4


def tiles(study: Study) -> list[dict[str, str]]:
    """The differences that the headline rests on, each with its interval drawn around zero."""
    chosen = _chosen(study.comparisons, *study.axes)
    found = []
    for one in chosen:
        d = one.difference
        why = "the interval holds 0" if d.holds_zero else "the test over concepts does not agree"
        kind, said = {
            1: ("better", "better"),
            -1: ("worse", "worse"),
            0: ("open", f"not separated: {why}"),
        }[sign(one)]
        ends = [abs(end) for end in (d.mean, d.low, d.high) if end is not None]
        if not enough(one):
            kind, said = "open", "one pair" if d.low is None else "too few pairs or concepts for a claim"
        pairs = f"{one.pairs} of {one.possible} pairs" if one.pairs < one.possible else f"{one.pairs} pairs"
        pairs = "no interval" if d.low is None else pairs
        found.append({
            "what": label_of(one.metric), "at": f"at {one.where}", "mean": number(d.mean, signed=True), "kind": kind,
            "interval": range_of(d, signed=True) or "\u00a0", "words": f"{said}; {pairs}",
            "whisker": whisker_svg(d, 1.15 * max(ends) or 1.0),
        })  # fmt: skip
    return found


def _chosen(comparisons: Sequence[Comparison], x: str, y: str) -> list[Comparison]:
    at_steps = at_the_end(comparisons, (x, y))
    equal = {one.metric: one for one in comparisons if one.at.startswith("equal")}
    wanted = [at_steps.get(y), at_steps.get(x), equal.get(y), equal.get("elements") if y != "elements" else None]
    return [one for one in wanted if one is not None][:TILES]
