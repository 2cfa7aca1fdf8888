"""Figures over training: metrics against exposure, and what the losses did to the gradient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from palp_lab.study.directions import label_of
from palp_lab.study.figure import legend_columns, literal, new_figure
from palp_lab.study.intervals import intervals_of
from palp_lab.study.observations import at_usual_knobs, metric_names
from palp_lab.study.palette import MUTED, styles, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plane
    from matplotlib.figure import Figure

Log = Mapping[str, Sequence[float | None]]
Dash = str | tuple[int, tuple[int, ...]]
DASHES: tuple[Dash, ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (9, 3)))
HANDLE = 5.0
"""Letters that a legend's line is long: dashes show (ours)."""


def progress_metrics(frame: pd.DataFrame, axes: tuple[str, str]) -> list[str]:
    """What a study is watched by as training goes on: its `axes` (x, y), and the elements found between."""
    x, y = axes
    return list(dict.fromkeys([y, *(["elements"] if "elements" in metric_names(frame) else []), x]))


def exposure_figure(frame: pd.DataFrame, metrics: Sequence[str], resamples: int = 500, seed: int = 0) -> Figure | None:
    """One plane per metric, a line per series over training steps with its 95 % band. None where no series was measured
    at two steps: there is nothing to go along.

    Series that differ in an axis only ("ti_db · shots 1", "ti_db · shots 3") share the method's colour, not the dashes;
    where a method has more of them than there are dashes, every series looks as it does on the front.
    """
    rows = at_usual_knobs(frame)
    if rows.groupby("series")["step"].nunique().max() < 2:
        return None
    names = sorted(rows["series"].unique())
    methods = Counter(name.split(" · ")[0] for name in names)
    crowded = max(methods.values()) > len(DASHES)
    looks = styles(names if crowded else methods)
    figure, planes = new_figure(4.6 * len(metrics), 3.7, len(metrics))
    for plane, metric in zip(planes, metrics, strict=True):
        for name in names:
            method = name.split(" · ")[0]
            siblings = [other for other in names if other.split(" · ")[0] == method]
            look, dash = looks[name if crowded else method], "-" if crowded else DASHES[siblings.index(name)]
            _draw_line(
                plane, rows[rows["series"] == name], metric, words(name), look.colour, look.mark, dash, resamples, seed
            )
        plane.set_title(literal(label_of(metric)), loc="left", fontsize=12, weight="bold")
        _stay_below_one(plane, rows[metric])
        _label_steps(plane)
    handles, labels = planes[0].get_legend_handles_labels()
    columns = legend_columns(list(map(str, labels)), figure.get_figwidth(), most=5, handle=HANDLE)
    figure.legend(
        handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=10, handlelength=HANDLE
    )
    return figure


def _stay_below_one(plane: Plane, values: pd.Series) -> None:
    """An axis of shares and cosines does not go on beyond 1 where nothing lies there."""
    low, high = plane.get_ylim()
    if high > 1 and values.max() <= 1 and values.min() >= 0:
        plane.set_ylim(low, 1 + 0.03 * (1 - low))


def training_figure(logs: Mapping[str, Sequence[Log]]) -> Figure | None:
    """Losses, gradient norms and the cosine between the losses' gradients, from the logs of each method's runs.

    Thin lines are runs, thick lines their running mean. Columns are told by their names (see `kind_of`). None where no
    log has any of them.
    """
    kinds = [kind for kind in KINDS if any(_columns(log, kind) for runs in logs.values() for log in runs)]
    if not kinds:
        return None
    looks = styles(logs)
    columns = {
        kind: {method: sorted({name for log in runs for name in _columns(log, kind)}) for method, runs in logs.items()}
        for kind in kinds
    }
    # One loss has the same dashes whoever trains with it and in every plane, and a pair of losses has its own.
    every = dict.fromkeys(_short(name) for own in columns.values() for name in sorted(set().union(*own.values())))
    dashes = {short: DASHES[i % len(DASHES)] for i, short in enumerate(every)}
    figure, planes = new_figure(4.6 * len(kinds), 4.2, len(kinds))
    for plane, kind in zip(planes, kinds, strict=True):
        title, logarithmic = KINDS[kind]
        for method, runs in logs.items():
            for column in columns[kind][method]:
                short = _short(column)
                _draw_runs(plane, runs, column, looks[method].colour, dashes[short], f"{words(method)}: {short}")
        plane.set_title(title, loc="left", fontsize=12, weight="bold")
        _label_steps(plane)
        if logarithmic:
            plane.set_yscale("log")
        else:
            plane.axhline(0, color=MUTED, lw=0.8)
    _add_legend(figure, {words(method): looks[method].colour for method in logs}, dashes)
    return figure


