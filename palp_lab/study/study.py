"""A study: results in, and out of them curves, front, hypervolume, intervals, paired tests, tables and the answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from palp_lab.study.curves import (
    Anchor,
    Curve,
    anchors,
    curves_over_knobs,
    curves_over_steps,
    mark_front,
    reference_point,
)
from palp_lab.study.directions import higher_is_better, known_metrics
from palp_lab.study.footing import different_pairs, drawn_otherwise, drawn_with, settings_averaged, short_of_pairs
from palp_lab.study.headline import Headline, awaited, headline, unasked
from palp_lab.study.intervals import RESAMPLES
from palp_lab.study.observations import (
    at_usual_knobs,
    bound_observations,
    bounds_beside,
    filed_alike,
    observations,
    require_metric,
    scoped,
    target_prompts,
)
from palp_lab.study.palette import words
from palp_lab.study.pareto import directions_for
from palp_lab.study.result import Result
from palp_lab.study.sizing import PILOT, Sizing, paired_differences, sizing, spread, usual_prompts
from palp_lab.study.statistics import (
    Comparison,
    at_the_end,
    common_steps,
    compare_at_equal,
    compare_at_step,
    compare_stopped,
    end_step,
)
from palp_lab.study.table import Table
from palp_lab.study.tables import (
    bounds_table,
    claim_of,
    cost_table,
    methods_table,
    pairs_table,
    prompts_table,
    shown_metrics,
    transfer_table,
)
from palp_lab.types import UserError


@dataclass(frozen=True)
class Question:
    """What is asked of the results: the plane, who is compared with whom, on which prompts, with how many resamples.

    `reference` is the corner of the hypervolume; None takes it from the bounds (see `curves.reference_point`). In a
    study that is `growing`, a pair that is not there yet is left for later, where it is an error otherwise.
    """

    x: str = "identity"
    y: str = "text_alignment"
    compare: tuple[str, str] | None = None
    scope: str = "own"
    series: tuple[str, ...] = ()
    reference: tuple[float, float] | None = None
    resamples: int = RESAMPLES
    seed: int = 0
    growing: bool = False

    @property
    def axes(self) -> tuple[str, str]:
        return self.x, self.y


@dataclass(frozen=True)
class Study:
    """Everything the report shows, as numbers. `frame` holds all records, `scope` those of the question's scope;
    `uneven` says so where the rows are over different pairs, and `drawn` at which setting the tables hold. `limits` are
    sentences about rows that are left out or averaged."""

    question: Question
    results: tuple[Result, ...]
    frame: pd.DataFrame
    scope: pd.DataFrame
    bounds: pd.DataFrame
    curves: tuple[Curve, ...]
    knob_curves: tuple[Curve, ...]
    anchors: tuple[Anchor, ...]
    reference: tuple[float, float]
    comparisons: tuple[Comparison, ...]
    headline: Headline
    tables: tuple[Table, ...]
    sizings: tuple[Sizing, ...]
    last_step: int
    uneven: str = ""
    drawn: str = ""
    limits: tuple[str, ...] = ()

    @property
    def axes(self) -> tuple[str, str]:
        return self.question.axes


def study_of(results: Sequence[Result], question: Question) -> Study:
    """Answer the question from the results. Raises UserError for no results, or a metric that nobody measured."""
    if not any(result.records for result in results):
        raise UserError("no results with records were found; run some cells first, or point results=[...] at them")
    frame, bounds = observations(results, question.series), bound_observations(results)
    axes = (require_metric(frame, question.x), require_metric(frame, question.y))
    directions_for(axes)
    scope = scoped(frame, question.scope)
    how = (question.resamples, question.seed)
    bounds = bounds_beside(bounds, scope)
    prompts = target_prompts(frame) if question.scope == "own" else None
    found = anchors(bounds, axes, prompts or None, *how)
    reference = question.reference or reference_point(found, axes)
    curves, swept = _on_one_front(
        curves_over_steps(scope, axes, reference, *how), curves_over_knobs(scope, axes, *how), axes
    )
    comparisons = _comparisons(scope, question)
    metrics = shown_metrics(frame)
    few = [metric for metric in metrics if metric in (*axes, "elements", "copy")]
    shown = bounds[bounds["prompt"].isna() | bounds["prompt"].isin(prompts)] if prompts else bounds
    pairs = pairs_table(scope, *axes, *how)
    short = short_of_pairs(scope, axes)
    uneven = " ".join(filter(None, (different_pairs(scope, axes, bool(comparisons) or pairs is not None), short)))
    optional = (transfer_table(frame, few, *how), bounds_table(shown, metrics, *how), pairs)
    tables = (
        methods_table(frame, axes, metrics, question.scope, *how),
        *(prompts_table(frame, axis, *how) for axis in (question.y, question.x)),
        *(table for table in optional if table is not None),
        cost_table(results, curves, question.series, ranked=not uneven),
    )
    return Study(
        question,
        tuple(results),
        frame,
        scope,
        bounds,
        tuple(curves),
        tuple(swept),
        tuple(found),
        reference,
        tuple(comparisons),
        _answer(scope, question, comparisons, pairs is not None),
        tables,
        tuple(_sizings(scope, comparisons, question)),
        int(scope["step"].max()),
        uneven,
        drawn_with(scope, bool(swept)),
        (*drawn_otherwise(scope), *([short] if short else []), *settings_averaged(results, question.series)),
    )


def _answer(scope: pd.DataFrame, question: Question, comparisons: Sequence[Comparison], tabled: bool) -> Headline:
    if missing := _not_yet(scope, question):
        answer = awaited(missing, sorted(scope["series"].unique()))
    elif compared(scope, question) is None:
        answer = unasked(scope["series"].nunique(), tabled)
    else:
        answer = headline(comparisons, question.x, question.y)
    return replace(answer, sentences=(*answer.sentences, *_averaged(scope)))


def _averaged(scope: pd.DataFrame) -> list[str]:
    """What to know of curves in which cells that differ cannot be told apart."""
    return [
        f"{len(runs)} cells of {words(name)} ({', '.join(run[:8] for run in runs[:4])}{', ...' * (len(runs) > 4)}) "
        "measured the same prompts under the same axes and are averaged: they differ in what is not among the "
        "axes, such as a part that was changed; report on results=[...] that belong together."
        for name, runs in filed_alike(scope).items()
    ]


def _not_yet(frame: pd.DataFrame, question: Question) -> list[str]:
    """Those of the pair asked for whom a growing study has no results of yet."""
    there = set(at_usual_knobs(frame)["series"])
    return [name for name in question.compare or () if question.growing and _meant(name, there) not in there]


def _meant(name: str, curves: Collection[str]) -> str:
    """The curve a name asked for stands for: its own, or where a method has but one, with a part or a setting in its
    name, that one."""
    settings = [curve for curve in curves if curve.startswith(f"{name} · ")]
    return settings[0] if name not in curves and len(settings) == 1 else name


def compared(frame: pd.DataFrame, question: Question) -> tuple[str, str] | None:
    """Who is compared, baseline first: what was asked for, else PALP and its baseline where both are there, else the
    only two, of which the one with the shorter name (fewer losses, fewer settings) is the baseline."""
    names = sorted(set(at_usual_knobs(frame)["series"]), key=lambda name: (len(name), name))
    if question.compare is not None:
        baseline, challenger = question.compare
        return None if _not_yet(frame, question) else (_meant(baseline, names), _meant(challenger, names))
    return claim_of(names) or ((names[0], names[1]) if len(names) == 2 else None)


def _on_one_front(trained: list[Curve], swept: list[Curve], axes: tuple[str, str]) -> tuple[list[Curve], list[Curve]]:
    """The same curves, their marks held against each other: a knob that needs no training is a rival like any other."""
    marked = mark_front([*trained, *swept], axes)
    return marked[: len(trained)], marked[len(trained) :]


def _comparisons(scope: pd.DataFrame, question: Question) -> list[Comparison]:
    """Both axes at every common step, and against a baseline that was stopped earlier; at the end of training and at
    equal x every other metric that has a better end."""
    pair = compared(scope, question)
    if pair is None:
        return []
    x, y, how = question.x, question.y, (question.resamples, question.seed)
    others = [
        m for m in shown_metrics(scope) if m not in (x, y) and m in known_metrics() and higher_is_better(m) is not None
    ]
    steps = [step for step in common_steps(scope, *pair) if step > 0]
    found = [compare_at_step(scope, *pair, metric, step, *how) for step in steps for metric in (y, x)]
    end = end_step(scope, *pair, question.axes)
    found += [compare_at_step(scope, *pair, metric, end, *how) for metric in others if end]
    found += [compare_at_equal(scope, *pair, metric, x, *how) for metric in (y, *others)]
    until = scope[scope["step"] <= end] if end else scope
    found += [compare_stopped(until, *pair, metric, x, *how) for metric in (y, x)]
    return [one for one in found if one is not None]


def _sizings(scope: pd.DataFrame, comparisons: Sequence[Comparison], question: Question) -> list[Sizing]:
    """How many concepts would separate the two compared methods by the difference that was seen, for 1 to 5 seeds;
    none from a study so small that its spread is a guess (`PILOT`)."""
    last = at_the_end(comparisons, question.axes).get(question.y)
    if last is None or last.step is None or last.pairs < PILOT[0] or last.difference.concepts < PILOT[1]:
        return []
    differences = paired_differences(scope, last.baseline, last.challenger, last.metric, last.step)
    found, prompts = spread(differences), usual_prompts(differences)
    tried = (1,) if found.seeds is None else (1, 2, 3, 5)
    return [sizing(found, abs(last.difference.mean), prompts, seeds) for seeds in tried]
