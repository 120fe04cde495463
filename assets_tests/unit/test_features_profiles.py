"""Profiles that can be merged."""

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.profile import Categories, ColumnProfile, Histogram, Moments, ValueCount
from boucle.errors import NotEnoughDataError
from boucle.features import profiles
from boucle.features.profiles import (
    build_histogram,
    merge_columns,
    merge_histograms,
    merge_profiles,
    profile_column,
    profile_columns,
    profile_like,
    profile_reference,
    quantile_edges,
)

EDGES, VALUES = (0.0, 1.0, 2.5), (0.0, 1.0, 2.0)
numbers = st.one_of(
    st.floats(min_value=-1e6, max_value=1e6), st.sampled_from((*EDGES, *VALUES, math.nan, math.inf, -math.inf, 1e300))
)
columns = st.lists(numbers, max_size=40)


def profiled(values: list[float]) -> ColumnProfile:
    return profile_column(values, EDGES, VALUES)


def counts_of(profile: ColumnProfile) -> tuple[object, ...]:
    """What is exact: everything that is counted, and the ends of the range."""
    details = profile.details
    assert details is not None
    moments = details.moments
    ends = (moments.n, moments.minimum, moments.maximum) if moments else None
    return profile.histogram, details.categories, details.infinite, ends


def sums_of(profile: ColumnProfile) -> list[float]:
    details = profile.details
    assert details is not None
    return [*details.sums, *([details.moments.mean, details.moments.m2] if details.moments else [])]


@given(first=columns, second=columns)
def test_merging_two_profiles_is_the_profile_of_both_together(first: list[float], second: list[float]):
    merged, whole = merge_columns(profiled(first), profiled(second)), profiled([*first, *second])
    assert counts_of(merged) == counts_of(whole)
    assert sums_of(merged) == pytest.approx(sums_of(whole), rel=1e-9, abs=1e-3)


@given(parts=st.lists(columns, min_size=3, max_size=3))
def test_it_does_not_matter_in_which_order_profiles_are_merged(parts: list[list[float]]):
    a, b, c = map(profiled, parts)
    merged = [merge_columns(merge_columns(x, y), z) for x, y, z in permutations((a, b, c))]
    merged.append(merge_columns(a, merge_columns(b, c)))
    for found in merged:
        assert counts_of(found) == counts_of(merged[0])
        assert found.details.frequent == merged[0].details.frequent
        assert sums_of(found) == pytest.approx(sums_of(merged[0]), rel=1e-9, abs=1e-3)


@given(values=columns)
def test_every_value_is_counted_once(values: list[float]):
    profile = profiled(values)
    assert profile.total == sum(profile.counts) == len(values)


def test_an_edge_belongs_to_the_bin_above_it():
    assert build_histogram([-0.1, 0.0, 0.9, 1.0, 2.5, 9.0], EDGES).counts == (1, 2, 1, 2)


def test_missing_values_are_counted_apart_and_infinite_ones_in_the_outer_bins():
    found = build_histogram([math.nan, -math.inf, math.inf], EDGES)
    assert found == Histogram(edges=EDGES, counts=(1, 0, 0, 1), nulls=1)


def test_moments_are_of_the_finite_values():
    found = profile_column([1.0, 3.0, math.nan, math.inf, -1e300], EDGES).details
    assert found.moments == Moments(n=2, mean=2.0, m2=2.0, minimum=1.0, maximum=3.0)
    assert found.moments.deviation == 1.0
    assert (found.sums, found.infinite) == ((0.0, 0.0, 1.0, 3.0), (1, 1))


def test_a_column_without_finite_value_has_no_moments_and_no_zeros():
    assert profile_column([math.nan, math.inf], EDGES).details.moments is None


def test_categories_are_counted_by_value_and_others_together():
    found = profile_column([0, 0, 2, 7, 0.5, math.nan], EDGES, VALUES)
    assert found.categories == Categories(values=VALUES, counts=(2, 0, 1), other=2, is_ordered=True)
    assert found.counts == (2, 0, 1, 2, 1)


