"""Intervals: against a bootstrap written as plain loops, against known coverage, and in the small cases."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from palp_lab.study.intervals import Panel, intervals_over
from palp_lab.study.observations import UNIT


def table(values: dict[tuple[str, str, int], float]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples([("tiny", "tiny", c, p, s) for c, p, s in values], names=list(UNIT))
    return pd.DataFrame({"identity": list(values.values())}, index=index)


RAGGED = {("a", "p", 0): 1.0, ("a", "p", 1): 2.0, ("a", "q", 0): 6.0, ("b", "p", 0): 10.0, ("b", "p", 1): 12.0}


def test_the_mean_goes_over_seeds_then_prompts_then_concepts() -> None:
    assert Panel.of(table(RAGGED)).means()[0] == pytest.approx(((1.5 + 6.0) / 2 + 11.0) / 2)


def test_resampling_agrees_with_plain_loops() -> None:
    """The same distribution as loops over lists, seeds drawn once for all prompts of a concept: its quantiles agree."""
    crossed = [({0: 1.0, 1: 2.0}, {0: 6.0}), ({0: 10.0, 1: 12.0},)]
    rng = np.random.default_rng(1)

    def draw() -> float:
        means = []
        for prompts in [crossed[i] for i in rng.integers(2, size=2)]:
            seeds = rng.integers(2, size=2)
            picked = [prompts[i] for i in rng.integers(len(prompts), size=len(prompts))]
            there = [[own[seed] for seed in seeds if seed in own] or list(own.values()) for own in picked]
            means.append(np.mean([np.mean(values) for values in there]))
        return float(np.mean(means))

    expected = np.array([draw() for _ in range(20_000)])
    found = Panel.of(table(RAGGED)).resampled(20_000, np.random.default_rng(2))[0]
    assert found.mean() == pytest.approx(expected.mean(), abs=0.08)
    assert np.quantile(found, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(expected, [0.1, 0.5, 0.9]), abs=0.15)


def test_prompts_of_one_training_are_no_trainings_of_their_own() -> None:
    """Eight prompts share what each of eight trainings differs by: their number must not narrow the interval."""
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        trained = rng.normal(0, 0.03, 8)
        values = {("a", f"p{p}", s): trained[s] + rng.normal(0, 0.01) for p in range(8) for s in range(8)}
        (interval,) = intervals_over(table(values), resamples=300, seed=trial)
        assert interval.low is not None and interval.high is not None
        hits += interval.low <= 0.0 <= interval.high
    assert hits >= 80, "with seeds drawn apart for each prompt it is about half"


def test_large_panels_are_resampled_in_chunks_with_the_same_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = Panel.of(table(RAGGED))
    monkeypatch.setattr("palp_lab.study.intervals._CHUNK", 70)
    draws = panel.resampled(5000, np.random.default_rng(0))
    assert draws.shape == (1, 5000)
    assert draws.mean() == pytest.approx(panel.means()[0], abs=0.15)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(120):
        concepts = rng.normal(0.0, 1.0, 10)
        values = {
            (f"c{c}", f"p{p}", s): concepts[c] + rng.normal(0, 0.5)
            for c in range(10)
            for p in range(2)
            for s in range(2)
        }
        (interval,) = intervals_over(table(values), resamples=300, seed=trial)
        assert interval.low is not None and interval.high is not None
        hits += interval.low <= 0.0 <= interval.high
    assert 0.86 <= hits / 120 <= 1.0


def test_more_concepts_make_it_narrower_more_seeds_of_one_concept_hardly() -> None:
    rng = np.random.default_rng(3)

    def width(concepts: int, seeds: int) -> float:
        own = rng.normal(0, 1, concepts)
        values = {(f"c{c}", "p", s): own[c] + rng.normal(0, 0.1) for c in range(concepts) for s in range(seeds)}
        (interval,) = intervals_over(table(values), resamples=500)
        assert interval.low is not None and interval.high is not None
        return interval.high - interval.low

    assert width(24, 2) < 0.75 * width(6, 2)
    assert width(6, 16) > 0.5 * width(6, 2)


def test_one_observation_has_no_interval_and_holds_zero() -> None:
    (interval,) = intervals_over(table({("a", "p", 0): 0.7}))
    assert (interval.mean, interval.low, interval.high, interval.n) == (0.7, None, None, 1)
    assert interval.holds_zero


def test_the_same_seed_gives_the_same_interval() -> None:
    assert intervals_over(table(RAGGED), seed=5) == intervals_over(table(RAGGED), seed=5)


def test_both_ends_lie_two_standard_errors_away() -> None:
    values = np.random.default_rng(3).normal(0.0, 1.0, 40)
    (found,) = intervals_over(table({(f"c{i}", "p", 0): float(v) for i, v in enumerate(values)}), 4000)
    reach = 1.96 * values.std() / np.sqrt(len(values))
    assert found.low is not None and found.high is not None
    assert found.mean - found.low == pytest.approx(reach, rel=0.12)
    assert found.high - found.mean == pytest.approx(reach, rel=0.12)
