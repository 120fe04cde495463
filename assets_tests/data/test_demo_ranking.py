"""The flights of the demo's lists, out of landing files."""

from datetime import UTC, date, datetime

import pandas as pd
import pytest

from boucle.contracts.ids import EntityKey
from boucle_cli.demo.ranking import Flight, flights_of
from boucle_platform.defs.flight_delay.landing import export_period


def test_real_flights_are_asked_about_two_hours_before_they_should_leave_and_late_from_15_minutes_on():
    """Of 1 July 2013 (UTC): B6 1203 should have left JFK for SJU at 22:31 on 30 June (02:31 UTC), and came 86 late."""
    rows = export_period("flights", "2013-07-01")
    assert rows is not None
    found = {one.flight_id: (route, day, one) for route, day, one in flights_of(rows)}
    route, day, first = found[EntityKey("B6-1203-JFK-2013-06-30")]
    assert (route, day, first.is_late) == ("JFK-SJU", date(2013, 6, 30), True)
    assert first.as_of == datetime(2013, 7, 1, 0, 31, tzinfo=UTC)
    assert len(found) == (rows["arr_delay"] != "").sum() < len(rows)


@pytest.mark.parametrize(("minutes", "is_late"), [("14", False), ("15", True), ("-3", False)])
def test_a_flight_is_late_from_fifteen_minutes_on(minutes: str, is_late: bool):
    row = {
        "year": "2013",
        "month": "7",
        "day": "1",
        "carrier": "UA",
        "flight": "7",
        "origin": "EWR",
        "dest": "ORD",
        "sched_dep_time": "805",
        "time_hour": "2013-07-01T12:00:00Z",
        "arr_delay": minutes,
    }
    ((route, day, one),) = flights_of(pd.DataFrame([row]))
    assert (route, day) == ("EWR-ORD", date(2013, 7, 1))
    assert one == Flight(EntityKey("UA-7-EWR-2013-07-01"), datetime(2013, 7, 1, 10, 5, tzinfo=UTC), is_late)