def test_a_value_that_a_tenth_of_the_rows_have_is_frequent():
    found = profile_column([5.0] * 10 + [3.0] * 9 + list(np.linspace(10, 20, 81)), EDGES).details
    assert found.frequent == (ValueCount(value=5.0, count=10),)


def test_a_frequent_value_of_many_rows_is_found_in_a_sample_and_counted_in_all():
    values = np.random.default_rng(0).permutation(np.concatenate([np.full(25_001, 7.0), np.linspace(0, 1, 200_000)]))
    assert profile_column(values, EDGES).details.frequent == (ValueCount(value=7.0, count=25_001),)


def test_frequent_values_of_several_periods_are_added_where_they_were_frequent():
    first, second = profile_column([1.0] * 10, EDGES), profile_column([1.0] * 5 + [2.0] * 5, EDGES)
    merged = merge_columns(first, second).details.frequent
    assert merged == (ValueCount(value=1.0, count=15), ValueCount(value=2.0, count=5))


def test_a_profile_of_an_earlier_release_merges_by_its_counts():
    older = ColumnProfile(histogram=build_histogram([1.0], EDGES))
    merged = merge_columns(older, profile_column([2.0], EDGES))
    assert merged == ColumnProfile(histogram=build_histogram([1.0, 2.0], EDGES))


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


def test_categories_of_different_values_do_not_merge():
    with pytest.raises(ValueError, match="same values"):
        merge_columns(profile_column([1.0], EDGES, (1.0,)), profile_column([1.0], EDGES, (2.0,)))
    with pytest.raises(ValueError, match="same values"):
        merge_columns(profile_column([1.0], EDGES, (1.0,)), profile_column([1.0], EDGES))


def test_profiles_of_different_columns_do_not_merge():
    with pytest.raises(ValueError, match="same columns"):
        merge_profiles([{"a": profiled([1.0])}, {"b": profiled([1.0])}])
    with pytest.raises(ValueError, match="0 given"):
        merge_profiles([])


def test_a_reference_counts_by_value_where_there_are_few():
    few = profile_reference([1.0, 2.0, 2.0, math.nan], 4)
    assert few.categories == Categories(values=(1.0, 2.0), counts=(1, 2), other=0, is_ordered=True)
    assert profile_reference(np.arange(profiles.MAX_CATEGORIES + 1), 4).categories is None


def test_a_reference_counts_declared_categories_also_those_that_it_did_not_see():
    named = profile_reference([1.0, 1.0], 4, (0.0, 1.0, 2.0))
    assert named.categories == Categories(values=(0.0, 1.0, 2.0), counts=(0, 2, 0), other=0, is_ordered=False)


def test_a_reference_without_a_value_calls_every_value_drift():
    reference = profile_reference([math.nan, math.nan], 4)
    assert reference.histogram == Histogram(edges=(0.0,), counts=(0, 0), nulls=2)
    assert profile_like([5.0], reference).histogram.counts == (0, 1)


def test_a_window_is_profiled_on_the_bins_of_its_reference():
    reference = {"recency": profile_reference(np.arange(100), 2), "kind": profile_reference([0, 1], 2, (0.0, 1.0))}
    found = profile_columns({"recency": [70.0], "kind": [1.0, 3.0]}, reference)
    assert found["recency"].places == (0.0, 49.5, 99.0)
    assert found["recency"].counts == (0, 0, 1, 0, 0)
    assert found["kind"].categories == Categories(values=(0.0, 1.0), counts=(0, 1), other=1, is_ordered=False)


def test_a_column_that_vanished_is_not_a_column_without_drift():
    with pytest.raises(ValueError, match="no column recency"):
        profile_columns({}, {"recency": profile_column([1.0], (0.0,))})
