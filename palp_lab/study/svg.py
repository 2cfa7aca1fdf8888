"""The front as an inline SVG for the page: the same numbers as front.png, with a tooltip on every mark.

Colours of axes and words come from the page's CSS, so the drawing follows light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from html import escape
from itertools import pairwise

import numpy as np

from palp_lab.study.curves import Anchor, Curve
from palp_lab.study.directions import higher_is_better, label_of
from palp_lab.study.figure import along, axis_words
from palp_lab.study.intervals import Interval
from palp_lab.study.palette import BOUND_WORDS, Style, styles, words
from palp_lab.study.rendering import number, range_of
from palp_lab.study.scale import Scale, scale_over

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 560, 72, 20, 18, 56


def front_svg(curves: Sequence[Curve], bounds: Sequence[Anchor], axes: tuple[str, str]) -> str:
    """The drawing. Marks carry their tooltip in `data-tip` and in `aria-label`, so mouse, touch, keyboard and screen
    readers get the same words; series carry `data-series` for the legend's buttons."""
    drawn = [anchor for anchor in bounds if anchor.x is not None and anchor.y is not None]
    x = scale_over(
        [_spans(p.x) for c in curves for p in c.points] + [_spans(a.x) for a in drawn if a.x], LEFT, WIDTH - RIGHT
    )
    y = scale_over(
        [_spans(p.y) for c in curves for p in c.points] + [_spans(a.y) for a in drawn if a.y], HEIGHT - BOTTOM, TOP
    )
    looks = styles(curve.series for curve in curves)
    parts = [
        f'<svg class="front" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" aria-label="{escape(axis_words(axes[0]))} '
        f'against {escape(axis_words(axes[1]))}, a curve per method over training steps">',
        *_axes(x, y, axes),
        _pareto(curves, x, y, axes),
    ]
    busy = [
        place
        for curve in curves
        for place in along([x(p.x.mean) for p in curve.points], [y(p.y.mean) for p in curve.points])
    ]
    busy += [(x(a.x.mean), y(a.y.mean)) for a in drawn if a.x and a.y]
    parts += [_anchor(anchor, x, y, busy, axes) for anchor in drawn]
    parts += [_curve(curve, looks[curve.series], x, y, axes) for curve in curves]
    return "\n".join([*parts, "</svg>"])


def whisker_svg(interval: Interval, reach: float) -> str:
    """A difference with its interval on a line around zero, `reach` to each side: for the tiles of the headline."""
    scale = Scale(-reach, reach, 4, 196)
    low = interval.mean if interval.low is None else interval.low
    high = interval.mean if interval.high is None else interval.high
    return (
        f'<svg class="whisker" viewBox="0 0 200 22" aria-hidden="true">'
        f'<line class="zero" x1="100" x2="100" y1="1" y2="21"/>'
        f'<line class="base" x1="4" x2="196" y1="11" y2="11"/>'
        f'<line class="bar" x1="{scale(low):.1f}" x2="{scale(high):.1f}" y1="11" y2="11"/>'
        f'<circle cx="{scale(interval.mean):.1f}" cy="11" r="4.5"/></svg>'
    )


def mark_svg(mark: str, cx: float, cy: float, radius: float) -> str:
    """A mark as front.png draws it, by matplotlib's letter for it; all of them cover about as much as the circle."""
    if mark == "o":
        return f'<circle class="dot" cx="{cx:.1f}" cy="{cy:.1f}" r="{radius:g}"/>'
    corners = " ".join(f"{cx + a * radius:.1f},{cy - b * radius:.1f}" for a, b in _corners(mark))
    return f'<polygon class="dot" points="{corners}"/>'


@cache
def _corners(mark: str) -> tuple[tuple[float, float], ...]:
    """Of the mark with the area of a circle of radius 1."""
    from matplotlib.markers import MarkerStyle

    look = MarkerStyle(mark)
    (outline,) = look.get_path().transformed(look.get_transform()).to_polygons()
    corners = [(float(x), float(y)) for x, y in np.asarray(outline)[:-1]]
    area = abs(sum(a * d - b * c for (a, b), (c, d) in pairwise([*corners, corners[0]]))) / 2
    return tuple((x * math.sqrt(math.pi / area), y * math.sqrt(math.pi / area)) for x, y in corners)


def _axes(x: Scale, y: Scale, axes: tuple[str, str]) -> list[str]:
    parts = []
    floor = HEIGHT - BOTTOM
    for value in x.ticks():
        at = f"{x(value):.1f}"
        parts.append(f'<line class="grid" x1="{at}" x2="{at}" y1="{TOP}" y2="{floor}"/>')
        parts.append(f'<text class="tick" x="{at}" y="{floor + 20}" text-anchor="middle">{x.words(value)}</text>')
    for value in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 9}" y="{y(value) + 4:.1f}" text-anchor="end">{y.words(value)}</text>'
        )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        f"{escape(axis_words(axes[0]))}</text>"
    )
    parts.append(
        f'<text class="axis" transform="translate(17 {middle}) rotate(-90)" text-anchor="middle">'
        f"{escape(axis_words(axes[1]))}</text>"
    )
    return parts


