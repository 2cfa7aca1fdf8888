"""What the tables hold: the final step of each method, per prompt, own target against other prompts, bounds, cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from palp_lab.study.curves import Curve
from palp_lab.study.directions import higher_is_better, known_metrics, label_of
from palp_lab.study.footing import NO_BEST, is_uneven, last_steps
from palp_lab.study.intervals import Interval, intervals_of
from palp_lab.study.observations import at_usual_knobs, metric_names, scoped, series_names
from palp_lab.study.palette import BOUND_WORDS, words
from palp_lab.study.result import Result
from palp_lab.study.statistics import Comparison, compare_at_equal, compare_at_step, end_step
from palp_lab.study.table import Cell, Table

CLAIM = ("ti_db", "palp")
"""What is compared where nothing else is asked for: PALP against its own baseline (arXiv 2401.06105, Table 2)."""


def claim_of(curves: Collection[str]) -> tuple[str, str] | None:
    """`CLAIM` among these curves, or the only two of its methods that have one and the same part or setting in their
    names."""
    if set(CLAIM) <= set(curves):
        return CLAIM
    ends = [name.removeprefix(CLAIM[0]) for name in curves if name.startswith(f"{CLAIM[0]} · ")]
    pairs = [(CLAIM[0] + end, CLAIM[1] + end) for end in ends if CLAIM[1] + end in curves]
    return pairs[0] if len(pairs) == 1 else None


MOST_METHODS = 8
"""With more methods the table of all pairs would be longer than anybody reads (ours)."""


def methods_table(
    frame: pd.DataFrame, axes: Sequence[str], metrics: Sequence[str], scope: str, resamples: int, seed: int
) -> Table:
    """One row per series at its last step, at the usual knobs. A column is ranked only over the same pairs. What is
    measured on prompts without the subject (drift), which no method is tuned for, is shown in every scope."""
    rows, which = [], _SCOPE_WORDS[scope if frame["own_target"].any() else "all"]
    named = last_steps(scoped(frame, scope))
    every = [last for _, last in named]
    apart = [_without_subject(frame, series, last) for series, last in named]
    measured = {metric: any(last[metric].notna().any() for last in every) for metric in metrics}
    rows_of = {metric: every if measured[metric] else apart for metric in metrics}
    outside = [m for m in metrics if not measured[m] and any(rows[m].notna().any() for rows in apart)]
    uneven = is_uneven(every, axes)
    for i, (series, last) in enumerate(named):
        cells = {metric: _cells(rows_of[metric][i], [metric], resamples, seed)[0] for metric in metrics}
        units = _units(cell for metric, cell in cells.items() if measured[metric])
        rows.append((words(series), int(last["step"].max()), units, *cells.values()))
    return Table(
        f"methods_{scope}",
        f"{which}, each method at its last step. Means over concept × prompt × seed with 95 % intervals."
        + (f" On prompts without the subject: {', '.join(map(label_of, outside))}." if outside else "")
        + (f" {NO_BEST}" if uneven else ""),
        ("method", "steps", "n", *map(label_of, metrics)),
        tuple(rows),
        (None, None, None, *(None if uneven or is_uneven(rows_of[one], [one]) else _better(one) for one in metrics)),
    )


def prompts_table(frame: pd.DataFrame, metric: str, resamples: int, seed: int) -> Table:
    """One row per prompt the metric was measured on, one column per series, at the last step; own-target rows where a
    method has a target."""
    own = scoped(frame, "own")
    columns = [series for series, _ in last_steps(own)]
    by_series = dict(last_steps(own))
    rows = []
    kinds = own.groupby("prompt")["prompt_group"].first()  # the first that is told: other tools' results tell none
    for group, prompt in sorted(("" if pd.isna(group) else str(group), str(prompt)) for prompt, group in kinds.items()):
        cells = []
        for series in columns:
            last = by_series[series]
            cells += _cells(last[last["prompt"] == prompt], [metric], resamples, seed)
        if any(cell is not None for cell in cells):
            rows.append((prompt, group, *cells))
    return Table(
        f"prompts_{metric}",
        f"{label_of(metric).capitalize()} per prompt at the last step"
        + ("; methods with a target were tuned for it." if frame["own_target"].any() else "."),
        ("prompt", "kind", *map(words, columns)),
        tuple(rows),
        (None, None, *([None] * len(columns))),
    )


def transfer_table(frame: pd.DataFrame, metrics: Sequence[str], resamples: int, seed: int) -> Table | None:
    """Own target against other prompts: how far an aligned model generalises. None where no method has a target."""
    if not frame["own_target"].any():
        return None
    rows = []
    for scope in ("own", "other"):
        for series, last in last_steps(scoped(frame, scope)):
            label = {"own": "the prompt tuned for", "other": "other prompts"}[scope]
            if last["target"].isna().all():
                label = {"own": "the same prompts (no target)", "other": "all prompts (no target)"}[scope]
            cells = _cells(last, metrics, resamples, seed)
            rows.append((words(series), label, _units(cells), *cells))
    return Table(
        "transfer",
        "Own target against other prompts at the last step: how far tuning for one prompt carries.",
        ("method", "prompts", "n", *map(label_of, metrics)),
        tuple(sorted(rows, key=lambda row: str(row[0]))),
        (None,) * (3 + len(metrics)),
    )


def bounds_table(bounds: pd.DataFrame, metrics: Sequence[str], resamples: int, seed: int) -> Table | None:
    """One row per bound, over the concepts and prompts of the study."""
    if bounds.empty:
        return None
    kept = [metric for metric in metrics if metric in bounds.columns]
    rows = []
    filled = bounds.assign(prompt=bounds["prompt"].fillna(""), train_seed=0)
    for name in [name for name in BOUND_WORDS if name in set(bounds["name"])]:
        group = filled[filled["name"] == name]
        cells = _cells(group, kept, resamples, seed)
        rows.append((BOUND_WORDS[name], _units(cells), *cells))
    return Table(
        "bounds",
        "What trivial rivals reach under the same protocol.",
        ("bound", "n", *map(label_of, kept)),
        tuple(rows),
        (None,) * (2 + len(kept)),
    )


def cost_table(
    results: Sequence[Result], curves: Sequence[Curve], series: Sequence[str] = (), ranked: bool = True
) -> Table:
    """What a training took per curve (mean over its cells), and the hypervolume it bought, `ranked` or not."""
    names = series_names(results, series)
    volumes = {curve.series: curve.volume for curve in curves if curve.knob is None}
    costs = pd.DataFrame(
        [
            {
                "series": names[result.run],
                "minutes": _scaled(result.cost.seconds, 60),
                "memory": _scaled(result.cost.peak_memory, 2**30),
                "parameters": result.cost.trainable_parameters,
                "adapter": _scaled(result.cost.adapter_bytes, 2**10),
            }
            for result in results
        ]
    )
    rows: list[tuple[Cell, ...]] = []
    for name, cells in costs.groupby("series", sort=True):
        means = cells.drop(columns="series").astype(float).mean()
        shown = [None if np.isnan(value) else float(value) for value in means]
        shown[2] = None if shown[2] is None else round(shown[2])
        rows.append((words(str(name)), len(cells), *shown, volumes.get(str(name))))
    return Table(
        "cost",
        "Cost of one training (mean over cells) and the hypervolume of the method's curve.",
        ("method", "cells", "minutes", "peak memory (GiB)", "trained parameters", "adapter (KiB)", "hypervolume"),
        tuple(rows),
        (None, None, None, None, None, None, True if ranked else None),
    )


def comparison_table(comparisons: Sequence[Comparison], name: str = "comparison") -> Table:
    """Paired differences of one challenger and one baseline."""
    rows = tuple(
        (
            label_of(one.metric),
            one.where,
            one.difference,
            f"{one.pairs} of {one.possible}",
            one.difference.concepts,
            one.p_concepts,
            one.p_pairs,
        )
        for one in comparisons
    )
    who = (
        f"{words(comparisons[0].challenger)} minus {words(comparisons[0].baseline)}, paired" if comparisons else "Pairs"
    )
    return Table(
        name,
        f"{who} over concept × prompt × seed, with 95 % intervals. p (concepts): exact sign-flip test on the means per "
        "concept. p (pairs): Wilcoxon on all pairs, which takes pairs of one concept for independent.",
        ("metric", "at", "difference", "pairs", "concepts", "p (concepts)", "p (pairs)"),
        rows,
        (None,) * 7,
    )


def pairs_table(frame: pd.DataFrame, x: str, y: str, resamples: int, seed: int) -> Table | None:
    """Every method against every other: `y` and `x` at the end of training (see `end_step`), `y` at equal `x`. None
    for fewer than three methods, and for more than `MOST_METHODS`."""
    names = sorted(set(at_usual_knobs(frame)["series"]))
    if not 3 <= len(names) <= MOST_METHODS:
        return None
    rows: list[tuple[Cell, ...]] = []
    first, last = claim_of(names) or CLAIM
    ranked = sorted(names, key=lambda name: (name == last, name != first, name))
    for baseline, challenger in combinations(ranked, 2):
        pair, how = (frame, baseline, challenger), (resamples, seed)
        end = end_step(*pair, (x, y))
        above, across = (None if end is None else compare_at_step(*pair, metric, end, *how) for metric in (y, x))
        level = compare_at_equal(*pair, y, x, *how)
        if above is None and level is None:
            continue
        who = above or level
        assert who is not None
        rows.append(
            (
                f"{words(challenger)} minus {words(baseline)}",
                *(None if one is None else one.difference for one in (above, across)),
                None if above is None else above.p_concepts,
                None if level is None else level.difference,
                None if level is None else level.p_concepts,
                *(None if one is None else f"{one.pairs} of {one.possible}" for one in (above, level)),
                who.difference.concepts,
                None if above is None else end,
            )
        )
    if len(rows) < 2:
        return None
    return Table(
        "pairs",
        "Every method against every other, paired over concept × prompt × seed, with 95 % intervals: "
        f"{label_of(y)} and {label_of(x)} at the last step of most common pairs, then {label_of(y)} at equal "
        f"{label_of(x)}. "
        f"p: exact sign-flip test on the means per concept, not corrected for the {len(rows)} pairs.",
        (
            "methods",
            f"difference in {label_of(y)}",
            f"difference in {label_of(x)}",
            f"p ({label_of(y)})",
            f"difference at equal {label_of(x)}",
            f"p (equal {label_of(x)})",
            "pairs",
            f"pairs (equal {label_of(x)})",
            "concepts",
            "step",
        ),
        tuple(rows),
        (None,) * 10,
    )


def shown_metrics(frame: pd.DataFrame) -> list[str]:
    """Measured metrics in the registry's order, unregistered ones last."""
    measured = metric_names(frame)
    order = {name: i for i, name in enumerate(known_metrics())}
    return sorted(measured, key=lambda name: (order.get(name, len(order)), name))


_SCOPE_WORDS = {
    "own": "The prompts that were tuned for",
    "other": "Prompts other than the one tuned for",
    "all": "All prompts",
}


def _without_subject(frame: pd.DataFrame, series: str, last: pd.DataFrame) -> pd.DataFrame:
    """The rows of a series for prompts without the subject, of the same step and knobs as its `last` ones."""
    alike = (frame["series"] == series) & (frame["step"] == last["step"].max()) & frame["knobs"].isin(last["knobs"])
    return frame[alike & ~frame["prompt"].str.contains("{}", regex=False)]


def _cells(rows: pd.DataFrame, metrics: Sequence[str], resamples: int, seed: int) -> list[Interval | None]:
    found = [intervals_of(rows, [metric], resamples, seed) if metric in rows else None for metric in metrics]
    return [one[0] if one else None for one in found]


def _units(cells: Iterable[Interval | None]) -> int:
    """The most units that any interval of a row rests on: drift's prompts, say, are no units of text alignment."""
    return max((cell.n for cell in cells if cell is not None), default=0)


def _better(metric: str) -> bool | None:
    return higher_is_better(metric) if metric in known_metrics() else None


def _scaled(value: float | None, unit: float) -> float | None:
    return None if value is None else value / unit
