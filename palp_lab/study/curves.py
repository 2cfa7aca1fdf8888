"""Curves: what a method reaches as it trains, and what a knob reaches without training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import pandas as pd

from palp_lab.study.intervals import RESAMPLES, Interval, Panel, intervals_of
from palp_lab.study.observations import UNIT, at_usual_knobs, bounds_beside, per_unit, usual_knobs
from palp_lab.study.pareto import directions_for, hypervolume, on_front

Axes = tuple[str, str]


@dataclass(frozen=True)
class CurvePoint:
    """One mark: its label (a step, or a knob's value), the interval of each axis, and whether it is on the front."""

    label: str
    x: Interval
    y: Interval
    on_front: bool = False


@dataclass(frozen=True)
class Curve:
    """The marks of one series in order. `knob` is None for a curve over training steps, else the knob that was swept.
    `volume` is the hypervolume of its marks, with its interval where every unit has every step."""

    series: str
    points: tuple[CurvePoint, ...]
    knob: str | None = None
    volume: Interval | None = None

    @property
    def name(self) -> str:
        return self.series if self.knob is None else f"{self.series}, {self.knob}"


@dataclass(frozen=True)
class Anchor:
    """A bound on the front: its name, and the interval of each axis that was measured for it."""

    name: str
    x: Interval | None
    y: Interval | None


def curves_over_steps(
    frame: pd.DataFrame, axes: Axes, reference: Sequence[float], resamples: int = RESAMPLES, seed: int = 0
) -> list[Curve]:
    """A curve per series over training steps at the usual knobs; each mark is the mean over concept × prompt × seed."""
    usual = at_usual_knobs(frame)
    curves = []
    for series, rows in usual.groupby("series", sort=True):
        points = []
        for step, at_step in rows.groupby("step", sort=True):
            pair = intervals_of(at_step, axes, resamples, seed)
            if pair is not None:
                points.append(CurvePoint(str(step), pair[0], pair[1]))
        if points:
            volume = _volume(rows, axes, points, reference, resamples, seed)
            curves.append(Curve(str(series), tuple(points), None, volume))
    return mark_front(curves, axes)


def curves_over_knobs(frame: pd.DataFrame, axes: Axes, resamples: int = RESAMPLES, seed: int = 0) -> list[Curve]:
    """A curve per series and swept knob, at the last step, the other knobs as usual: rivals that need no training."""
    if frame.empty:
        return []
    usual = dict(usual_knobs(frame))
    curves = []
    for series, rows in frame.groupby("series", sort=True):
        for knob in usual:
            others = {name: value for name, value in usual.items() if name != knob}
            swept = rows[[_others(knobs, knob) == others for knobs in rows["knobs"]]]
            values = swept["knobs"].map(lambda knobs, knob=knob: dict(knobs)[knob])
            if values.nunique() < 2:
                continue
            points = []
            for value, at_value in _shared(swept[swept["step"] == swept["step"].max()], values, axes):
                pair = intervals_of(at_value, axes, resamples, seed)
                if pair is not None:
                    points.append(
                        CurvePoint(f"{value:g}" if isinstance(value, float) else str(value), pair[0], pair[1])
                    )
            if len(points) > 1:
                curves.append(Curve(str(series), tuple(points), knob))
    return curves


def _shared(rows: pd.DataFrame, values: pd.Series, axes: Axes) -> list[tuple[Any, pd.DataFrame]]:
    """The rows by value, of the units alone that every value has: a knob that only easy subjects were drawn with would
    look good for it."""
    groups = [(value, own.dropna(subset=list(axes))) for value, own in rows.groupby(values, sort=True)]
    units = [pd.MultiIndex.from_frame(own[list(UNIT)]) for _, own in groups]
    shared = reduce(pd.MultiIndex.intersection, units)
    return [(value, own[unit.isin(shared)]) for (value, own), unit in zip(groups, units, strict=True)]


def _others(knobs: Iterable[tuple[str, Any]], knob: str) -> dict[str, Any] | None:
    """The settings of all knobs but one; None where that one has none, as with pictures of other tools."""
    found = dict(knobs)
    return {name: value for name, value in found.items() if name != knob} if knob in found else None


def mark_front(curves: Sequence[Curve], axes: Axes) -> list[Curve]:
    """The same curves with `on_front` set on the marks that no mark of any curve dominates."""
    cloud = [(point.x.mean, point.y.mean) for curve in curves for point in curve.points]
    kept = iter(on_front(cloud, directions_for(axes)).tolist()) if cloud else iter(())
    return [
        Curve(
            curve.series,
            tuple(CurvePoint(point.label, point.x, point.y, next(kept)) for point in curve.points),
            curve.knob,
            curve.volume,
        )
        for curve in curves
    ]


def anchors(
    bounds: pd.DataFrame, axes: Axes, prompts: Sequence[str] | None, resamples: int = RESAMPLES, seed: int = 0
) -> list[Anchor]:
    """The bounds on these axes, over `prompts` where they are given; a bound without a prompt counts for all."""
    if bounds.empty:
        return []
    rows = bounds if prompts is None else bounds[bounds["prompt"].isna() | bounds["prompt"].isin(prompts)]
    rows = rows.assign(prompt=rows["prompt"].fillna(""), train_seed=0)
    found = []
    for name, group in rows.groupby("name", sort=False):
        pair = [intervals_of(group, [axis], resamples, seed) if axis in group.columns else None for axis in axes]
        x, y = (one[0] if one else None for one in pair)
        if x is not None or y is not None:
            found.append(Anchor(str(name), x, y))
    return found


def reference_point(found: Sequence[Anchor], axes: Axes) -> tuple[float, float]:
    """The default reference of the hypervolume: identity of the untuned class word, text of copies of the photos.

    A point has volume only if it beats both trivial rivals, each on the axis where that rival is weak; a missing
    bound gives 0. For an axis where less is better the same bounds are read on that axis.
    """
    by_name = {anchor.name: anchor for anchor in found}
    word, photos = by_name.get("class_word"), by_name.get("training_photos")
    return (
        word.x.mean if word is not None and word.x is not None else 0.0,
        photos.y.mean if photos is not None and photos.y is not None else 0.0,
    )


def volumes_per_concept(rows: pd.DataFrame, bounds: pd.DataFrame, axes: Axes) -> dict[str, float]:
    """Per concept the hypervolume of one series' curve over steps at the usual knobs, each mark a mean over seeds and
    prompts, against the concept's own reference: its class word and its photos under the same prompts, drawn alike.
    What one number says of a whole curve: how far it comes counts as much as how high it lies."""
    higher, found, place = directions_for(axes), {}, list(UNIT[:3])
    usual = at_usual_knobs(rows).dropna(subset=list(axes))
    beside = bounds_beside(bounds, usual)
    for (dataset, model, concept), own in usual.groupby(place, sort=True):
        mine = beside[(beside[place] == [dataset, model, concept]).all(axis=1)]
        corner = reference_point(anchors(mine, axes, list(own["prompt"].unique()), resamples=1), axes)
        marks = own.groupby(["prompt", "step"])[list(axes)].mean().groupby("step").mean().to_numpy(dtype=float)
        name = str(concept) if str(concept) not in found else f"{concept} of {dataset} on {model}"
        found[name] = hypervolume(marks, corner, higher)
    return found


def _volume(
    rows: pd.DataFrame, axes: Axes, points: Sequence[CurvePoint], reference: Sequence[float], resamples: int, seed: int
) -> Interval:
    """The hypervolume of the units that have all steps, and its interval, which resamples them with all their steps;
    without two such units that of the marks, and no interval."""
    higher = directions_for(axes)
    steps = [per_unit(at_step, axes).add_suffix(f"@{step}") for step, at_step in rows.groupby("step", sort=True)]
    units = pd.concat([step for step in steps if len(step)], axis=1, join="inner")
    if len(units) < 2:
        marks = [(point.x.mean, point.y.mean) for point in points]
        return Interval(hypervolume(marks, reference, higher), None, None, len(units), 0)
    panel = Panel.of(units)
    draws = panel.resampled(resamples, np.random.default_rng(seed))
    mean, *volumes = (hypervolume(one.reshape(-1, 2), reference, higher) for one in (panel.means(), *draws.T))
    low, high = np.quantile(volumes, [0.025, 0.975])
    return Interval(mean, float(low), float(high), len(units), panel.values.shape[1])
