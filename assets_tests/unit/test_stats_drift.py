"""The population stability index and what it is when nothing happened."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets_tests.judging import MOVED, SAME, histogram
from boucle.errors import NotEnoughDataError
from boucle.features.profiles import build_histogram
from boucle.stats.drift import psi, psi_null_mean, psi_null_quantile, weighted_mean


def test_the_same_histogram_has_not_drifted():
    assert psi(SAME, SAME) == 0.0


def test_the_index_is_what_the_formula_says_after_half_a_row_was_added_to_each_bin():
    reference, current = histogram(99, 299), histogram(299, 99)
    p, q = 99.5 / 399, 299.5 / 399
    assert psi(reference, current) == pytest.approx(2 * (q - p) * math.log(q / p))


def test_the_index_is_symmetric():
    assert psi(SAME, MOVED) == pytest.approx(psi(MOVED, SAME))


def test_an_empty_bin_makes_it_large_and_not_infinite():
    assert 1 < psi(histogram(500, 0), histogram(0, 500)) < 20


def test_values_that_went_missing_are_drift():
    assert psi(histogram(500, 500), histogram(250, 250, nulls=500)) > 1


def test_values_below_and_above_the_reference_range_are_drift():
    edges = (0.0, 0.5, 1.0)
    reference = build_histogram(np.linspace(0, 0.99, 400), edges)
    outside = build_histogram(np.concatenate([np.full(200, -5.0), np.full(200, 9.0)]), edges)
    assert psi(reference, outside) > 3


def test_without_drift_the_index_is_about_what_the_null_expects():
    rng = np.random.default_rng(2)
    edges = tuple(np.linspace(-1.2, 1.2, 9))

    def draw(n: int):
        return build_histogram(rng.normal(size=n), edges)

    found = [psi(draw(2_000), draw(500)) for _ in range(300)]
    example = draw(2_000), draw(500)
    assert psi_null_mean(*example) == pytest.approx(9 * (1 / 2_000 + 1 / 500))
    assert np.mean(found) == pytest.approx(psi_null_mean(*example), rel=0.1)
    assert np.mean(np.array(found) > psi_null_quantile(*example, level=0.95)) == pytest.approx(0.05, abs=0.035)


def test_histograms_on_different_edges_cannot_be_compared():
    with pytest.raises(ValueError, match="different edges"):
        psi(histogram(1, 1), histogram(1, 1, 1))


def test_an_empty_window_is_an_error_and_not_no_drift():
    with pytest.raises(NotEnoughDataError, match="current has 0"):
        psi(SAME, histogram(0, 0, 0, 0, 0))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6), st.integers(1, 40))
def test_the_index_is_never_negative(counts: list[int], more: int):
    assert psi(histogram(more, *counts), histogram(*counts, more)) >= 0


def test_weights_decide_how_much_a_value_counts():
    assert weighted_mean({"recency": 2.0, "freq": 0.0}, {"recency": 1.0, "freq": 3.0}) == 0.5


def test_weights_that_sum_to_nothing_give_no_mean():
    assert weighted_mean({"recency": 2.0}, {"recency": 0.0}) is None


def test_a_value_without_weight_is_refused():
    with pytest.raises(ValueError, match="No weight for freq"):
        weighted_mean({"freq": 1.0}, {"recency": 1.0})
