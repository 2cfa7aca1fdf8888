"""The front as a picture: every method's curve over steps with intervals, the Pareto front, all bounds as anchors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from palp_lab.study.curves import Anchor, Curve
from palp_lab.study.directions import higher_is_better, label_of
from palp_lab.study.intervals import Interval
from palp_lab.study.labels import Label, place
from palp_lab.study.palette import BOUND_WORDS, FAINT, INK, MUTED, styles, words

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plane
    from matplotlib.figure import Figure

SQUEEZED = 0.25
"""Below this share of the plane the curves get a second plane of their own (ours)."""
LONGEST = 24
"""Letters of a name that is written beside its curve; a longer one, of swept knobs, is in the legend alone (ours)."""
CROWDED = 8
"""With more curves than this marks have no numbers of steps, and names of settings are in the legend alone (ours)."""
WIDTH, HEIGHT, DPI = 10.0, 6.6, 160
"""Inches and dots per inch (ours): 1600 pixels wide, readable when a README shows it at half that."""


def new_figure(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Plane]]:
    """An empty figure on the file-only canvas, in the house's look; no global state of matplotlib is touched."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: dict[str, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 11,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#eef0f2",
        "axes.axisbelow": True,
    }
    with rc_context(look):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained", facecolor="white")
        FigureCanvasAgg(figure)
        planes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
    return figure, planes


def literal(text: str) -> str:
    """A text of the user's as matplotlib draws it letter for letter: `$` begins no formula, and a label that begins
    with `_` is not hidden from the legend (a space of no width goes before it)."""
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same numbers."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def front_figure(curves: Sequence[Curve], bounds: Sequence[Anchor], axes: tuple[str, str], title: str = "") -> Figure:
    """The image axis against the text axis. Marks are means over concept × prompt × seed, bars are 95 % intervals.

    Where the bounds lie so far off that the curves would be a knot, a second plane shows the curves alone.
    """
    squeezed = is_squeezed(curves, bounds)
    figure, planes = new_figure(WIDTH * (1.45 if squeezed else 1.0), HEIGHT, 2 if squeezed else 1)
    written = [_draw_plane(planes[0], curves, bounds, axes, steps=not squeezed)]
    if squeezed:
        written.append(_draw_plane(planes[1], curves, (), axes, steps=True))
        planes[0].set_title("with the bounds", loc="left", fontsize=11, color=MUTED)
        planes[1].set_title("the curves alone", loc="left", fontsize=11, color=MUTED)
    if title:
        figure.suptitle(literal(title), x=0.01, ha="left", fontsize=14, weight="bold")
    if curves:
        handles, names = planes[0].get_legend_handles_labels()
        columns = legend_columns(names, figure.get_figwidth())
        figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize=10)
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for plane, (labels, obstacles) in zip(planes, written, strict=True):
        place(plane, labels, obstacles)
    return figure


def is_squeezed(curves: Sequence[Curve], bounds: Sequence[Anchor]) -> bool:
    """Whether the bounds lie so far off that the curves are to be shown once more alone."""
    return _share_of_plane(curves, bounds) < SQUEEZED


def legend_columns(names: Sequence[str], width: float, most: int = 4, handle: float = 2.0) -> int:
    """How many columns of these names fit side by side into a figure of `width` inches, `most` at most, each beside a
    line that is `handle` letters long."""
    widest = max(map(len, names), default=0) * 0.085 + 0.37 + 0.14 * handle  # a letter of 10 points; the space around
    return max(1, min(most, len(names), int(width / widest)))


def _draw_plane(
    plane: Plane, curves: Sequence[Curve], bounds: Sequence[Anchor], axes: tuple[str, str], steps: bool
) -> tuple[list[Label], list[tuple[float, float]]]:
    """All but the labels, which need the final layout; returns them with the places to keep free."""
    looks, crowded = styles(curve.series for curve in curves), len(curves) > CROWDED
    labels, obstacles = _draw_bounds(plane, bounds)
    _draw_front(plane, curves, axes)
    for curve in curves:
        look, swept = looks[curve.series], curve.knob is not None
        x, y = _means(curve)
        for point in curve.points:
            _draw_bars(plane, point.x, point.y, look.colour, 0.18 if swept or crowded else 0.4)
            obstacles += _ends(point.x, point.y)
        name = literal(words(curve.series))
        legend = (f"{name}, {literal(str(curve.knob))} swept" if swept else name) + f" (n = {_count(curve)})"
        plane.plot(x, y, color=look.colour, lw=1.2 if swept else 2.2, ls=":" if swept else "-", zorder=3, label=legend,
                   marker=look.mark, ms=4 if swept else 7.5, mec="white", mew=0.9)  # fmt: skip
        obstacles += along(x, y)
        for i, point in enumerate(curve.points):
            if not steps:
                continue
            if i == len(x) - 1 and not swept and len(name) <= LONGEST and not (crowded and " · " in name):
                bold = {"fontsize": 10.5, "color": look.colour, "weight": "bold"}
                labels.insert(0, Label(name if crowded else f"{name}\n{point.label} steps", x[i], y[i], bold))
            elif not crowded:
                small = {"fontsize": 8.5, "color": look.colour}
                labels.append(Label(literal(point.label), x[i], y[i], small, optional=True))
    plane.set_xlabel(literal(axis_words(axes[0])), fontsize=12)
    plane.set_ylabel(literal(axis_words(axes[1])), fontsize=12)
    plane.margins(0.08)
    return labels, obstacles


