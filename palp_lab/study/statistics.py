"""Two methods against each other, pair by pair, and how large a study must be to tell them apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from palp_lab.study.directions import label_of, nearest
from palp_lab.study.intervals import RESAMPLES, Floats, Interval, finite, intervals_over
from palp_lab.study.observations import UNIT, at_usual_knobs, per_unit, usual_knobs
from palp_lab.types import UserError

LEVELS_OF_IDENTITY = 9
"""At how many levels of identity, evenly over what both methods reach, a pair is compared (ours)."""
STOPPED = "the end, baseline stopped at step "
"""How a comparison with a baseline that was stopped earlier says where it was made, before the step."""
EXACT_CONCEPTS = 14
"""Up to here all 2^n sign flips are enumerated; above, `DRAWN_FLIPS` are drawn (ours)."""
DRAWN_FLIPS = 10_000


@dataclass(frozen=True)
class Comparison:
    """`challenger` minus `baseline` on one metric.

    `at` says where ("step 500", "equal identity", or against a baseline that was stopped earlier, `STOPPED`). `pairs`
    of `possible` pairs could be compared. `p_concepts` is an exact sign-flip test on the means per concept, whose mean
    is that of `difference`: honest about how few there are (with c of them it cannot fall below `p_floor`, 2 / 2^c).
    `p_pairs` is Wilcoxon's signed-rank test on all pairs: sharper, but it takes pairs of one concept for independent.
    """

    baseline: str
    challenger: str
    metric: str
    at: str
    difference: Interval
    pairs: int
    possible: int
    p_concepts: float | None
    p_floor: float
    p_pairs: float | None

    @property
    def step(self) -> int | None:
        """The training step of a comparison at equal steps; None for every other."""
        return int(self.at.removeprefix("step ")) if self.at.startswith("step ") else None

    @property
    def where(self) -> str:
        """`at` for people: a metric's name as tables print it."""
        matched = self.at.removeprefix("equal ")
        return self.at if matched == self.at else f"equal {label_of(matched)}"


