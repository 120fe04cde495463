"""The lists of the demo over HTTP: a real server, a version on trial that ranks better, and whom the users prefer."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from assets_tests.bundles import FEATURES, MODEL, NOVEMBER, put_bundle
from assets_tests.contract.test_http import NOON, World
from assets_tests.contract.test_short_way import Server
from assets_tests.contract.test_trials import try_version_2
from boucle.contracts.ids import EntityKey, ModelName
from boucle.contracts.rank import RankRecord
from boucle.contracts.traffic_plan import Strategy
from boucle.contracts.trials import Preferences
from boucle.policy.interleaving import InterleavingPolicy
from boucle_adapters.feedback import read_feedback
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.rank_facts import preferences, ranked_ids
from boucle_cli.demo.ranking import Flight, RankTally, RouteDay, rank_route_days

pytestmark = pytest.mark.timeout(240)
FLIGHTS = 40
DAY = date(1997, 11, 1)
POLICY = InterleavingPolicy()


def is_late(number: int) -> bool:
    """Every third flight; the first feature says so, the second is noise."""
    return number % 3 == 0


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 looks at the noise, version 2 at what makes flights late."""
    made = World(tmp_path)
    publish_snapshot(
        made.root / "online" / MODEL,
        entity_keys=[str(number) for number in range(FLIGHTS)],
        as_of=[NOVEMBER] * FLIGHTS,
        features=np.array([[float(is_late(number)), (number * 17 % FLIGHTS) / FLIGHTS] for number in range(FLIGHTS)]),
        feature_names=FEATURES,
        watermark=NOVEMBER,
        source_digests=[],
    )
    made.promote(1, weights=(0.0, 1.0))
    made.poll()
    digest = put_bundle(made.bundles, made.root / "scratch", weights=(1.0, 0.0))
    try_version_2(made, digest, weight=0, strategy=Strategy.INTERLEAVING)
    return made


@pytest.fixture
def address(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with Server(world, monkeypatch).running() as server:
        yield "http://{}:{}".format(*server.socket.getsockname())


def group(number: int, *, size: int = 8) -> RouteDay:
    """A list of some of the flights, others for each number."""
    chosen = [(number * 7 + step * 3 + step // 2) % FLIGHTS for step in range(size)]
    return RouteDay(f"EWR-{number}", DAY, tuple(Flight(EntityKey(str(n)), NOVEMBER, is_late(n)) for n in chosen))


def lists(world: World) -> list[RankRecord]:
    return list(world.ranks.read(MODEL, NOON, NOON + timedelta(hours=1)))


def preferred(world: World) -> Preferences:
    plans = [plan for plan in world.state.plan_history(MODEL) if plan.rollout]  # type: ignore[union-attr]
    return preferences(
        world.ranks, world.feedback, MODEL, plans, policy=POLICY, now=NOON + timedelta(hours=POLICY.click_window_hours)
    )


def test_users_prefer_the_version_that_puts_late_flights_first(world: World, address: str):
    tally = rank_route_days(address, MODEL, "user_id", [group(number) for number in range(60)])
    assert (tally.lists, tally.shown, tally.left_out, tally.failures) == (60, 480, 0, {})
    found = preferred(world)
    assert found.decided + found.ties == 60
    assert found.challenger > 2 * found.production > 0


def test_what_is_counted_is_what_is_in_the_logs(world: World, address: str):
    groups = [group(number) for number in range(5)]
    tally = rank_route_days(address, MODEL, "user_id", groups)
    shown = {item.prediction_id: int(item.entity_key or "") for record in lists(world) for item in record.items}
    clicked = read_feedback(world.feedback, known=ranked_ids(world.ranks, [MODEL]))
    assert (len(shown), len(clicked.rewards), clicked.unknown) == (tally.shown, tally.clicks, frozenset())
    assert all(is_late(shown[name]) for name in clicked.rewards)
    assert tally.late == sum(flight.is_late for one in groups for flight in one.flights) >= tally.clicks > 0
    assert [record.request_id for record in lists(world)] == [f"EWR-{number}.{DAY}.7" for number in range(5)]


def test_the_same_lists_with_the_same_seed_are_clicked_alike_and_with_another_differently(world: World, address: str):
    groups = [group(number) for number in range(20)]
    first, again, other = (rank_route_days(address, MODEL, "user_id", groups, seed=seed) for seed in (7, 7, 8))
    assert first == again
    assert first.clicks != other.clicks


def test_a_flight_without_features_is_left_out_and_a_list_of_such_ones_is_a_failure(world: World, address: str):
    unknown = Flight(EntityKey("999"), NOVEMBER, is_late=True)
    some = group(1)._replace(flights=(*group(1).flights, unknown))
    none = group(2)._replace(flights=(unknown,))
    tally = rank_route_days(address, MODEL, "user_id", [some, none])
    assert (tally.lists, tally.shown, tally.left_out) == (1, 8, 1)
    assert [said[:4] for said in tally.failures] == ["422:"]


def test_an_address_that_nobody_answers_at_is_a_failure_and_no_exception():
    tally = rank_route_days("http://127.0.0.1:1", ModelName("flight_delay"), "flight_id", [group(1), group(2)])
    assert tally.failures.total() == 2
    assert tally == RankTally(failures=tally.failures)
