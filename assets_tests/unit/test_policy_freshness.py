"""A source is judged by the end of its newest landed period, on the clock of the home."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.windows import Cadence, period_of
from boucle.policy.freshness import Freshness, FreshnessPolicy, read_freshness

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


def test_a_policy_that_fails_before_it_warns_is_refused():
    with pytest.raises(ValidationError, match=r"warn_days \(41\) must not be above fail_days \(40\)"):
        FreshnessPolicy(warn_days=41, fail_days=40)