def compare_at_step(
    frame: pd.DataFrame,
    baseline: str,
    challenger: str,
    metric: str,
    step: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison | None:
    """Paired difference at the same training step; None where no pair was measured on both sides."""
    one, other = (per_unit(rows[rows["step"] == step], [metric]) for rows in _sides(frame, baseline, challenger))
    both = pd.concat([one, other], axis=1, join="inner")
    if both.empty:
        return None
    differences = both.iloc[:, 1] - both.iloc[:, 0]
    possible = len(one.index.union(other.index))
    return _compared(differences, baseline, challenger, metric, f"step {step}", possible, resamples, seed)


def compare_at_equal(
    frame: pd.DataFrame,
    baseline: str,
    challenger: str,
    metric: str,
    matched: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    levels: int = LEVELS_OF_IDENTITY,
) -> Comparison | None:
    """Paired difference of `metric` where both methods have the same value of `matched` (identity).

    Each pair's curve over steps is read as a path in the plane (matched, metric) and interpolated linearly at `levels`
    levels spread evenly over the range that both paths reach; where a path passes a level several times, the mean is
    taken (no picking of the luckiest step). Pairs whose ranges do not overlap are counted in `possible` only.
    """
    one, other = (_paths(rows, matched, metric) for rows in _sides(frame, baseline, challenger))
    units = [unit for unit in one if unit in other]
    differences = {unit: _gap(one[unit], other[unit], levels) for unit in units}
    kept = {unit: gap for unit, gap in differences.items() if gap is not None}
    if not kept:
        return None
    index = pd.MultiIndex.from_tuples(list(kept), names=list(UNIT))
    series = pd.Series(list(kept.values()), index=index, dtype=float)
    return _compared(series, baseline, challenger, metric, f"equal {matched}", len(units), resamples, seed)


def compare_stopped(
    frame: pd.DataFrame,
    baseline: str,
    challenger: str,
    metric: str,
    matched: str,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison | None:
    """The challenger at the last common step against a baseline that was stopped earlier: at the step where its mean of
    `matched` (identity) is nearest to the challenger's. None where that is the last step, or no pair was measured.

    Stopping earlier costs nothing, so a challenger that is no better than this has moved along the baseline's curve.
    """
    sides = _sides(frame, baseline, challenger)
    last = max(common_steps(frame, baseline, challenger), default=None)
    if last is None:
        return None
    ends = per_unit(sides[1][sides[1]["step"] == last], [matched])
    away = {}
    for step, rows in sides[0][sides[0]["step"] <= last].groupby("step", sort=True):
        both = pd.concat([per_unit(rows, [matched]), ends], axis=1, join="inner")
        if len(both):
            away[int(step)] = abs(float(per_concept(both.iloc[:, 0] - both.iloc[:, 1]).mean()))
    stop = min(away, key=lambda step: away[step], default=last)
    if stop == last:
        return None
    stopped = sides[0][sides[0]["step"] == stop].assign(step=last)
    one = compare_at_step(pd.concat([stopped, sides[1]]), baseline, challenger, metric, last, resamples, seed)
    return one and replace(one, at=f"{STOPPED}{stop}")


def common_steps(frame: pd.DataFrame, baseline: str, challenger: str) -> list[int]:
    """The training steps at which both were measured."""
    one, other = (set(rows["step"]) for rows in _sides(frame, baseline, challenger))
    return sorted(int(step) for step in one & other)


def end_step(frame: pd.DataFrame, baseline: str, challenger: str, axes: tuple[str, str]) -> int | None:
    """The step that stands for the end of training: of the common steps the last at which most pairs were measured on
    both axes. A step before any training stands for it only where there is no other."""
    steps = common_steps(frame, baseline, challenger)
    sides = _sides(frame, baseline, challenger)

    def shared(step: int, axis: str) -> int:
        one, other = (per_unit(rows[rows["step"] == step], [axis]).index for rows in sides)
        return len(one.intersection(other))

    kept = [step for step in steps if step > 0] or steps
    return _fullest({step: [shared(step, axis) for axis in axes] for step in kept})


def at_the_end(comparisons: Iterable[Comparison], axes: tuple[str, str]) -> dict[str, Comparison]:
    """Per metric the comparison at the end of training (see `end_step`), all of them at one step."""
    pairs: dict[int, dict[str, int]] = {}
    by_step = [(one.step, one) for one in comparisons if one.step is not None]
    for step, one in by_step:
        pairs.setdefault(step, {})[one.metric] = one.pairs
    end = _fullest({step: [found.get(axis, 0) for axis in axes] for step, found in pairs.items()})
    return {one.metric: one for step, one in by_step if step == end}


def _fullest(pairs: Mapping[int, Sequence[int]]) -> int | None:
    """The last of the steps with most pairs on every axis, and of these on the last axis."""
    return max(pairs, key=lambda step: (min(pairs[step]), pairs[step][-1], step), default=None)


def value_at(path: Floats, level: float) -> float | None:
    """Where a path `[steps 2]` passes x = `level`: the mean of its y there, None where it does not reach it."""
    passed = [y for x, y in path if x == level]  # a vertex ends one segment and begins the next: it is passed once
    for (x0, y0), (x1, y1) in itertools.pairwise(path):
        if min(x0, x1) < level < max(x0, x1):
            passed.append(y0 + (level - x0) / (x1 - x0) * (y1 - y0))
    return float(np.mean(passed)) if passed else None


def _gap(one: Floats, other: Floats, levels: int) -> float | None:
    low = max(one[:, 0].min(), other[:, 0].min())
    high = min(one[:, 0].max(), other[:, 0].max())
    if low > high:
        return None
    gaps = []
    for level in np.linspace(low, high, levels):
        below, above = value_at(one, float(level)), value_at(other, float(level))
        if below is not None and above is not None:
            gaps.append(above - below)
    return float(np.mean(gaps)) if gaps else None


def _paths(rows: pd.DataFrame, matched: str, metric: str) -> dict[tuple[object, ...], Floats]:
    measured = rows.dropna(subset=[matched, metric])
    means = measured.groupby([*UNIT, "step"], sort=True)[[matched, metric]].mean().reset_index("step")
    return {unit: path[[matched, metric]].to_numpy(dtype=float) for unit, path in means.groupby(list(UNIT), sort=True)}


def _sides(frame: pd.DataFrame, *names: str) -> list[pd.DataFrame]:
    rows = at_usual_knobs(frame)
    known = sorted(rows["series"].unique())
    for name in names:
        if name not in known and name in set(frame["series"]):
            usual = ", ".join(f"{knob} {value}" for knob, value in usual_knobs(frame))
            raise UserError(
                f"'{name}' was drawn with other settings only; a comparison takes those most pictures share: {usual}"
            )
        if name not in known:
            raise UserError(f"no results of '{name}' to compare{nearest(name, known)}")
    return [rows[rows["series"] == name] for name in names]


def _compared(
    differences: pd.Series,
    baseline: str,
    challenger: str,
    metric: str,
    at: str,
    possible: int,
    resamples: int,
    seed: int,
) -> Comparison:
    (interval,) = intervals_over(differences.to_frame(), resamples, seed)
    concepts = per_concept(differences).to_numpy(dtype=float)
    return Comparison(
        baseline,
        challenger,
        metric,
        at,
        interval,
        len(differences),
        possible,
        sign_flip_p(concepts),
        p_floor(len(concepts)),
        wilcoxon_p(differences.to_numpy(dtype=float)),
    )


def per_concept(values: pd.Series) -> pd.Series:
    """Means per concept of values per unit, taken as those of an interval are: over seeds, then over prompts."""
    return values.groupby(level=list(UNIT[:4])).mean().groupby(level=list(UNIT[:3])).mean()


def p_floor(concepts: int) -> float:
    """Below which the sign-flip test of so many concepts cannot fall."""
    least = 2.0 ** (1 - concepts) if concepts <= EXACT_CONCEPTS else 2 / (DRAWN_FLIPS + 1)
    return min(1.0, least)


def sign_flip_p(differences: Sequence[float] | Floats) -> float | None:
    """Two-sided p of a mean difference if every sign were as likely flipped; exact for few values, None for one."""
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    if not values.any():
        return 1.0
    resamples = np.inf if len(values) <= EXACT_CONCEPTS else DRAWN_FLIPS
    test = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0)
    )
    return finite(float(test.pvalue))


def wilcoxon_p(differences: Sequence[float] | Floats) -> float | None:
    """Two-sided p of Wilcoxon's signed-rank test; None for fewer than two values, 1 where all are zero."""
    from scipy import stats

    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return None
    return finite(float(stats.wilcoxon(values).pvalue)) if values.any() else 1.0
