"""Means over concept × prompt × seed, and how far they can be trusted.

The levels are resampled one inside the other: concepts with replacement, within each the prompts, within each the
training seeds. The mean is taken in the same order (seeds, prompts, concepts), so a concept that was run with more
seeds counts once. Percentile intervals; with one concept the interval speaks of prompts and seeds only, and with one
observation there is none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from palp_lab.study.observations import per_unit

Floats = npt.NDArray[np.float64]
RESAMPLES = 2000
"""Bootstrap resamples (ours; twice what the evaluation notes recommend, still milliseconds)."""
LEVEL = 0.95
_CHUNK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95 % interval (None where there is none), from `n` units in `concepts` concepts."""

    mean: float
    low: float | None
    high: float | None
    n: int
    concepts: int

    @property
    def holds_zero(self) -> bool:
        """True where the interval cannot exclude 0, or where there is no interval."""
        return self.low is None or self.high is None or self.low <= 0.0 <= self.high


@dataclass(frozen=True)
class Panel:
    """Values `[k concept prompt seed]` in a ragged box: prompts of a concept and seeds of a prompt come first."""

    values: Floats
    prompts: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64]

    @classmethod
    def of(cls, units: pd.DataFrame) -> Panel:
        """From a table indexed by `UNIT` with k columns and no missing value."""
        concepts: dict[object, dict[object, list[Floats]]] = {}
        for key, row in zip(units.index, units.to_numpy(dtype=float), strict=True):
            concepts.setdefault(key[:3], {}).setdefault(key[3], []).append(row)
        most_prompts = max((len(prompts) for prompts in concepts.values()), default=0)
        most_seeds = max((len(rows) for prompts in concepts.values() for rows in prompts.values()), default=0)
        values = np.zeros((units.shape[1], len(concepts), most_prompts, most_seeds))
        seeds = np.ones((len(concepts), max(most_prompts, 1)), dtype=np.int64)
        for c, prompts in enumerate(concepts.values()):
            for p, rows in enumerate(prompts.values()):
                seeds[c, p] = len(rows)
                values[:, c, p, : len(rows)] = np.stack(rows, axis=1)
        return cls(values, np.array([len(prompts) for prompts in concepts.values()], dtype=np.int64), seeds)

    def means(self) -> Floats:
        """The means `[k]`, over seeds, then prompts, then concepts."""
        c, p, s = (np.arange(size) for size in self.values.shape[1:])
        return self._means(c[None], p[None, None], s[None, None, None])[:, 0]

    def resampled(self, resamples: int, rng: np.random.Generator) -> Floats:
        """The means of `resamples` draws with replacement at every level: `[k resamples]`."""
        _, concepts, prompts, seeds = self.values.shape
        chunk = max(1, _CHUNK // max(1, self.values.size))
        parts = []
        for start in range(0, resamples, chunk):
            size = min(chunk, resamples - start)
            c = rng.integers(concepts, size=(size, concepts))
            p = (rng.random((size, concepts, prompts)) * self.prompts[c][..., None]).astype(int)
            s = (rng.random((size, concepts, prompts, seeds)) * self.seeds[c[..., None], p][..., None]).astype(int)
            parts.append(self._means(c, p, s))
        return np.concatenate(parts, axis=1)

    def _means(self, c: npt.NDArray[np.int64], p: npt.NDArray[np.int64], s: npt.NDArray[np.int64]) -> Floats:
        counted_p = np.arange(self.values.shape[2]) < self.prompts[c][..., None]
        counts = self.seeds[c[..., None], p]
        counted_s = np.arange(self.values.shape[3]) < counts[..., None]
        picked = self.values[:, c[..., None, None], p[..., None], s]
        by_prompt = (picked * counted_s).sum(-1) / counts
        by_concept = (by_prompt * counted_p).sum(-1) / self.prompts[c]
        return np.asarray(by_concept.mean(-1))


def intervals_of(
    frame: pd.DataFrame, metrics: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> list[Interval] | None:
    """An interval per metric over the units of `frame` where all were measured; None where there is no unit."""
    units = per_unit(frame, metrics)
    return intervals_over(units, resamples, seed) if len(units) else None


def intervals_over(units: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> list[Interval]:
    """An interval per column of a non-empty table indexed by `UNIT`."""
    panel = Panel.of(units)
    means, n, concepts = panel.means(), len(units), panel.values.shape[1]
    if n < 2:
        return [Interval(float(mean), None, None, n, concepts) for mean in means]
    draws = panel.resampled(resamples, np.random.default_rng(seed))
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return [Interval(float(m), float(a), float(b), n, concepts) for m, a, b in zip(means, low, high, strict=True)]


def finite(value: float) -> float | None:
    """The value, or None where it is no number."""
    return float(value) if math.isfinite(value) else None