def _add_legend(figure: Figure, colours: Mapping[str, str], dashes: Mapping[str, Dash]) -> None:
    """Methods by colour, then losses, and pairs of them, by dashes, below all planes."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, lw=5, label=literal(name)) for name, colour in colours.items()]
    handles += [Line2D([], [], color=MUTED, ls=dash, lw=2, label=literal(name)) for name, dash in dashes.items()]
    names = [str(handle.get_label()) for handle in handles]
    columns = legend_columns(names, figure.get_figwidth(), most=6, handle=HANDLE)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=10, handlelength=HANDLE
    )


def _label_steps(plane: Plane) -> None:
    """Training steps along the lower edge; there are no halves of one."""
    from matplotlib.ticker import MaxNLocator

    plane.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True))
    plane.set_xlabel("training steps")


KINDS = {
    "loss": ("losses, unweighted", True),
    "at_prediction": ("gradient at the prediction", True),
    "gradient": ("weighted gradient at the parameters", True),
    "cosine": ("cosine between gradients", False),
}
"""Plane -> its title, and whether its axis is logarithmic."""


def kind_of(column: str) -> str | None:
    """Which plane a column of a training log belongs to: <loss>/value, <loss>/at_prediction, <loss>/gradient (norms),
    cosine/<loss>~<loss>; other columns are not drawn."""
    first, _, last = column.partition("/")
    if first == "cosine":
        return "cosine"
    return {"value": "loss", "at_prediction": "at_prediction", "gradient": "gradient"}.get(last)


def _columns(log: Log, kind: str) -> list[str]:
    return [name for name, values in log.items() if kind_of(name) == kind and any(v is not None for v in values)]


def _short(column: str) -> str:
    kind = kind_of(column)
    name = column.removeprefix("cosine/") if kind == "cosine" else column.partition("/")[0]
    return name.replace("_", " ").replace("~", " and ")


def _draw_runs(plane: Plane, runs: Sequence[Log], column: str, colour: str, dash: Dash, label: str) -> None:
    lines = []
    for log in runs:
        pairs = [(s, v) for s, v in zip(log.get("step", ()), log.get(column, ()), strict=False) if None not in (s, v)]
        if pairs:
            lines.append(pd.Series(dict(pairs), dtype=float).sort_index())
    for line in lines[:12]:
        plane.plot(line.index, line, color=colour, lw=0.6, alpha=0.25)
    if lines:
        mean = pd.concat(lines, axis=1).mean(axis=1).sort_index()
        smooth = mean.rolling(max(1, len(mean) // 20), min_periods=1, center=True).mean()
        plane.plot(smooth.index, smooth, color=colour, ls=dash, lw=2, label=literal(label))


def _draw_line(
    plane: Plane,
    rows: pd.DataFrame,
    metric: str,
    label: str,
    colour: str,
    mark: str,
    dash: Dash,
    resamples: int,
    seed: int,
) -> None:
    steps, means, lows, highs = [], [], [], []
    for step, at_step in rows.groupby("step", sort=True):
        found = intervals_of(at_step, [metric], resamples, seed)
        if found is not None:
            steps.append(float(str(step)))
            means.append(found[0].mean)
            lows.append(np.nan if found[0].low is None else found[0].low)
            highs.append(np.nan if found[0].high is None else found[0].high)
    if steps:
        plane.fill_between(steps, lows, highs, color=colour, alpha=0.13, lw=0)
        plane.plot(steps, means, color=colour, ls=dash, marker=mark, ms=6, mec="white", lw=2, label=literal(label))