def _share_of_plane(curves: Sequence[Curve], bounds: Sequence[Anchor]) -> float:
    """The share of the plane that the box around the curves takes once all bounds are in it; 1 where there is none."""
    marks = np.array([(p.x.mean, p.y.mean) for curve in curves for p in curve.points]).reshape(-1, 2)
    others = np.array([(a.x.mean, a.y.mean) for a in bounds if a.x is not None and a.y is not None]).reshape(-1, 2)
    everything = np.ptp(np.concatenate([marks, others]), axis=0) if len(marks) else np.ones(2)
    return float(np.prod(np.ptp(marks, axis=0) / everything)) if len(marks) > 1 and everything.all() else 1.0


def axis_words(metric: str) -> str:
    """A metric's name and which way is better."""
    arrow = {True: "  (higher is better →)", False: "  (lower is better)", None: ""}[higher_is_better(metric)]
    return f"{label_of(metric)}{arrow}"


def _draw_bounds(plane: Plane, bounds: Sequence[Anchor]) -> tuple[list[Label], list[tuple[float, float]]]:
    labels: list[Label] = []
    obstacles: list[tuple[float, float]] = []
    for anchor in bounds:
        name = BOUND_WORDS.get(anchor.name, anchor.name)
        if anchor.x is not None and anchor.y is not None:
            _draw_bars(plane, anchor.x, anchor.y, MUTED, 0.35)
            plane.plot(
                anchor.x.mean, anchor.y.mean, marker="*", ms=14, color="#8a9299", mec="white", zorder=4, ls="none"
            )
            obstacles.append((anchor.x.mean, anchor.y.mean))
            labels.append(
                Label(name, anchor.x.mean, anchor.y.mean, {"fontsize": 10, "color": MUTED, "style": "italic"})
            )
        elif anchor.x is not None:
            plane.axvline(anchor.x.mean, color=MUTED, lw=1, ls="--", zorder=1)
            plane.text(anchor.x.mean, 0.02, f" {name}", transform=plane.get_xaxis_transform(), rotation=90,
                       va="bottom", ha="right", color=MUTED, fontsize=9, style="italic")  # fmt: skip
        elif anchor.y is not None:
            plane.axhline(anchor.y.mean, color=MUTED, lw=1, ls="--", zorder=1)
            plane.text(0.99, anchor.y.mean, f"{name} ", transform=plane.get_yaxis_transform(),
                       va="bottom", ha="right", color=MUTED, fontsize=9, style="italic")  # fmt: skip
    return labels, obstacles


def _draw_front(plane: Plane, curves: Sequence[Curve], axes: tuple[str, str]) -> None:
    """The attainment line of the non-dominated marks: corners, because nothing between two marks was measured."""
    points = sorted({(p.x.mean, p.y.mean) for curve in curves for p in curve.points if p.on_front})
    if len(points) < 2:
        return
    x, y = (np.array(values) for values in zip(*points, strict=True))
    where: Literal["pre", "post"] = "pre" if higher_is_better(axes[0]) else "post"
    plane.step(x, y, where=where, color=INK, lw=7, alpha=0.10, zorder=2, label="Pareto front", solid_joinstyle="round")


def _draw_bars(plane: Plane, x: Interval, y: Interval, colour: str, alpha: float) -> None:
    for interval, other, horizontal in ((x, y.mean, True), (y, x.mean, False)):
        if interval.low is not None and interval.high is not None:
            ends = [interval.low, interval.high]
            plane.plot(*((ends, [other] * 2) if horizontal else ([other] * 2, ends)), color=colour, alpha=alpha, lw=1.1)


def _ends(x: Interval, y: Interval) -> list[tuple[float, float]]:
    """The ends of the bars: places that labels should leave free."""
    ends = [(end, y.mean) for end in (x.low, x.high) if end is not None]
    return ends + [(x.mean, end) for end in (y.low, y.high) if end is not None]


def _means(curve: Curve) -> tuple[list[float], list[float]]:
    return [point.x.mean for point in curve.points], [point.y.mean for point in curve.points]


def along(x: Sequence[float], y: Sequence[float]) -> list[tuple[float, float]]:
    """Points along a polyline, so that labels keep off the line and not only off its marks."""
    if len(x) < 2:
        return list(zip(x, y, strict=True))
    at = np.linspace(0, len(x) - 1, 4 * (len(x) - 1) + 1)
    places = np.arange(len(x))
    return list(zip(np.interp(at, places, x).tolist(), np.interp(at, places, y).tolist(), strict=True))


def _count(curve: Curve) -> str:
    counts = sorted({point.x.n for point in curve.points})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
