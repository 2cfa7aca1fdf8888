"""The answer in words, computed from the numbers; where the interval holds 0 the words say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from palp_lab.study.directions import higher_is_better, label_of
from palp_lab.study.palette import words
from palp_lab.study.rendering import number, p_value, range_of
from palp_lab.study.statistics import STOPPED, Comparison, at_the_end

LEAST_PAIRS, LEAST_CONCEPTS, LEVEL = 8, 6, 0.05
"""Below these no claim is made (ours). Intervals over few subjects are too short: with three, one in four holds no
difference where there is none. So the exact sign-flip test on the means per concept must agree, and with fewer than
six concepts it cannot fall below `LEVEL`."""


@dataclass(frozen=True)
class Headline:
    """`verdict` in a few words, then sentences with the numbers behind it."""

    verdict: str
    sentences: tuple[str, ...]


def unasked(methods: int, tabled: bool) -> Headline:
    """Where no two of so many methods were to be compared; `tabled` where a table compares every pair."""
    if methods == 1:
        return Headline("One method: there is nothing to compare it with.", ())
    if methods == 2:
        alike = "They were not drawn alike (guidance, sampler, steps, adapter scale), so they are not compared."
        return Headline("2 methods on one front.", (alike,))
    every = "Every pair is compared in a table below" if tabled else "They are too many for a table of every pair"
    return Headline(f"{methods} methods on one front.", (f"{every}; compare=[baseline,challenger] asks about two.",))


def awaited(missing: Sequence[str], there: Sequence[str]) -> Headline:
    """Where a study has no results yet of one it is to compare."""
    left = f"Of {' and '.join(missing)} there are no results yet; there are results of {', '.join(there)}."
    return Headline("Nothing to compare yet.", (left,))


def headline(comparisons: Sequence[Comparison], x: str, y: str) -> Headline:
    """What the paired comparisons say about the claim "the challenger buys `y` without losing `x`".

    The end of training decides between gaining and paying, both axes at one step (see `at_the_end`); the comparison at
    equal `x` decides whether the challenger is ahead at all, because a method that merely trains more slowly gains `y`
    by losing `x`. A comparison over fewer than `LEAST_PAIRS` pairs or `LEAST_CONCEPTS` concepts claims nothing: its
    numbers and its n are reported.
    """
    last = at_the_end(comparisons, (x, y))
    level = next((one for one in comparisons if one.at == f"equal {x}" and one.metric == y), None)
    if y not in last:
        if level is None:
            return Headline("No paired comparison", ("The two methods have no pair with a step in common yet.",))
        none = f"The two methods have no training step in common, so they are compared at equal {label_of(x)} only."
        return Headline(_verdict_at_level(level, x), (_sentence(level), none))
    text, image = last[y], last.get(x)
    names = (words(text.challenger), words(text.baseline))
    early = [one for one in comparisons if one.at.startswith(STOPPED) and one.metric in (y, x)]
    sentences = [_sentence(one) for one in (text, image, level, *early) if one is not None]
    sentences += [*_caveats(text, image, level, x), *_fewer_later(last, comparisons, (y, x))]
    return Headline(_verdict(names, text, image, level), tuple(sentences))


def enough(one: Comparison) -> bool:
    """Whether a comparison rests on enough pairs and concepts to claim anything."""
    return one.difference.low is not None and one.pairs >= LEAST_PAIRS and one.difference.concepts >= LEAST_CONCEPTS


def _verdict(names: tuple[str, str], text: Comparison, image: Comparison | None, level: Comparison | None) -> str:
    who, rival = names
    if not enough(text):
        return _too_few(names, text, image)
    y = label_of(text.metric)
    gain = sign(text)
    cost = sign(image) if image is not None and enough(image) else None
    ahead = sign(level) if level is not None and enough(level) else None
    x = label_of(image.metric) if image is not None else "the subject"
    if ahead is not None and ahead > 0:
        paid = {
            -1: f", though at equal steps it pays in {x}",
            1: f", and at equal steps it gains in {x} too",
            0: f"; at equal steps the two are not separated in {x}",
            None: f"; at equal steps too few pairs can be compared in {x}",
        }[cost]
        return f"Yes: at equal {x}, {who} has better {y} than {rival}{paid}."
    if ahead is not None and ahead < 0:
        return f"No: at equal {x}, {who} has worse {y} than {rival}."
    open_end = f"at equal {x} " + ("the two are not separated" if ahead == 0 else "too few pairs can be compared")
    if gain > 0 and cost == -1:
        return f"A trade: {who} gains {y} over {rival} and pays in {x}; {open_end}."
    if gain > 0:
        return f"Partly: at equal steps {who} has better {y} than {rival}; {open_end}."
    if gain < 0:
        return f"No: at equal steps {who} has worse {y} than {rival}."
    return f"Not separated: these results cannot tell {who} from {rival} in {y}."


def _verdict_at_level(level: Comparison, x: str) -> str:
    """What a comparison at equal x says where there is none at equal steps."""
    if not enough(level):
        return _too_few((words(level.challenger), words(level.baseline)), level, None)
    how = {1: "better {} than", -1: "worse {} than", 0: "{} that cannot be told from that of"}[sign(level)]
    has = how.format(label_of(level.metric))
    return f"At equal {label_of(x)}, {words(level.challenger)} has {has} {words(level.baseline)}."


def _too_few(names: tuple[str, str], text: Comparison, image: Comparison | None) -> str:
    """What was seen, how often, and that it settles nothing."""
    both = [one for one in (text, image) if one is not None]
    other = [
        f"{number(abs(one.difference.mean))} {'higher' if one.difference.mean > 0 else 'lower'} {label_of(one.metric)}"
        for one in both
        if not _shows_zero(one)
    ]
    same = " and ".join(label_of(one.metric) for one in both if _shows_zero(one))
    seen = [f"{' and '.join(other)} than {names[1]}"] if other else []
    if same:
        seen.append(f"the same {same}{'' if other else f' as {names[1]}'} to three decimals")
    return (
        f"Nothing is settled: {names[0]} has {' and '.join(seen)} at "
        f"{text.where if text.step is None else f'equal steps ({text.step})'}, over "
        f"{_counted(text.pairs, 'pair')} from {_counted(text.difference.concepts, 'concept')}; a claim takes at least "
        f"{LEAST_PAIRS} pairs from {LEAST_CONCEPTS} concepts."
    )


def _shows_zero(one: Comparison) -> bool:
    """Whether a difference is none in the decimals that are printed."""
    return number(one.difference.mean) == number(0.0)


def _counted(number_of: int, what: str) -> str:
    return f"{number_of} {what}{'' if number_of == 1 else 's'}"


def sign(one: Comparison) -> int:
    """1 where the challenger is better, -1 where worse; 0 where the interval over pairs holds 0 or the test over
    concepts does not agree."""
    if one.difference.holds_zero or one.p_concepts is None or one.p_concepts > LEVEL:
        return 0
    up = 1 if one.difference.mean > 0 else -1
    return up if higher_is_better(one.metric) is not False else -up


def _sentence(one: Comparison) -> str:
    d = one.difference
    if one.at.startswith("step"):
        where = f"At {one.at.replace('step ', 'equal steps (')})"
    elif one.at.startswith(STOPPED):
        where = f"With {words(one.baseline)} stopped after {one.at.removeprefix(STOPPED)} steps"
    else:
        where = f"At {one.where}"
    change = f"is {number(abs(d.mean))} {'higher' if d.mean > 0 else 'lower'} than"
    if _shows_zero(one):
        change = f"differs by {number(0.0)} from" if d.mean else "is the same as"
    interval = (
        f"95\u00a0% interval {range_of(d, signed=True)}" if d.low is not None else "too few pairs for an interval"
    )
    zero = "; the interval holds 0, so no difference is shown" if d.low is not None and d.holds_zero else ""
    pairs = f"{_counted(one.pairs, 'pair')} from {_counted(d.concepts, 'concept')}"
    if one.at.startswith("equal"):
        pairs = f"{one.pairs} of {one.possible} pairs overlap, {_counted(d.concepts, 'concept')}"
    what = f"{label_of(one.metric)} of {words(one.challenger)}"
    return f"{where}, {what} {change} that of {words(one.baseline)} ({interval}; {pairs}){zero}."


def _caveats(text: Comparison, image: Comparison | None, level: Comparison | None, x: str) -> list[str]:
    found = []
    concepts = text.difference.concepts
    if concepts == 1 and text.pairs > 1:
        found.append("One concept only: the interval speaks of its prompts and seeds, not of other subjects.")
    elif concepts > 1 and text.p_concepts is not None:
        found.append(_exact([one for one in (text, image, level) if one is not None]))
    if level is None:
        found.append(f"At no pair do the two curves reach a common {label_of(x)}, so they cannot be compared there.")
    return found


def _exact(tested: Sequence[Comparison]) -> str:
    """The exact tests over concepts, one for each comparison, and how far down their p can go."""
    first = tested[0].difference.concepts
    each = []
    for one in tested:
        if one.p_concepts is None:
            continue
        least = f" ({_counted(one.difference.concepts, 'concept')}, at least {p_value(one.p_floor)})"
        fewer = "" if one.difference.concepts == first else least
        where = "equal steps" if one.step is not None else one.where
        each.append(f"{p_value(one.p_concepts)} for {label_of(one.metric)} at {where}{fewer}")
    reach = f"with {first} concepts it cannot fall below {p_value(tested[0].p_floor)}"
    return f"Taking each concept as one observation, the exact p is {', '.join(each)}; {reach}."


def _fewer_later(last: Mapping[str, Comparison], comparisons: Sequence[Comparison], axes: tuple[str, str]) -> list[str]:
    """Why the end of training is taken before the last common step, where it is."""
    steps = [one.step for one in comparisons if one.step is not None]
    later = {one.metric: one.pairs for one in comparisons if one.step == max(steps)}
    fewer = [
        f"{later.get(axis, 0)} instead of {last[axis].pairs} in {label_of(axis)}"
        for axis in axes
        if axis in last and later.get(axis, 0) < last[axis].pairs
    ]
    if not fewer:
        return []
    end = last[axes[0]].step
    return [f"Step {end} stands for the end of training: step {max(steps)} has fewer pairs, {' and '.join(fewer)}."]
