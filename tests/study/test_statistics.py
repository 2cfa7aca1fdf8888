"""Paired comparisons: against known differences, against enumeration, and where nothing can be said."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palp_lab.study.observations import observations, scoped
from palp_lab.study.result import Result
from palp_lab.study.statistics import (
    STOPPED,
    common_steps,
    compare_at_equal,
    compare_at_step,
    compare_stopped,
    sign_flip_p,
    value_at,
    wilcoxon_p,
)
from palp_lab.types import UserError


def test_equal_steps_finds_the_true_gain(study: list[Result], text_gain: float) -> None:
    frame = scoped(observations(study), "own")
    found = compare_at_step(frame, "ti_db", "palp", "text_alignment", 500, resamples=400)
    assert found is not None
    assert found.difference.mean == pytest.approx(text_gain, abs=0.006)
    assert not found.difference.holds_zero
    assert (found.pairs, found.possible, found.difference.concepts) == (24, 24, 3)
    assert found.p_concepts == pytest.approx(0.25), "three concepts cannot say more"
    assert found.p_concepts == pytest.approx(found.p_floor)
    assert found.p_pairs is not None and found.p_pairs < 1e-4


def test_swapping_sides_changes_the_sign_only(study: list[Result]) -> None:
    frame = scoped(observations(study), "own")
    one = compare_at_step(frame, "ti_db", "palp", "identity", 500, resamples=100)
    other = compare_at_step(frame, "palp", "ti_db", "identity", 500, resamples=100)
    assert one is not None and other is not None
    assert one.difference.mean == pytest.approx(-other.difference.mean)
    assert one.p_pairs == pytest.approx(other.p_pairs)


def test_at_step_zero_nothing_differs(study: list[Result]) -> None:
    found = compare_at_step(scoped(observations(study), "own"), "ti_db", "palp", "text_alignment", 0, resamples=400)
    assert found is not None and found.difference.holds_zero


def test_equal_identity_says_how_many_pairs_overlap(study: list[Result], text_gain: float) -> None:
    frame = scoped(observations(study), "own")
    found = compare_at_equal(frame, "ti_db", "palp", "text_alignment", "identity", resamples=400)
    assert found is not None
    assert found.pairs == found.possible == 24
    assert 0 < found.difference.mean < text_gain
    assert not found.difference.holds_zero
    # Curves that never meet are counted as possible and not compared.
    frame = frame.copy()
    first = (frame["concept"] == "cat 11") & (frame["method"] == "palp")
    frame.loc[first, "identity"] += 5.0
    apart = compare_at_equal(frame, "ti_db", "palp", "text_alignment", "identity", resamples=100)
    assert apart is not None and (apart.pairs, apart.possible) == (16, 24)


def test_equal_identity_on_straight_lines_is_exact() -> None:
    line = np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    assert value_at(line, 0.25) == pytest.approx(0.75)
    assert value_at(line, 1.0) == pytest.approx(0.0)
    assert value_at(line, 1.2) is None
    assert value_at(np.array([[0.3, 0.7]]), 0.3) == pytest.approx(0.7)


def test_a_path_that_turns_back_is_averaged_not_picked() -> None:
    there_and_back = np.array([[0.0, 1.0], [1.0, 0.5], [0.0, 0.0]])
    assert value_at(there_and_back, 0.5) == pytest.approx((0.75 + 0.25) / 2)
    over_a_vertex = np.array([[0.0, 1.0], [1.0, 0.5], [2.0, 0.3], [1.0, 0.0]])
    assert value_at(over_a_vertex, 1.0) == pytest.approx((0.5 + 0.0) / 2), "where two segments meet it passes once"
    upright = np.array([[0.0, 1.0], [0.0, 0.4], [1.0, 0.0]])
    assert value_at(upright, 0.0) == pytest.approx(0.7)


def test_a_baseline_that_was_stopped_earlier_is_a_rival(study: list[Result]) -> None:
    """A challenger that is the baseline at an earlier step is no better than that, whatever equal steps say."""
    frame = scoped(observations(study), "own")
    alone = frame[frame["series"] == "ti_db"]
    slow = alone[alone["step"] != 500].assign(
        series="slow", step=alone["step"].map({0: 0, 100: 200, 200: 500, 350: 900})
    )
    both = pd.concat([alone, slow])
    found = compare_stopped(both, "ti_db", "slow", "text_alignment", "identity", resamples=50)
    assert found is not None and found.at == f"{STOPPED}200"
    assert (found.difference.mean, found.pairs, found.p_concepts) == (0.0, found.possible, 1.0)
    at_steps = compare_at_step(both, "ti_db", "slow", "text_alignment", 500, resamples=50)
    assert at_steps is not None and at_steps.difference.mean > 0.01
    fast = compare_stopped(both, "slow", "ti_db", "text_alignment", "identity", resamples=50)
    assert fast is None, "who is behind at the end cannot be stopped earlier"
    apart = both[(both["series"] == "slow") | (both["step"] == 350)]
    assert compare_stopped(apart, "ti_db", "slow", "text_alignment", "identity") is None, "no step in common"


def test_no_common_pair_is_no_comparison(study: list[Result]) -> None:
    frame = scoped(observations(study), "own")
    apart = frame[(frame["method"] != "palp") | (frame["concept"] == "cat 11")]
    apart = apart[(apart["method"] != "ti_db") | (apart["concept"] == "robot 12")]
    assert compare_at_step(apart, "ti_db", "palp", "identity", 500) is None
    assert compare_at_equal(apart, "ti_db", "palp", "text_alignment", "identity") is None


def test_pairs_that_one_side_lacks_are_counted_as_possible(study: list[Result]) -> None:
    frame = scoped(observations(study), "own")
    fewer = frame[(frame["method"] != "palp") | (frame["concept"] != "cat 11")]
    found = compare_at_step(fewer, "ti_db", "palp", "text_alignment", 500, resamples=50)
    assert found is not None and (found.pairs, found.possible) == (16, 24)


def test_pictures_drawn_otherwise_are_no_part_of_a_comparison(study: list[Result]) -> None:
    """A swept guidance is a curve of its own: averaged in, it would move every difference."""
    frame = scoped(observations(study), "own")
    swept = frame[(frame["method"] == "palp") & (frame["step"] == 500)].copy()
    swept["knobs"] = [(("guidance", 30.0), ("strength", 1.0))] * len(swept)
    swept[["text_alignment", "identity"]] += 9.0
    both = pd.concat([frame, swept], ignore_index=True)
    for one, other in zip(
        *(
            (
                compare_at_step(rows, "ti_db", "palp", "text_alignment", 500, resamples=50),
                compare_at_equal(rows, "ti_db", "palp", "text_alignment", "identity", resamples=50),
            )
            for rows in (frame, both)
        ),
        strict=True,
    ):
        assert one is not None and one == other


def test_an_unknown_method_names_the_nearest(study: list[Result]) -> None:
    with pytest.raises(UserError, match="no results of 'pulp' to compare; did you mean 'palp'"):
        compare_at_step(observations(study), "ti_db", "pulp", "identity", 500)


def test_a_method_drawn_otherwise_alone_is_told_from_an_unknown_one(study: list[Result]) -> None:
    frame = observations(study)
    usual = next(knobs for knobs in frame["knobs"] if knobs)
    swept = frame["method"] == "palp"
    frame.loc[swept, "knobs"] = pd.Series([(("guidance", 30.0),)] * int(swept.sum()), index=frame.index[swept])
    frame = pd.concat([frame, frame[~swept]], ignore_index=True)
    with pytest.raises(UserError, match="'palp' was drawn with other settings only") as error:
        compare_at_step(frame, "ti_db", "palp", "identity", 500)
    assert all(f"{knob} {value}" in str(error.value) for knob, value in usual)


def test_common_steps_are_those_of_both(study: list[Result]) -> None:
    frame = observations(study)
    frame = frame[(frame["method"] != "palp") | (frame["step"] != 350)]
    assert common_steps(frame, "ti_db", "palp") == [0, 100, 200, 500]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=7))
def test_sign_flip_is_the_enumeration(values: list[float]) -> None:
    found = sign_flip_p(values)
    means = [abs(np.dot(signs, values)) for signs in itertools.product((-1, 1), repeat=len(values))]
    expected = np.mean([mean >= abs(sum(values)) - 1e-9 for mean in means])
    assert found == pytest.approx(expected)


def test_too_few_values_have_no_p() -> None:
    assert sign_flip_p([0.3]) is None
    assert wilcoxon_p([0.3]) is None
    assert wilcoxon_p([0.0, 0.0, 0.0]) == 1.0
