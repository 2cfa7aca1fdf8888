"""How many concepts and seeds a study needs before it can tell two methods apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from palp_lab.study.observations import UNIT, at_usual_knobs, per_unit

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


def spread(differences: pd.Series) -> tuple[float, float]:
    """Variance of paired differences between concepts, and within a concept (over its prompts and seeds).

    Moments of a one-way layout; a between-concept estimate below zero is taken as zero.
    """
    groups = [values.to_numpy(dtype=float) for _, values in differences.groupby(level=list(UNIT[:3]))]
    free = sum(len(group) - 1 for group in groups)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / free if free else 0.0
    if len(groups) < 2:
        return 0.0, within
    usual = len(groups) / sum(1 / len(group) for group in groups)
    between = float(np.var([group.mean() for group in groups], ddof=1)) - within / usual
    return max(0.0, between), within


def sizing(
    between: float, within: float, difference: float, prompts: int, seeds: int, power: float = 0.8, level: float = 0.05
) -> Sizing:
    """The number of concepts for a two-sided paired t-test on concept means to find `difference` with `power`.

    The mean over C concepts has variance (between + within / (prompts × seeds)) / C, so more seeds help only until
    the concepts themselves differ more than the seeds do. Power .8 at level .05 is the usual convention, not a finding.
    """
    from scipy import stats

    variance = between + within / (prompts * seeds)
    if difference == 0:
        return Sizing(difference, prompts, seeds, None, power)
    for concepts in range(2, MOST_CONCEPTS):
        quantiles = stats.t.ppf(1 - level / 2, concepts - 1) + stats.t.ppf(power, concepts - 1)
        if concepts * difference**2 >= quantiles**2 * variance:
            return Sizing(difference, prompts, seeds, concepts, power)
    return Sizing(difference, prompts, seeds, None, power)
