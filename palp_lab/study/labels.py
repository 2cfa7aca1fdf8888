"""Labels that do not lie on each other: each is tried at places around its point, the freest wins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ANGLES = tuple(math.radians(angle) for angle in (60, 120, 0, 180, -60, -120, 90, -90, 30, 150, -30, -150))


@dataclass(frozen=True)
class Label:
    """Text at a point of the data, with matplotlib's text properties. An optional one is dropped where it would cover
    others; the rest always stay."""

    text: str
    x: float
    y: float
    style: dict[str, Any]
    optional: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle on the canvas, in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: Box) -> float:
        """The shared area."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, wide) * max(0.0, high)


def place(axes: Axes, labels: Sequence[Label], obstacles: Sequence[tuple[float, float]], mark: float = 10.0) -> None:
    """Write the labels, in the order given, each where it covers the least of marks, curves and earlier labels.

    `obstacles` are points of the data to keep free; `mark` is the radius in pixels of a mark.
    """
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import IdentityTransform

    figure = axes.figure
    renderer = figure.canvas.get_renderer()  # type: ignore[union-attr,attr-defined]
    frame = axes.get_window_extent(renderer)
    marks = [
        Box(x - mark, y - mark, x + mark, y + mark) for x, y in axes.transData.transform(list(obstacles) or [(0, 0)])
    ]
    taken: list[Box] = []
    for label in labels:
        x, y = axes.transData.transform((label.x, label.y))
        text = axes.text(0, 0, label.text, transform=IdentityTransform(), va="center", ha="center", **label.style)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white", alpha=0.85)])
        extent = text.get_window_extent(renderer)
        best = min(
            (_cost(x, y, angle, radius, extent.width, extent.height, marks, taken, frame), angle, radius)
            for radius in (1.0, 1.6, 2.5, 3.6)
            for angle in ANGLES
        )
        (cost, box), _, _ = best
        if label.optional and cost > 0.35 * extent.width * extent.height:
            text.remove()
            continue
        text.set_position(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))
        taken.append(Box(*box))


def _cost(
    x: float, y: float, angle: float, radius: float, width: float, height: float,
    marks: Sequence[Box], taken: Sequence[Box], frame: Any,
) -> tuple[float, tuple[float, float, float, float]]:  # fmt: skip
    """What a place costs: area over other labels (dear), over marks, outside the frame, and a little for distance."""
    gap = 20.0 * radius
    cx = x + math.cos(angle) * (gap + width / 2 * abs(math.cos(angle)))
    cy = y + math.sin(angle) * (gap + height / 2)
    box = Box(cx - width / 2 - 1, cy - height / 2 - 1, cx + width / 2 + 1, cy + height / 2 + 1)
    inside = box.overlap(Box(frame.x0, frame.y0, frame.x1, frame.y1))
    outside = (box.right - box.left) * (box.top - box.bottom) - inside
    cost = 6 * sum(box.overlap(other) for other in taken) + 2 * sum(box.overlap(other) for other in marks) + 8 * outside
    return cost + 0.02 * width * height * radius, (box.left, box.bottom, box.right, box.top)