def _anchor(anchor: Anchor, x: Scale, y: Scale, busy: list[tuple[float, float]], axes: tuple[str, str]) -> str:
    """A star and its name, written where the fewest marks and names are; the name's place becomes busy too."""
    assert anchor.x is not None and anchor.y is not None
    name = BOUND_WORDS.get(anchor.name, anchor.name)
    cx, cy = x(anchor.x.mean), y(anchor.y.mean)
    half = 3.4 * len(name)
    places = (
        (cx + 14, cy + 4, "start", cx + 14 + half),
        (cx - 14, cy + 4, "end", cx - 14 - half),
        (cx, cy - 15, "middle", cx),
        (cx, cy + 24, "middle", cx),
    )
    left, top, end, middle = min(places, key=lambda place: _crowd(place[3], place[1] - 4, half, busy))
    busy += [(middle + share * half, top - 4) for share in (-0.8, -0.4, 0, 0.4, 0.8)]
    tip = _tip(name, anchor.x, anchor.y, axes)
    star = " ".join(f"{cx + r * math.sin(a):.1f},{cy - r * math.cos(a):.1f}" for r, a in _STAR)
    return (
        f'<g class="bound" tabindex="0" role="img" aria-label="{tip}" data-tip="{tip}"><polygon points="{star}"/>'
        f'<text x="{left:.1f}" y="{top:.1f}" text-anchor="{end}">{escape(name)}</text></g>'
    )


def _crowd(middle: float, height: float, half: float, busy: Sequence[tuple[float, float]]) -> float:
    """How many busy places a name would cover, with leaving the plane as the worst of all."""
    inside = middle - half > LEFT and middle + half < WIDTH - RIGHT + 8
    return sum(abs(bx - middle) < half + 9 and abs(by - height) < 15 for bx, by in busy) + (0 if inside else 50)


def _curve(curve: Curve, look: Style, x: Scale, y: Scale, axes: tuple[str, str]) -> str:
    line = " ".join(f"{x(p.x.mean):.1f},{y(p.y.mean):.1f}" for p in curve.points)
    swept = ' class="swept"' if curve.knob else ""
    marks = []
    for i, point in enumerate(curve.points):
        cx, cy = x(point.x.mean), y(point.y.mean)
        what = f"{point.label} steps" if curve.knob is None else f"{curve.knob} {point.label}"
        tip = _tip(f"{words(curve.series)}, {what}", point.x, point.y, axes)
        bars = "".join(
            f'<line class="ci" x1="{a:.1f}" x2="{b:.1f}" y1="{c:.1f}" y2="{d:.1f}"/>'
            for a, b, c, d in (
                (x(_spans(point.x)[0]), x(_spans(point.x)[1]), cy, cy),
                (cx, cx, y(_spans(point.y)[0]), y(_spans(point.y)[1])),
            )
        )
        last = i == len(curve.points) - 1
        label = f'<text class="step" x="{cx:.1f}" y="{cy - 12:.1f}" text-anchor="middle">{escape(point.label)}</text>'
        marks.append(
            f'<g class="mark{" onfront" if point.on_front else ""}" tabindex="0" role="img" '
            f'aria-label="{tip}" data-tip="{tip}">'
            f"{bars}{mark_svg(look.mark, cx, cy, 4 if curve.knob else 7 if last else 5.5)}"
            f"{label if curve.knob is None else ''}</g>"
        )
    return (
        f'<g class="series" data-series="{escape(curve.name)}" style="--c:{look.colour}">'
        f'<polyline{swept} points="{line}"/>{"".join(marks)}</g>'
    )


def _pareto(curves: Sequence[Curve], x: Scale, y: Scale, axes: tuple[str, str]) -> str:
    points = sorted({(p.x.mean, p.y.mean) for curve in curves for p in curve.points if p.on_front})
    if len(points) < 2:
        return ""
    path = f"M{x(points[0][0]):.1f} {y(points[0][1]):.1f}"
    for px, py in points[1:]:
        corner = f"V{y(py):.1f}H{x(px):.1f}" if higher_is_better(axes[0]) else f"H{x(px):.1f}V{y(py):.1f}"
        path += corner
    return f'<path class="pareto" d="{path}"/>'


def _tip(title: str, x: Interval, y: Interval, axes: tuple[str, str]) -> str:
    both = zip(axes, (x, y), strict=True)
    said = " | ".join(f"{label_of(axis)} {number(one.mean)} {range_of(one)}".strip() for axis, one in both)
    units = f"n = {x.n}, {x.concepts} concept{'s' if x.concepts != 1 else ''}"
    return escape(f"{title} | {said} | {units}", quote=True)


def _spans(interval: Interval | None) -> tuple[float, float]:
    assert interval is not None
    low = interval.mean if interval.low is None else interval.low
    return low, interval.mean if interval.high is None else interval.high


_STAR = tuple((9.0 if i % 2 == 0 else 3.8, math.pi * i / 5) for i in range(10))
