"""Fronts against brute force: mixed directions, missing values, ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palp_lab.study.pareto import directions_for, hypervolume, on_front
from palp_lab.types import UserError

# Few distinct values on purpose: ties and duplicates in nearly every example.
coordinate = st.one_of(st.integers(0, 4).map(float), st.none(), st.just(math.nan))
clouds = st.integers(1, 3).flatmap(
    lambda d: st.tuples(
        st.lists(st.lists(coordinate, min_size=d, max_size=d), max_size=9),
        st.lists(st.booleans(), min_size=d, max_size=d),
    )
)


def missing(point: list[float | None]) -> bool:
    return any(value is None or math.isnan(value) for value in point)


def dominates(one: list[float], other: list[float], higher: list[bool]) -> bool:
    at_least = all(a >= b if up else a <= b for a, b, up in zip(one, other, higher, strict=True))
    return at_least and one != other


@settings(max_examples=300, deadline=None)
@given(clouds)
def test_front_agrees_with_the_definition(cloud: tuple[list[list[float | None]], list[bool]]) -> None:
    points, higher = cloud
    expected = [
        not missing(point) and not any(dominates(rival, point, higher) for rival in points if not missing(rival))
        for point in points
    ]
    assert on_front(points, higher).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(clouds)
def test_hypervolume_counts_the_unit_cells_that_are_dominated(
    cloud: tuple[list[list[float | None]], list[bool]],
) -> None:
    points, higher = cloud
    reference = [-1.0 if up else 5.0 for up in higher]
    gains = [
        [value - edge if up else edge - value for value, edge, up in zip(point, reference, higher, strict=True)]
        for point in points
        if not missing(point)
    ]
    cells = itertools.product(range(7), repeat=len(higher))
    expected = sum(
        any(all(corner < gain for corner, gain in zip(cell, point, strict=True)) for point in gains) for cell in cells
    )
    assert hypervolume(points, reference, higher) == pytest.approx(expected)


@settings(max_examples=50, deadline=None)
@given(clouds)
def test_only_the_front_carries_volume(cloud: tuple[list[list[float | None]], list[bool]]) -> None:
    points, higher = cloud
    reference = [-1.0 if up else 5.0 for up in higher]
    kept = [point for point, keep in zip(points, on_front(points, higher), strict=True) if keep]
    assert hypervolume(kept, reference, higher) == pytest.approx(hypervolume(points, reference, higher))


def test_points_behind_the_reference_add_nothing() -> None:
    assert hypervolume([(0.5, 0.9), (0.9, 0.1)], (0.4, 0.2), (True, True)) == pytest.approx(0.1 * 0.7)
    assert hypervolume([(0.1, 0.1)], (0.4, 0.2), (True, True)) == 0.0
    assert hypervolume([], (0.0, 0.0), (True, True)) == 0.0


def test_equal_points_share_the_front_and_infinity_is_no_measurement() -> None:
    points = np.array([[1.0, 1.0], [1.0, 1.0], [np.inf, 2.0], [1.0, 0.5]])
    assert on_front(points, (True, True)).tolist() == [True, True, False, False]


def test_the_direction_belongs_to_the_metric() -> None:
    assert directions_for(("identity", "drift_with_class_word")) == (True, False)
    with pytest.raises(UserError, match="'saturation' has no better end"):
        directions_for(("identity", "saturation"))
    with pytest.raises(UserError, match="did you mean 'identity'"):
        directions_for(("identiy", "copy"))


def test_a_reference_that_is_no_point_is_refused() -> None:
    with pytest.raises(UserError, match="must be finite"):
        hypervolume([(1.0, 1.0)], (math.nan, 0.0), (True, True))
