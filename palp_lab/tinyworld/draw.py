"""A signed-distance painter: shapes with analytic antialiasing, evaluated only inside their bounding boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from palp_lab.tinyworld.factors import SIZE

_AXIS = np.arange(SIZE, dtype=np.float32) + 0.5
X, Y = (np.ascontiguousarray(a) for a in np.meshgrid(_AXIS, _AXIS))
"""Pixel centres, float32 [64, 64]."""

Region = tuple[slice, slice]
Fill = np.ndarray
"""A colour [3] or a coat [64, 64, 3], float32 in [0, 1]."""


@dataclass(frozen=True)
class Look:
    """What a style asks of the painter: strength of soft shading, half widths of outlines in pixels (0 = none)."""

    shading: float = 1.0
    subject_line: float = 0.0
    place_line: float = 0.0


class Canvas:
    """Colour, outline coverage, outline colour and subject coverage of one picture, painted back to front."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self.rgb = np.zeros((SIZE, SIZE, 3), np.float32)
        self.line = np.zeros((SIZE, SIZE), np.float32)
        self.ink = np.zeros((SIZE, SIZE, 3), np.float32)
        self.subjects: list[np.ndarray] = []
        self.stain: np.ndarray | None = None
        self.worn: np.ndarray | None = None
        self.half_line = look.place_line
        self.place_frame()

    def place_frame(self) -> None:
        """Following shapes are in pixels and belong to the place."""
        self.u, self.v, self.scale = X, Y, 1.0
        self._axes = (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)
        self.half_line = self.look.place_line
        self.mask: np.ndarray | None = None

    def subject_frame(
        self, x: float, y: float, scale: float, angle: float, flip: bool, stretch: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        """Following shapes are in units of the subject: feet at v = 0 and (x, y) in pixels, head near v = -1."""
        sx, sy = scale * stretch[0] * (-1.0 if flip else 1.0), scale * stretch[1]
        cos, sin = math.cos(angle), math.sin(angle)
        dx, dy = X - x, Y - y
        self.u = (cos * dx + sin * dy) / sx
        self.v = (cos * dy - sin * dx) / sy
        self.scale = math.sqrt(abs(sx * sy))
        self._axes = (cos * sx, -sin * sy, sin * sx, cos * sy, x, y)
        self.half_line = self.look.subject_line
        self.mask = np.zeros((SIZE, SIZE), np.float32)
        self.subjects.append(self.mask)

    def region(self, u0: float, v0: float, u1: float, v1: float) -> Region | None:
        """The pixels a box of the present frame covers, with a margin for lines; None when outside the picture."""
        a, b, c, d, x, y = self._axes
        margin = self.half_line + 1.5
        xs = (a * u0 + b * v0, a * u0 + b * v1, a * u1 + b * v0, a * u1 + b * v1)
        ys = (c * u0 + d * v0, c * u0 + d * v1, c * u1 + d * v0, c * u1 + d * v1)
        left, right = max(0, int(x + min(xs) - margin)), min(SIZE, int(x + max(xs) + margin) + 1)
        top, bottom = max(0, int(y + min(ys) - margin)), min(SIZE, int(y + max(ys) + margin) + 1)
        return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None

    def point(self, u: float, v: float) -> tuple[float, float]:
        """Where a point of the present frame lies, in pixels."""
        a, b, c, d, x, y = self._axes
        return x + a * u + b * v, y + c * u + d * v

    def paint(
        self, region: Region, distance: np.ndarray, fill: Fill, *, line: bool = True, opacity: float = 1.0,
        shade: bool = True,
    ) -> None:  # fmt: skip
        """Lays a shape over the picture; ``distance`` is signed, in units of the present frame."""
        d = distance * self.scale
        alpha = np.clip(0.5 - d, 0.0, 1.0)
        if opacity != 1.0:
            alpha = alpha * opacity
        colour = fill[region] if fill.ndim == 3 else fill
        if shade and self.look.shading and self.mask is not None:
            rows = alpha.shape[0]
            height = np.linspace(0.13, -0.17, rows, dtype=np.float32)[:, None]
            light = 1.0 + self.look.shading * (height - 0.2 * np.clip(1.0 + d * 0.3, 0.0, 1.0))
            colour = colour * light[..., None]
        target = self.rgb[region]
        target += alpha[..., None] * (colour - target)
        if self.mask is not None:
            np.maximum(self.mask[region], alpha, out=self.mask[region])
        if self.stain is not None:
            # What is put on later is clean.
            self.stain[region] *= 1.0 - alpha
        if self.look.subject_line:
            lines = self.line[region]
            lines *= 1.0 - alpha
            if line and self.half_line:
                band = np.clip(self.half_line + 0.5 - np.abs(d), 0.0, 1.0)
                np.maximum(lines, band, out=lines)
                ink = self.ink[region]
                own = fill[region] if fill.ndim == 3 else fill
                ink += band[..., None] * (own - ink)

    def ellipse(self, u: float, v: float, ru: float, rv: float, fill: Fill, angle: float = 0.0, **how) -> None:
        """A filled ellipse with half axes ``ru`` and ``rv``."""
        reach = max(ru, rv) if angle else 0.0
        region = self.region(u - (reach or ru), v - (reach or rv), u + (reach or ru), v + (reach or rv))
        if region is not None:
            p, q = self._local(region, u, v, angle)
            self.paint(region, ellipse_distance(p, q, ru, rv), fill, **how)

    def box(
        self, u: float, v: float, hu: float, hv: float, fill: Fill, corner: float = 0.0, angle: float = 0.0, **how
    ) -> None:
        """A filled box with half sides ``hu`` and ``hv`` and rounded corners."""
        reach = math.hypot(hu, hv) if angle else 0.0
        region = self.region(u - (reach or hu), v - (reach or hv), u + (reach or hu), v + (reach or hv))
        if region is not None:
            p, q = self._local(region, u, v, angle)
            a, b = np.abs(p) - (hu - corner), np.abs(q) - (hv - corner)
            outside = np.hypot(np.maximum(a, 0.0), np.maximum(b, 0.0))
            self.paint(region, outside + np.minimum(np.maximum(a, b), 0.0) - corner, fill, **how)

    def limb(
        self, u0: float, v0: float, u1: float, v1: float, r0: float, fill: Fill, r1: float | None = None, **how
    ) -> None:
        """A capsule from one point to another whose radius goes from ``r0`` to ``r1``."""
        r1 = r0 if r1 is None else r1
        r = max(r0, r1)
        region = self.region(min(u0, u1) - r, min(v0, v1) - r, max(u0, u1) + r, max(v0, v1) + r)
        if region is not None:
            p, q = self.u[region] - u0, self.v[region] - v0
            du, dv = u1 - u0, v1 - v0
            t = np.clip((p * du + q * dv) / (du * du + dv * dv + 1e-9), 0.0, 1.0)
            self.paint(region, np.hypot(p - t * du, q - t * dv) - (r0 + (r1 - r0) * t), fill, **how)

    def ring(self, u: float, v: float, ru: float, rv: float, width: float, fill: Fill, **how) -> None:
        """An elliptic ring of half width ``width``."""
        region = self.region(u - ru - width, v - rv - width, u + ru + width, v + rv + width)
        if region is not None:
            p, q = self._local(region, u, v, 0.0)
            self.paint(region, np.abs(ellipse_distance(p, q, ru, rv)) - width, fill, **how)

    def polygon(self, points: Sequence[tuple[float, float]], fill: Fill, corner: float = 0.0, **how) -> None:
        """A filled polygon, convex or not, grown by ``corner``."""
        us, vs = [p[0] for p in points], [p[1] for p in points]
        region = self.region(min(us) - corner, min(vs) - corner, max(us) + corner, max(vs) + corner)
        if region is not None:
            self.paint(region, polygon_distance(self.u[region], self.v[region], points) - corner, fill, **how)

    def below(self, height: np.ndarray, fill: Fill, **how) -> None:
        """Fills everything below a skyline ``height`` [64], in pixels; for places."""
        top = max(0, int(height.min()) - 3)
        region = (slice(top, SIZE), slice(0, SIZE))
        self.paint(region, height[None, :] - Y[region], fill, **how)

    def _local(self, region: Region, u: float, v: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
        p, q = self.u[region] - u, self.v[region] - v
        if angle:
            cos, sin = math.cos(angle), math.sin(angle)
            p, q = cos * p + sin * q, cos * q - sin * p
        return p, q


def ellipse_distance(p: np.ndarray, q: np.ndarray, ru: float, rv: float) -> np.ndarray:
    """Approximate signed distance to an ellipse, exact on its border to first order and for circles."""
    if ru == rv:
        return np.hypot(p, q) - ru
    a, b = p / ru, q / rv
    k = np.sqrt(a * a + b * b)
    slope = np.sqrt((a / ru) ** 2 + (b / rv) ** 2) + 1e-6
    return np.maximum(k * (k - 1.0) / slope, -min(ru, rv))


def polygon_distance(p: np.ndarray, q: np.ndarray, points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Signed distance to a polygon, negative inside."""
    nearest = np.full(p.shape, 1e9, np.float32)
    inside = np.zeros(p.shape, bool)
    for (ax, ay), (bx, by) in zip(points, [*points[1:], points[0]], strict=True):
        ex, ey = bx - ax, by - ay
        wx, wy = p - ax, q - ay
        t = np.clip((wx * ex + wy * ey) / (ex * ex + ey * ey + 1e-12), 0.0, 1.0)
        np.minimum(nearest, (wx - ex * t) ** 2 + (wy - ey * t) ** 2, out=nearest)
        if ay != by:
            crosses = ((q >= ay) != (q >= by)) & (wx < ex * wy / ey)
            inside ^= crosses
    distance = np.sqrt(nearest)
    return np.where(inside, -distance, distance)


def blur(picture: np.ndarray, rounds: int = 1) -> np.ndarray:
    """A small separable blur (1, 2, 1) with edges repeated, along the first two axes."""
    for _ in range(rounds):
        for axis in (0, 1):
            ahead = np.concatenate([picture[1:], picture[-1:]]) if axis == 0 else np.concatenate(
                [picture[:, 1:], picture[:, -1:]], axis=1)  # fmt: skip
            behind = np.concatenate([picture[:1], picture[:-1]]) if axis == 0 else np.concatenate(
                [picture[:, :1], picture[:, :-1]], axis=1)  # fmt: skip
            picture = 0.5 * picture + 0.25 * (ahead + behind)
    return picture


@cache
def _noise_bank(cells: int) -> np.ndarray:
    """Sixteen smooth periodic noise fields of about unit range, float32 [16, 64, 64]."""
    rng = np.random.default_rng([4242, cells])
    coarse = rng.uniform(-1.0, 1.0, (16, cells, cells)).astype(np.float32)
    at = (np.arange(SIZE) + 0.5) / SIZE * cells
    low = np.floor(at).astype(int)
    t = (at - low).astype(np.float32)
    t = t * t * (3.0 - 2.0 * t)
    low, high = low % cells, (low + 1) % cells
    rows = coarse[:, low] * (1.0 - t)[None, :, None] + coarse[:, high] * t[None, :, None]
    return rows[:, :, low] * (1.0 - t) + rows[:, :, high] * t


def noise(rng: np.random.Generator, cells: int) -> np.ndarray:
    """A smooth noise field in [-1, 1] with ``cells`` periods across the picture, float32 [64, 64]."""
    which, dy, dx = rng.integers(0, [16, SIZE, SIZE])
    return np.roll(_noise_bank(cells)[which], (int(dy), int(dx)), (0, 1))
