"""Do several people say the same? Krippendorff's alpha for ratings on an interval scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def krippendorff_alpha(ratings: Iterable[Sequence[float]]) -> float | None:
    """1 where people agree on every item, 0 where they agree as by chance, below 0 where they contradict each other.

    Args:
        ratings: per item the values that were given to it, by whomever; items with fewer than two count for nothing.

    Returns None where nothing can be said: no item was rated twice, or every value is the same.
    Source: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), interval metric.
    """
    items = [np.asarray(item, dtype=float) for item in ratings if len(item) > 1]
    if not items:
        return None
    values = np.concatenate(items)
    expected = _squares(values) / (len(values) - 1)
    if expected == 0:
        return None
    observed = sum(_squares(item) / (len(item) - 1) for item in items)
    return float(1 - observed / expected)


def _squares(values: np.ndarray) -> float:
    """Sum of the squared differences of all ordered pairs."""
    return float(2 * len(values) * ((values - values.mean()) ** 2).sum())
