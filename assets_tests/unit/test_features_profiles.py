"""Profiles that can be merged."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.profile import Histogram
from boucle.errors import NotEnoughDataError
from boucle.features.profiles import build_histogram, merge_histograms, profile_columns, quantile_edges

EDGES = (0.0, 1.0, 2.5)
columns = st.lists(st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(EDGES)), max_size=40)


@given(first=columns, second=columns)
def test_merging_two_profiles_is_the_profile_of_both_together(first: list[float], second: list[float]):
    merged = merge_histograms(build_histogram(first, EDGES), build_histogram(second, EDGES))
    assert merged == build_histogram([*first, *second], EDGES)


@given(values=columns)
def test_every_value_is_counted_once(values: list[float]):
    assert build_histogram(values, EDGES).total == len(values)


def test_an_edge_belongs_to_the_bin_above_it():
    assert build_histogram([-0.1, 0.0, 0.9, 1.0, 2.5, 9.0], EDGES).counts == (1, 2, 1, 2)


def test_missing_values_are_counted_apart_and_infinite_ones_in_the_outer_bins():
    found = build_histogram([math.nan, -math.inf, math.inf], EDGES)
    assert found == Histogram(edges=EDGES, counts=(1, 0, 0, 1), nulls=1)


def test_quantile_edges_run_from_the_smallest_to_the_largest_finite_value():
    assert quantile_edges([0, 1, 2, 3, 4, math.nan, math.inf], 4) == (0.0, 1.0, 2.0, 3.0, 4.0)


def test_quantiles_that_coincide_become_one_edge():
    assert quantile_edges([0, 0, 0, 0, 0, 0, 0, 0, 0, 7], 4) == (0.0, 7.0)


def test_a_constant_column_has_one_edge():
    assert quantile_edges([3, 3, 3], 10) == (3.0,)


def test_a_column_without_values_has_no_edges():
    with pytest.raises(NotEnoughDataError):
        quantile_edges([math.nan], 10)


@pytest.mark.parametrize("edges", [(), (1.0, 1.0), (2.0, 1.0)])
def test_edges_that_do_not_increase_are_refused(edges: tuple[float, ...]):
    with pytest.raises(ValueError, match="increase"):
        build_histogram([1.0], edges)


def test_histograms_on_different_edges_do_not_merge():
    with pytest.raises(ValueError, match="same edges"):
        merge_histograms(build_histogram([1.0], (0.0,)), build_histogram([1.0], (0.5,)))


def test_a_window_is_profiled_on_the_edges_of_its_reference():
    reference = {"recency": build_histogram(np.arange(10), (0.0, 5.0))}
    assert profile_columns({"recency": [7.0]}, reference)["recency"].counts == (0, 0, 1)


def test_a_column_that_vanished_is_not_a_column_without_drift():
    with pytest.raises(ValueError, match="no column recency"):
        profile_columns({}, {"recency": build_histogram([1.0], (0.0,))})
