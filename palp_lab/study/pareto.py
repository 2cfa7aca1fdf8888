"""Fronts: which points are not dominated, and how much of the plane they dominate.

Directions are mixed (drift is better low, identity better high), points may miss a value, and ties are common when a
metric is a share of elements. A point that misses a value is never on the front; equal points are on it together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from palp_lab.study.directions import higher_is_better
from palp_lab.types import UserError

Points = Sequence[Sequence[float | None]] | npt.NDArray[np.float64]


def directions_for(metrics: Sequence[str]) -> tuple[bool, ...]:
    """The directions of metrics that span a front; one without a better end is an error that says so."""
    directions = [(name, higher_is_better(name)) for name in metrics]
    for name, direction in directions:
        if direction is None:
            raise UserError(f"metric '{name}' has no better end, so it cannot span a Pareto front")
    return tuple(bool(direction) for _, direction in directions)


def on_front(points: Points, higher: Sequence[bool]) -> npt.NDArray[np.bool_]:
    """A mask `[n]` over points `[n d]`: True where no other point is at least as good everywhere and better somewhere.

    `higher[j]` says that more of coordinate j is better. None, NaN and infinities make a point unfit for the front.
    """
    gains = _gains(points, higher)
    usable = np.isfinite(gains).all(axis=1)
    kept = np.zeros(len(gains), dtype=bool)
    for i in np.flatnonzero(usable):
        rivals = gains[usable]
        dominates = (rivals >= gains[i]).all(axis=1) & (rivals > gains[i]).any(axis=1)
        kept[i] = not dominates.any()
    return kept


def hypervolume(points: Points, reference: Sequence[float], higher: Sequence[bool]) -> float:
    """The volume that the points dominate down to `reference` `[d]` (moocore's exact algorithm).

    Points that miss a value, or are not better than the reference in every coordinate, add nothing; none at all
    is 0. A volume means something only beside the reference it was taken against, so the caller states it.
    """
    import moocore

    edge = _gains([list(reference)], higher)[0]
    if not np.isfinite(edge).all():
        raise UserError(f"the reference point {tuple(reference)} of the hypervolume must be finite")
    gains = _gains(points, higher)
    useful = gains[np.isfinite(gains).all(axis=1)]
    useful = useful[(useful > edge).all(axis=1)]
    return float(moocore.hypervolume(useful, ref=edge, maximise=True)) if len(useful) else 0.0


def _gains(points: Points, higher: Sequence[bool]) -> npt.NDArray[np.float64]:
    """Points `[n d]` as floats of which more is better; None becomes NaN."""
    rows = [[np.nan if value is None else float(value) for value in point] for point in points]
    gains = np.asarray(rows, dtype=float).reshape(len(rows), len(higher))
    return gains * np.where(np.asarray(higher, dtype=bool), 1.0, -1.0)
