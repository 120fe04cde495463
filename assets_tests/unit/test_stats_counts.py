"""Counts against shares that they should have, at every look."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from boucle.stats.counts import always_valid_p, concentration_for, log_evidence, share_interval

ALPHA, LOOKS, WALKS = 0.05, 1_000, 1_000
counts = st.integers(0, 5_000)


def test_the_evidence_of_one_head_and_of_two_is_worked_out_by_hand():
    """A uniform prior (K = 2): the second head in a row had the probability 2/3 instead of 1/2."""
    assert log_evidence([1, 0], [0.5, 0.5], concentration=2) == pytest.approx(0)
    assert log_evidence([2, 0], [0.5, 0.5], concentration=2) == pytest.approx(math.log(4 / 3))
    assert always_valid_p([2, 0], [0.5, 0.5], concentration=2) == pytest.approx(0.75)
    assert log_evidence([1, 1], [0.5, 0.5], concentration=2) == pytest.approx(math.log(2 / 3))


def test_three_sides_are_judged_as_two_are():
    """A prior of one each: the second of three alike had 2/4, the third 3/5, instead of 1/3 each."""
    found = log_evidence([3, 0, 0], [1 / 3, 1 / 3, 1 / 3], concentration=3)
    assert found == pytest.approx(math.log((1 / 3 * 2 / 4 * 3 / 5) / (1 / 27)))


@given(st.integers(0, 40), st.floats(0.05, 0.95), st.floats(1, 500))
def test_the_evidence_is_a_martingale(before: int, theta: float, concentration: float):
    """What is expected after the next one is what is there now: so it pays nothing to look more often."""
    shares = [theta, 1 - theta]
    now, one, other = (
        math.exp(log_evidence(at, shares, concentration=concentration))
        for at in ([before, 7], [before + 1, 7], [before, 8])
    )
    assert theta * one + (1 - theta) * other == pytest.approx(now)


def test_right_shares_are_called_wrong_at_any_look_no_more_often_than_declared():
    steps = np.random.default_rng(5).random((WALKS, LOOKS)) < 0.3
    alarmed = 0
    for hits in steps.cumsum(axis=1)[:, 9::10]:
        seen = zip(hits, range(10, LOOKS + 1, 10), strict=True)
        found = (always_valid_p([int(hit), n - int(hit)], [0.3, 0.7], concentration=50) for hit, n in seen)
        alarmed += any(p < ALPHA for p in found)
    assert 0 < alarmed / WALKS <= ALPHA + 2 * math.sqrt(ALPHA / WALKS)


@pytest.mark.parametrize("shares", [[0.5, 0.6], [1.0, 0.0], [1.0]])
def test_shares_that_are_none_are_refused(shares: list[float]):
    with pytest.raises(ValueError, match="must be above 0, sum to 1"):
        log_evidence([1, 1], shares, concentration=10)


@given(counts, counts, st.floats(0.01, 0.3), st.floats(0.2, 0.8), st.floats(1, 300))
def test_the_interval_holds_the_shares_that_the_evidence_does_not_speak_against(
    hits: int, misses: int, alpha: float, center: float, concentration: float
):
    n = hits + misses
    low, high = share_interval(hits, n, alpha=alpha, center=center, concentration=concentration)
    assert 0 <= low <= (hits / n if n else 0.5) <= high <= 1
    assert hits or low == 0
    assert misses or high == 1


def test_the_interval_of_two_hits_is_worked_out_by_hand():
    """A uniform prior gives two hits in a row 1/3; a share is left behind once share^2 is below alpha / 3."""
    low, high = share_interval(2, 2, alpha=0.12, center=0.5, concentration=2)
    assert (low, high) == (pytest.approx(0.2), 1.0)


@given(counts, counts, st.floats(0.01, 0.3), st.floats(0.2, 0.8), st.floats(1, 300))
def test_the_center_is_left_out_exactly_when_its_test_rejects_it(
    hits: int, misses: int, alpha: float, center: float, concentration: float
):
    p = always_valid_p([hits, misses], [center, 1 - center], concentration=concentration)
    assume(abs(p - alpha) > 1e-6)
    low, high = share_interval(hits, hits + misses, alpha=alpha, center=center, concentration=concentration)
    assert (low <= center <= high) == (p > alpha)


def test_without_counts_every_share_is_possible():
    assert share_interval(0, 0, alpha=ALPHA, center=0.5, concentration=60) == (0.0, 1.0)


def test_a_concentration_is_a_standard_deviation():
    draws = np.random.default_rng(3).beta(0.3 * 52.5, 0.7 * 52.5, 100_000)
    assert concentration_for(0.3, float(draws.std())) == pytest.approx(52.5, rel=0.02)
