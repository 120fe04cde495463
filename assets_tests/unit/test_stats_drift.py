"""Statistics of drift: by hand, against exact ones from raw rows, and what they are when nothing happened."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance as spatial

from assets_tests.judging import MOVED, SAME, column
from boucle.contracts.monitoring import DriftStatistic
from boucle.contracts.profile import ColumnProfile
from boucle.errors import NotEnoughDataError
from boucle.features.profiles import merge_columns, profile_column, profile_like, profile_reference
from boucle.stats.distance import kolmogorov_smirnov, wasserstein
from boucle.stats.drift import (
    chi_square,
    jensen_shannon,
    psi,
    psi_null_mean,
    psi_statistic,
    weighted_mean,
)
from boucle.stats.multiplicity import holm

LEVEL = 0.99


def test_the_same_profile_has_not_drifted():
    assert psi(SAME, SAME) == 0.0
    for statistic in (psi_statistic, jensen_shannon, chi_square, kolmogorov_smirnov):
        found = statistic(SAME, SAME, level=LEVEL)
        assert found.value == 0
        assert found.p_value == 1
        assert not found.is_beyond
    assert wasserstein(SAME, SAME).value == 0


def test_the_index_is_what_the_formula_says_after_half_a_row_was_added_to_each_bin():
    reference, current = column(99, 299), column(299, 99)
    p, q = 99.5 / 399, 299.5 / 399
    assert psi(reference, current) == pytest.approx(2 * (q - p) * math.log(q / p))


def test_the_jensen_shannon_distance_is_what_the_formula_says_in_bits():
    # Half against all of one value: m = (3/4, 1/4); the divergence is (log2(4/3) + (log2(2/3) + log2(2)) / 2) / 2.
    found = jensen_shannon(column(500, 500), column(1_000, 0), level=LEVEL)
    assert found.value == pytest.approx(math.sqrt((math.log2(4 / 3) + (math.log2(2 / 3) + 1) / 2) / 2))


def test_chi_square_is_what_the_formula_says():
    # 300 and 100 against 200 and 200: expected 250 and 150 on both sides, so 2 * (50^2 / 250 + 50^2 / 150) = 53.33.
    found = chi_square(column(300, 100), column(200, 200), level=LEVEL)
    assert found.value == pytest.approx(160 / 3)
    assert found.unit == "chi-square, 1 degrees of freedom"
    assert found.limit == pytest.approx(6.635, abs=0.001)


def test_chi_square_takes_bins_together_that_have_too_few_rows():
    # Of 100 and 100 rows, four to expect in the last bin but one and one in the last: together five.
    found = chi_square(column(50, 42, 6, 2), column(52, 46, 2, 0), level=LEVEL)
    by_hand = stats.chi2_contingency([[50, 42, 8], [52, 46, 2]], correction=False)
    assert (found.value, found.p_value) == pytest.approx((by_hand.statistic, by_hand.pvalue))


def test_rare_bins_that_stay_too_few_together_take_the_smallest_other_one_with_them():
    found = chi_square(column(50, 48, 2), column(60, 39, 1), level=LEVEL)
    by_hand = stats.chi2_contingency([[50, 50], [60, 40]], correction=False)
    assert found.value == pytest.approx(by_hand.statistic)


def test_the_kolmogorov_smirnov_distance_is_the_largest_gap_of_the_shares_below_an_edge():
    found = kolmogorov_smirnov(column(0, 500, 500), column(0, 200, 800, nulls=77), level=LEVEL)
    assert found.value == pytest.approx(0.3)
    assert (found.reference_n, found.current_n) == (1_000, 1_000)
    # 1.628 is Smirnov's quantile of 99 per cent.
    assert found.limit == pytest.approx(1.628 * math.sqrt(2 / 1_000), abs=1e-4)


def test_the_wasserstein_distance_of_a_shift_is_the_shift():
    values = np.linspace(0, 1, 1_001)
    reference = profile_reference(values, 30)
    found = wasserstein(reference, profile_like(values + 0.5, reference))
    assert found.value * values.std() == pytest.approx(0.5, rel=0.01)
    assert found.unit == "SD of the reference"


def test_one_value_far_out_counts_by_how_far_it_is():
    values = np.zeros(1_000)
    values[:500] = 1.0
    moved = values.copy()
    moved[0] = 1_001.0
    reference = profile_reference(values, 4)
    # One row of a thousand moves by a thousand: 1, in standard deviations of 0.5.
    assert wasserstein(reference, profile_like(moved, reference)).value == pytest.approx(2.0)


def test_infinite_values_have_no_place():
    reference = profile_reference(np.arange(100.0), 4)
    current = profile_like([*np.arange(100.0), math.inf, -math.inf, math.nan], reference)
    assert wasserstein(reference, current).value == pytest.approx(0)


def test_what_has_no_value_or_no_spread_has_no_distance():
    missing = profile_like([math.nan], SAME)
    assert kolmogorov_smirnov(SAME, missing, level=LEVEL) is None
    assert wasserstein(SAME, missing) is None
    assert wasserstein(ColumnProfile(histogram=SAME.histogram), SAME) is None
    constant = profile_reference([3.0, 3.0], 4)
    assert wasserstein(constant, profile_like([4.0], constant)) is None


def test_categories_are_compared_by_value():
    reference = profile_reference([0.0] * 60 + [1.0] * 40, 10, (0.0, 1.0))
    same_bins = profile_like([0.0] * 30 + [1.0] * 20 + [0.5] * 50, reference)
    # Half of the rows have a value that is none of the names: one degree of freedom more, 150 rows.
    found = chi_square(reference, same_bins, level=LEVEL)
    by_hand = stats.chi2_contingency([[60, 40, 0], [30, 20, 50]], correction=False)
    assert (found.value, found.p_value) == pytest.approx((by_hand.statistic, by_hand.pvalue))


@pytest.mark.parametrize("statistic", [psi_statistic, jensen_shannon, chi_square, kolmogorov_smirnov])
def test_every_statistic_grows_with_drift_and_says_what_it_rests_on(statistic):
    rng = np.random.default_rng(5)
    reference = profile_reference(rng.normal(size=5_000), 30)
    found: list[DriftStatistic] = [
        statistic(reference, profile_like(rng.normal(shift, size=1_000), reference), level=LEVEL)
        for shift in (0.0, 0.5, 1.0)
    ]
    assert [one.value for one in found] == sorted(one.value for one in found)
    assert [one.is_beyond for one in found] == [False, True, True]
    assert found[0].p_value > 0.01 > found[1].p_value
    assert (found[0].reference_n, found[0].current_n) == (5_000, 1_000)


# Shift in standard deviations, and how far statistics of 30 bins may be from exact ones.
SHIFTS = (0.0, 0.1, 0.5, 1.0)
KS_APART, WASSERSTEIN_APART, PSI_APART = 0.01, 0.01, 0.005


@pytest.mark.parametrize("shift", SHIFTS)
def test_statistics_of_merged_profiles_agree_with_exact_ones_of_the_raw_rows(shift: float):
    rng = np.random.default_rng(11)
    before = rng.normal(size=20_000)
    periods = [rng.normal(shift, size=n) for n in (500, 3_000, 6_500)]
    now = np.concatenate(periods)
    reference = profile_reference(before, 30)
    merged = profile_like(periods[0], reference)
    for period in periods[1:]:
        merged = merge_columns(merged, profile_like(period, reference))

    edges = np.array([-np.inf, *reference.histogram.edges, np.inf])
    p, q = (np.histogram(values, edges)[0] / len(values) for values in (before, now))
    # The plain formula knows no empty bin: those beyond the reference's range are left out on both sides.
    used = (p > 0) & (q > 0)
    inner = psi(reference, merged) - of_lonely_bins(reference, merged)
    assert inner == pytest.approx(np.sum((p - q)[used] * np.log(p[used] / q[used])), abs=PSI_APART)
    assert jensen_shannon(reference, merged, level=LEVEL).value == pytest.approx(
        spatial.jensenshannon(p, q, base=2), abs=1e-9
    )
    assert kolmogorov_smirnov(reference, merged, level=LEVEL).value == pytest.approx(
        stats.ks_2samp(before, now).statistic, abs=KS_APART
    )
    assert wasserstein(reference, merged).value == pytest.approx(
        stats.wasserstein_distance(before, now) / before.std(), abs=WASSERSTEIN_APART
    )


def of_lonely_bins(reference: ColumnProfile, merged: ColumnProfile) -> float:
    """What bins that only one side uses add to the index."""
    counts = np.array([reference.histogram.counts, merged.histogram.counts], dtype=float)
    counts = counts[:, counts.sum(axis=0) > 0]
    p, q = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
    lonely = counts.min(axis=0) == 0
    return float(np.sum((p - q)[lonely] * np.log(p[lonely] / q[lonely])))


def test_the_index_is_symmetric():
    assert psi(SAME, MOVED) == pytest.approx(psi(MOVED, SAME))


def test_an_empty_bin_makes_it_large_and_not_infinite():
    assert 1 < psi(column(500, 0), column(0, 500)) < 20


def test_values_that_went_missing_are_drift():
    assert psi(column(500, 500), column(250, 250, nulls=500)) > 1


def test_values_below_and_above_the_reference_range_are_drift():
    edges = (0.0, 0.5, 1.0)
    reference = profile_column(np.linspace(0, 0.99, 400), edges)
    outside = profile_column(np.concatenate([np.full(200, -5.0), np.full(200, 9.0)]), edges)
    assert psi(reference, outside) > 3


def test_without_drift_the_index_is_about_what_the_null_expects():
    rng = np.random.default_rng(2)
    edges = tuple(np.linspace(-1.2, 1.2, 9))

    def draw(n: int):
        return profile_column(rng.normal(size=n), edges)

    found = [psi(draw(2_000), draw(500)) for _ in range(300)]
    example = draw(2_000), draw(500)
    assert psi_null_mean(*example) == pytest.approx(9 * (1 / 2_000 + 1 / 500))
    assert np.mean(found) == pytest.approx(psi_null_mean(*example), rel=0.1)
    limit = psi_statistic(*example, level=0.95).limit
    assert np.mean(np.array(found) > limit) == pytest.approx(0.05, abs=0.035)


def test_at_200_rows_and_30_bins_a_calm_window_has_an_index_that_is_often_called_drift():
    rng = np.random.default_rng(4)
    reference = profile_reference(rng.normal(size=10_000), 30)
    example = profile_like(rng.normal(size=200), reference)
    assert psi_null_mean(reference, example) == pytest.approx(0.15, abs=0.01)


def test_profiles_on_different_bins_cannot_be_compared():
    with pytest.raises(ValueError, match="different bins"):
        psi(column(1, 1), column(1, 1, 1))


def test_an_empty_window_is_an_error_and_not_no_drift():
    with pytest.raises(NotEnoughDataError, match="current has 0"):
        psi(SAME, column(0, 0, 0, 0, 0))


@given(st.lists(st.integers(0, 50), min_size=2, max_size=6), st.integers(1, 40))
def test_the_index_is_never_negative(counts: list[int], more: int):
    assert psi(column(more, *counts), column(*counts, more)) >= 0


def test_weights_decide_how_much_a_value_counts():
    assert weighted_mean({"recency": 2.0, "freq": 0.0}, {"recency": 1.0, "freq": 3.0}) == 0.5


def test_weights_that_sum_to_nothing_give_no_mean():
    assert weighted_mean({"recency": 2.0}, {"recency": 0.0}) is None


def test_a_value_without_weight_is_refused():
    with pytest.raises(ValueError, match="No weight for freq"):
        weighted_mean({"freq": 1.0}, {"recency": 1.0})


def test_of_many_hypotheses_the_surest_must_be_surer_than_one_alone():
    # 0.05 / 3 = 0.0167, 0.05 / 2 = 0.025, 0.05.
    assert holm({"a": 0.016, "b": 0.024, "c": 0.06}, level=0.05) == {"a", "b"}
    assert holm({"a": 0.017, "b": 0.0171, "c": 0.0172}, level=0.05) == frozenset()
    assert holm({}, level=0.05) == frozenset()
