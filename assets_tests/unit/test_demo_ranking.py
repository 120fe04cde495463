"""Lists of flights for the demo: which there are, and what a user clicks."""

import random
from collections import Counter
from datetime import UTC, date, datetime

import pytest

from boucle.contracts.ids import EntityKey
from boucle_cli.demo.ranking import Flight, RouteDay, clicks, route_days, user_of

MONDAY, TUESDAY = date(2013, 7, 1), date(2013, 7, 2)
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)


def flight(name: str, *, is_late: bool = False) -> Flight:
    return Flight(EntityKey(name), NOON, is_late)


def test_a_list_is_of_one_route_and_one_day_with_enough_flights():
    flights = [
        ("JFK-LAX", TUESDAY, flight("d")),
        *(("EWR-ORD", MONDAY, flight(name)) for name in "abc"),
        ("JFK-LAX", TUESDAY, flight("e")),
        ("JFK-LAX", MONDAY, flight("x")),
        ("JFK-LAX", TUESDAY, flight("f")),
        ("EWR-ORD", TUESDAY, flight("y")),
    ]
    found = [(group.route, group.day, "".join(one.flight_id for one in group.flights)) for group in route_days(flights)]
    assert found == [("EWR-ORD", MONDAY, "abc"), ("JFK-LAX", TUESDAY, "def")]
    assert len(route_days(flights, at_least=1)) == 4


def test_a_user_clicks_late_flights_from_the_top_and_stops_after_three():
    late = [True, False, True, True, False, True]
    assert clicks(late, random.Random(1), probability=1) == [0, 2, 3]
    assert clicks(late, random.Random(1), probability=1, most=1) == [0]


def test_a_punctual_flight_is_never_clicked():
    rng = random.Random(1)
    assert {tuple(clicks([False] * 5, rng)) for _ in range(100)} == {()}
    assert {place for _ in range(100) for place in clicks([False, True, False, True], rng)} == {1, 3}


def test_four_of_five_late_flights_that_are_looked_at_are_clicked():
    rng = random.Random(1)
    seen = Counter(len(clicks([True], rng)) for _ in range(5_000))
    assert seen[1] / 5_000 == pytest.approx(0.8, abs=0.02)


def test_a_list_has_the_same_user_with_the_same_seed_and_another_with_another():
    group, other = RouteDay("EWR-ORD", MONDAY, ()), RouteDay("EWR-ORD", TUESDAY, ())
    assert user_of(group, 7).random() == user_of(group, 7).random()
    assert len({user_of(one, seed).random() for one in (group, other) for seed in (7, 8)}) == 4
