"""No label is used before its whole horizon lies behind the watermark."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from boucle.features.maturity import is_mature, known_at

APRIL = datetime(1997, 4, 1, tzinfo=UTC)
moments = st.timedeltas(timedelta(0), timedelta(days=700)).map(APRIL.__add__)
horizons = st.timedeltas(timedelta(days=1), timedelta(days=365))


def test_a_label_is_known_when_its_horizon_has_passed():
    assert known_at(APRIL, timedelta(days=30)) == datetime(1997, 5, 1, tzinfo=UTC)


def test_a_label_is_mature_at_the_very_moment_it_is_known():
    assert is_mature(APRIL, timedelta(days=30), datetime(1997, 5, 1, tzinfo=UTC))


def test_a_label_is_immature_a_microsecond_before():
    assert not is_mature(APRIL, timedelta(days=30), datetime(1997, 4, 30, 23, 59, 59, 999999, tzinfo=UTC))


@given(as_of=moments, horizon=horizons, watermark=moments, later=st.timedeltas(timedelta(0), timedelta(days=400)))
def test_a_mature_label_stays_mature(as_of, horizon, watermark, later):
    assert not is_mature(as_of, horizon, watermark) or is_mature(as_of, horizon, watermark + later)


@given(as_of=moments, horizon=horizons, watermark=moments)
def test_a_mature_label_needs_nothing_after_the_watermark(as_of, horizon, watermark):
    assert is_mature(as_of, horizon, watermark) == (as_of + horizon <= watermark)
