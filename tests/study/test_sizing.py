"""Sizing: the advice is checked by simulating the study it advises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palp_lab.study.headline import LEAST_CONCEPTS
from palp_lab.study.observations import UNIT, observations, scoped
from palp_lab.study.result import Result
from palp_lab.study.sizing import Spread, paired_differences, sizing, spread, usual_prompts


@pytest.mark.parametrize(
    "found",
    [Spread(0.01, 0.0, 0.04, 0.02), Spread(0.0, 0.3, 0.04), Spread(0.05, 0.01, None), Spread(0.0, 0.0, 0.0, 0.4)],
)
def test_the_advised_study_has_the_power_it_promises(found: Spread) -> None:
    plan = sizing(found, difference=0.1, prompts=4, seeds=2)
    assert plan.concepts is not None and plan.concepts > LEAST_CONCEPTS
    rng = np.random.default_rng(0)
    shape = (3000, plan.concepts)
    prompts = rng.normal(0, np.sqrt(found.prompts), (*shape, 4, 1))
    seeds = rng.normal(0, np.sqrt(found.seeds or 0.0), (*shape, 1, 2))
    rest = rng.normal(0, np.sqrt(found.rest), (*shape, 4, 2))
    means = rng.normal(0.1, np.sqrt(found.concepts), shape) + (prompts + seeds + rest).mean((-1, -2))
    power = float(np.mean(stats.ttest_1samp(means, 0.0, axis=1).pvalue < 0.05))
    assert 0.74 <= power <= 0.9


def test_smaller_differences_need_more_and_zero_is_hopeless() -> None:
    large, small = (sizing(Spread(0.05, 0.01, 0.01), difference, 4, 2).concepts for difference in (0.1, 0.05))
    assert large is not None and small is not None and small > 2.5 * large
    assert sizing(Spread(0.01, 0.01, None), 0.0, 4, 2).concepts is None
    assert sizing(Spread(1.0, 0.01, None), 1e-5, 4, 2).concepts is None


def test_no_plan_is_smaller_than_what_a_claim_takes() -> None:
    """With three subjects no exact p falls below .25, however plain the difference is."""
    assert sizing(Spread(1e-6, 1e-6, 1e-6), 0.5, 4, 5).concepts == LEAST_CONCEPTS


def test_seeds_that_do_not_differ_do_not_shorten_a_study() -> None:
    plans = [sizing(Spread(0.01, 0.2, 0.0), 0.1, 4, seeds).concepts for seeds in (1, 5)]
    assert plans[0] == plans[1]


def test_spread_recovers_the_four_variances() -> None:
    """Also where some cells are missing."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([["d"], ["m"], range(600), ["p", "q", "r"], range(3)], names=list(UNIT))
    box = rng.normal(0, 0.3, (600, 1, 1)) + rng.normal(0, 0.25, (600, 3, 1)) + rng.normal(0, 0.15, (600, 1, 3))
    whole = pd.Series((box + rng.normal(0, 0.2, (600, 3, 3))).ravel(), index=index)
    for differences in (whole, whole[rng.random(len(whole)) < 0.97]):
        found = spread(differences)
        assert found.concepts == pytest.approx(0.09, rel=0.15)
        assert found.prompts == pytest.approx(0.0625, rel=0.15)
        assert found.seeds == pytest.approx(0.0225, rel=0.2)
        assert found.rest == pytest.approx(0.04, rel=0.15)


def test_prompts_are_counted_per_concept() -> None:
    """Subjects with four prompts of their own each are a study of four prompts, not of all that occur in it."""
    rows = [("d", "m", f"c{c}", f"p{c}{p}", 0) for c in range(6) for p in range(4)]
    differences = pd.Series(0.0, index=pd.MultiIndex.from_tuples(rows, names=list(UNIT)))
    assert usual_prompts(differences) == 4


def test_what_prompts_and_seeds_differ_by_is_not_taken_for_a_difference_between_concepts() -> None:
    """Means of a few noisy prompts differ although all concepts are alike; with one seed that is all one can say."""
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([["d"], ["m"], range(400), ["p", "q"], [0]], names=list(UNIT))
    found = spread(pd.Series(rng.normal(0, 0.2, len(index)), index=index))
    assert found.prompts == pytest.approx(0.04, rel=0.15) and found.seeds is None
    assert found.concepts < 0.004, "a fifth of the 0.02 that the means vary by"


def test_differences_come_from_the_study(study: list[Result], text_gain: float) -> None:
    differences = paired_differences(scoped(observations(study), "own"), "ti_db", "palp", "text_alignment", 500)
    assert len(differences) == 24
    assert differences.mean() == pytest.approx(text_gain, abs=0.006)
    found = spread(differences)
    assert found.seeds is not None and 0 <= found.concepts < found.prompts + found.seeds + 1e-4
