"""A source is judged by the end of its newest landed period, on the clock of the home."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.windows import Cadence, period_of
from boucle.features.freshness import Freshness, FreshnessPolicy, read_freshness

POLICY = FreshnessPolicy(warn_days=35, fail_days=40)
APRIL = period_of("1997-04", Cadence.MONTHLY)


def judged(days: float, *, ended: bool = False) -> Freshness:
    return read_freshness(POLICY, APRIL, APRIL.end + timedelta(days=days), ended=ended).freshness


@pytest.mark.parametrize(
    ("days", "freshness"),
    [
        (0, Freshness.FRESH),
        (35, Freshness.FRESH),
        (35.01, Freshness.LATE),
        (40, Freshness.LATE),
        (40.01, Freshness.OVERDUE),
    ],
)
def test_both_windows_include_their_limit(days: float, freshness: Freshness):
    assert judged(days) is freshness


def test_nothing_landed_is_not_fresh():
    assert read_freshness(POLICY, None, APRIL.end, ended=False).freshness is Freshness.UNKNOWN


def test_after_the_last_period_of_a_source_nothing_is_due():
    assert judged(400, ended=True) is Freshness.FRESH


def test_the_sentence_has_the_age_and_both_limits():
    reading = read_freshness(POLICY, APRIL, APRIL.end + timedelta(days=36.25), ended=False)
    assert reading.sentence == "late: 1997-04 ended 36.2 days ago (late after 35, overdue after 40)"


@given(st.floats(0, 100), st.floats(0, 100))
def test_older_is_never_fresher(one: float, other: float):
    order = [Freshness.FRESH, Freshness.LATE, Freshness.OVERDUE]
    younger, older = sorted((one, other))
    assert order.index(judged(younger)) <= order.index(judged(older))


@pytest.mark.parametrize("warn_days", [41, 40])
def test_a_policy_that_does_not_warn_before_it_fails_is_refused(warn_days: float):
    with pytest.raises(ValidationError, match=rf"warn_days \({warn_days}\) must be below fail_days \(40\)"):
        FreshnessPolicy(warn_days=warn_days, fail_days=40)


@pytest.mark.parametrize("days", [0, float("inf"), float("nan"), 1e10])
def test_a_window_that_is_no_time_is_refused(days: float):
    with pytest.raises(ValidationError, match="fail_days"):
        FreshnessPolicy(warn_days=0.01, fail_days=days)
