"""Periods tile time: half-open, no gap, no overlap, whatever the cadence."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.windows import Cadence, next_period, period_at, period_of, previous_period
from boucle.errors import ConfigurationError

MOMENTS = st.datetimes(
    min_value=datetime(1971, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
    max_value=datetime(2199, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-11))]),
)
CADENCES = st.sampled_from(Cadence)


@given(moment=MOMENTS, cadence=CADENCES)
def test_the_period_at_a_moment_contains_it_and_its_key_names_it(moment: datetime, cadence: Cadence):
    period = period_at(moment, cadence)
    assert period.contains(moment)
    assert period_of(period.key, cadence) == period


@given(moment=MOMENTS, cadence=CADENCES)
def test_the_next_period_starts_where_this_one_ends_and_leads_back(moment: datetime, cadence: Cadence):
    period = period_at(moment, cadence)
    following = next_period(period, cadence)
    assert following.start == period.end
    assert following.key > period.key
    assert previous_period(following, cadence) == period


@given(moment=MOMENTS, cadence=CADENCES)
def test_a_period_holds_its_start_and_not_its_end(moment: datetime, cadence: Cadence):
    period = period_at(moment, cadence)
    assert period.contains(period.start)
    assert period.contains(period.end - timedelta(microseconds=1))
    assert not period.contains(period.end)
    assert not period.contains(period.start - timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("key", "days"), [("1997-01", 31), ("1997-02", 28), ("1996-02", 29), ("1900-02", 28), ("2000-02", 29)]
)
def test_a_month_has_its_days(key: str, days: int):
    period = period_of(key, Cadence.MONTHLY)
    assert period.end - period.start == timedelta(days=days)


def test_the_period_is_cut_in_utc():
    evening_in_new_york = datetime(1997, 4, 30, 21, tzinfo=timezone(timedelta(hours=-4)))
    assert period_at(evening_in_new_york, Cadence.MONTHLY).key == "1997-05"


@pytest.mark.parametrize(
    ("key", "cadence", "hint"),
    [
        ("1997-13", Cadence.MONTHLY, "'1997-13' is not a monthly period; write it like 1997-04"),
        ("1997-04-01", Cadence.MONTHLY, "write it like 1997-04"),
        ("1997-02-29", Cadence.DAILY, "'1997-02-29' is not a daily period; write it like 1997-04-01"),
        ("", Cadence.DAILY, "'' is not a daily period"),
        ("1997-4", Cadence.MONTHLY, "'1997-4' is not a monthly period"),
    ],
)
def test_a_key_of_another_cadence_is_refused_with_an_example(key: str, cadence: Cadence, hint: str):
    with pytest.raises(ConfigurationError, match=hint):
        period_of(key, cadence)
