"""Sizing: the advice is checked by simulating the study it advises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from palp_lab.study.observations import UNIT, observations, scoped
from palp_lab.study.result import Result
from palp_lab.study.sizing import paired_differences, sizing, spread


@pytest.mark.parametrize(("between", "within"), [(0.01, 0.04), (0.0, 0.04), (0.02, 0.001)])
def test_the_advised_study_has_the_power_it_promises(between: float, within: float) -> None:
    plan = sizing(between, within, difference=0.1, prompts=4, seeds=2)
    assert plan.concepts is not None
    rng = np.random.default_rng(0)
    shape = (3000, plan.concepts)
    means = rng.normal(0.1, np.sqrt(between), shape) + rng.normal(0, np.sqrt(within / 8), shape)
    power = float(np.mean(stats.ttest_1samp(means, 0.0, axis=1).pvalue < 0.05))
    assert 0.74 <= power <= 0.97


def test_smaller_differences_need_more_and_zero_is_hopeless() -> None:
    large, small = (sizing(0.01, 0.01, difference, 4, 2).concepts for difference in (0.1, 0.05))
    assert large is not None and small is not None and small > 2.5 * large
    assert sizing(0.01, 0.01, 0.0, 4, 2).concepts is None
    assert sizing(1.0, 0.01, 1e-5, 4, 2).concepts is None


def test_spread_recovers_both_variances() -> None:
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([["d"], ["m"], range(400), ["p", "q"], range(3)], names=list(UNIT))
    own = np.repeat(rng.normal(0, 0.3, 400), 6)
    between, within = spread(pd.Series(own + rng.normal(0, 0.2, len(index)), index=index))
    assert between == pytest.approx(0.09, rel=0.15)
    assert within == pytest.approx(0.04, rel=0.15)


def test_what_prompts_and_seeds_differ_by_is_not_taken_for_a_difference_between_concepts() -> None:
    """Means of a few noisy prompts differ although all concepts are alike."""
    rng = np.random.default_rng(1)
    index = pd.MultiIndex.from_product([["d"], ["m"], range(400), ["p", "q"], [0]], names=list(UNIT))
    between, within = spread(pd.Series(rng.normal(0, 0.2, len(index)), index=index))
    assert within == pytest.approx(0.04, rel=0.15)
    assert between < 0.004, "a fifth of the 0.02 that the means vary by"


def test_differences_come_from_the_study(study: list[Result], text_gain: float) -> None:
    differences = paired_differences(scoped(observations(study), "own"), "ti_db", "palp", "text_alignment", 500)
    assert len(differences) == 24
    assert differences.mean() == pytest.approx(text_gain, abs=0.006)
    between, within = spread(differences)
    assert 0 <= between < within + 1e-4
