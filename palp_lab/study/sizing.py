"""How many concepts and seeds a study needs before it can tell two methods apart."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from palp_lab.study.headline import LEAST_CONCEPTS
from palp_lab.study.observations import UNIT, at_usual_knobs, per_unit

PILOT = (8, 3)
"""Pairs and concepts a spread is estimated from at the least (ours): of two concepts it has one degree of freedom."""
MOST_CONCEPTS = 2_000
"""No one runs more (ours); beyond it the advice is that the difference is out of reach."""


@dataclass(frozen=True)
class Sizing:
    """With `seeds` training seeds and `prompts` prompts per concept, `concepts` concepts separate two methods that
    truly differ by `difference`, with the given power at the 5 % level; None where no study would be large enough."""

    difference: float
    prompts: int
    seeds: int
    concepts: int | None
    power: float


def paired_differences(frame: pd.DataFrame, baseline: str, challenger: str, metric: str, step: int) -> pd.Series:
    """Challenger minus baseline per unit at one step, indexed by `UNIT`: what `spread` is computed from."""
    rows = at_usual_knobs(frame)
    rows = rows[rows["step"] == step]
    one, other = (per_unit(rows[rows["series"] == name], [metric])[metric] for name in (baseline, challenger))
    return (other - one).dropna()


@dataclass(frozen=True)
class Spread:
    """Variances of paired differences: between concepts, between the prompts of a concept, between its training seeds
    over all of its prompts, and what is left in one prompt and seed. `seeds` is None where each prompt has one: what it
    adds is then part of `prompts`."""

    concepts: float
    prompts: float
    seeds: float | None
    rest: float = 0.0

    def of_mean(self, prompts: float, seeds: float) -> float:
        """Variance of a concept's mean over so many prompts and seeds, beyond what concepts differ by."""
        return self.prompts / prompts + (self.seeds or 0.0) / seeds + self.rest / (prompts * seeds)


def spread(differences: pd.Series) -> Spread:
    """The spread of `paired_differences`: moments of prompts crossed with seeds within each concept, over the prompts
    that have all of the concept's seeds; an estimate below zero counts as zero. Seeds of a concept with one prompt
    cannot be told from what is left, which is then theirs."""
    squares, free = np.zeros(3), np.zeros(3)  # prompts, seeds, rest
    counts = []
    for _, own in differences.groupby(level=list(UNIT[:3])):
        table = own.groupby(level=list(UNIT[3:])).mean().unstack()
        counts.append(table.shape)
        table = table.dropna().to_numpy()
        prompts, seeds = table.shape
        if not table.size:
            continue
        rows, columns, mean = table.mean(1), table.mean(0), table.mean()
        left = table - rows[:, None] - columns + mean
        squares += [seeds * ((rows - mean) ** 2).sum(), prompts * ((columns - mean) ** 2).sum(), (left**2).sum()]
        free += [prompts - 1, seeds - 1, (prompts - 1) * (seeds - 1)]
    usual = [len(counts) / sum(1 / shape[axis] for shape in counts) for axis in (0, 1)]
    mean_squares = np.divide(squares, free, out=np.zeros(3), where=free > 0)
    rest = float(mean_squares[2])
    own_prompts, own_seeds = ((mean_squares[at] - rest) / usual[1 - at] for at in (0, 1))
    found = Spread(0.0, max(0.0, float(own_prompts)), max(0.0, float(own_seeds)) if free[1] else None, rest)
    by_concept = differences.groupby(level=list(UNIT[:4])).mean().groupby(level=list(UNIT[:3])).mean()
    if len(by_concept) < 2:
        return found
    return replace(found, concepts=max(0.0, float(by_concept.var(ddof=1)) - found.of_mean(usual[0], usual[1])))


def usual_prompts(differences: pd.Series) -> int:
    """How many prompts a concept usually has: the harmonic mean, by which the variance of its mean goes."""
    counts = differences.reset_index().groupby(list(UNIT[:3]))["prompt"].nunique()
    return max(1, round(len(counts) / float((1 / counts).sum())))


def sizing(
    found: Spread, difference: float, prompts: int, seeds: int, power: float = 0.8, level: float = 0.05
) -> Sizing:
    """The number of concepts for a two-sided paired t-test on concept means to find `difference` with `power`.

    The mean over C concepts has variance (concepts + prompts / P + seeds / S + rest / (P S)) / C with P prompts and S
    seeds, so more seeds help only as far as trainings differ by their seed. Never below the number that any claim takes
    (`headline.LEAST_CONCEPTS`). Power .8 at level .05 is the usual convention, not a finding.
    """
    from scipy import stats

    variance = found.concepts + found.of_mean(prompts, seeds)
    if difference == 0:
        return Sizing(difference, prompts, seeds, None, power)
    for concepts in range(LEAST_CONCEPTS, MOST_CONCEPTS):
        quantiles = stats.t.ppf(1 - level / 2, concepts - 1) + stats.t.ppf(power, concepts - 1)
        if concepts * difference**2 >= quantiles**2 * variance:
            return Sizing(difference, prompts, seeds, concepts, power)
    return Sizing(difference, prompts, seeds, None, power)
