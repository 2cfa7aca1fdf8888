"""How many concepts and seeds a study needs before it can tell two methods apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from palp_lab.study.headline import LEAST_CONCEPTS
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


@dataclass(frozen=True)
class Spread:
    """Variances of paired differences: between concepts, between the prompts of a concept, and between the training
    seeds of a prompt. `seeds` is None where each prompt has one: what it adds is then part of `prompts`."""

    concepts: float
    prompts: float
    seeds: float | None


def spread(differences: pd.Series) -> Spread:
    """The spread of `paired_differences`: moments of a nested layout; an estimate below zero counts as zero."""
    by_prompt = differences.groupby(level=list(UNIT[:4]))
    seeds, seeds_of = _within(by_prompt)
    by_concept = by_prompt.mean().groupby(level=list(UNIT[:3]))
    noisy, prompts_of = _within(by_concept)
    prompts = max(0.0, (noisy or 0.0) - (seeds or 0.0) / seeds_of)
    if by_concept.ngroups < 2:
        return Spread(0.0, prompts, seeds)
    own = (prompts + (seeds or 0.0) / seeds_of) / prompts_of
    return Spread(max(0.0, float(by_concept.mean().var(ddof=1)) - own), prompts, seeds)


def _within(groups: Any) -> tuple[float | None, float]:
    """Variance within groups, None where none has two values, and how many values a group usually has."""
    sizes, free = groups.size(), int((groups.size() - 1).sum())
    squares = groups.agg(lambda values: float(((values - values.mean()) ** 2).sum())).sum()
    return (float(squares) / free if free else None), len(sizes) / float((1 / sizes).sum())


def sizing(
    found: Spread, difference: float, prompts: int, seeds: int, power: float = 0.8, level: float = 0.05
) -> Sizing:
    """The number of concepts for a two-sided paired t-test on concept means to find `difference` with `power`.

    The mean over C concepts has variance (concepts + (prompts + seeds / number of seeds) / number of prompts) / C, so
    more seeds help only as far as trainings differ by their seed. Never below the number that any claim takes
    (`headline.LEAST_CONCEPTS`). Power .8 at level .05 is the usual convention, not a finding.
    """
    from scipy import stats

    variance = found.concepts + (found.prompts + (found.seeds or 0.0) / seeds) / prompts
    if difference == 0:
        return Sizing(difference, prompts, seeds, None, power)
    for concepts in range(LEAST_CONCEPTS, MOST_CONCEPTS):
        quantiles = stats.t.ppf(1 - level / 2, concepts - 1) + stats.t.ppf(power, concepts - 1)
        if concepts * difference**2 >= quantiles**2 * variance:
            return Sizing(difference, prompts, seeds, concepts, power)
    return Sizing(difference, prompts, seeds, None, power)
