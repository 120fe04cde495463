"""A promoted version that fails its callers is put back by the guard, and by nobody's hand."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from mlflow import MlflowClient

from assets_tests.bundles import MODEL, promote, publish_users, put_bundle
from assets_tests.replica import QUESTION, Replica, wait_for
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelVersion
from boucle.errors import RegistryError
from boucle.operations import promotion
from boucle.operations.aliases import reconcile_aliases
from boucle_adapters.home import Home
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.guard import guard_sensor
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.home import HomeResource

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
DECLARED = catalogue.spec_of("repurchase")
SPEC = DECLARED.model_copy(update={"service": DECLARED.service.model_copy(update={"fast": ()})})
"""The sensor alone: the guard inside the replica would be faster than its tick."""


@dataclass
class World:
    """A replica that serves version 2, a home, and the guard with its cursor."""

    replica: Replica
    home: Home
    cursor: str | None = None

    def tick(self, spec: LoopSpec = SPEC) -> Any:
        """Evaluate the sensor as a daemon does."""
        with (
            dg.DagsterInstance.ephemeral() as instance,
            dg.build_sensor_context(
                instance=instance,
                cursor=self.cursor,
                sensor_name="repurchase_guard",
                resources={"home": HomeResource.of(self.replica.settings)},
            ) as context,
        ):
            answer = guard_sensor(spec)(context)
        self.cursor = answer.cursor or self.cursor
        return answer

    def ask(self, times: int) -> set[int]:
        """Status codes of so many requests."""
        with httpx.Client(base_url=self.replica.address, timeout=5) as client:
            return {client.post("/predict", json=QUESTION).status_code for _ in range(times)}

    def moves(self) -> list[tuple[str, int | None]]:
        """Who moved production where."""
        return [
            (row.decision.actor, row.decision.to_version)
            for row in self.home.state.decisions(MODEL)
            if row.decision.kind is DecisionKind.ROLLBACK
        ]


def test_replicas_put_it_back_by_themselves_and_once_and_the_sensor_brings_the_alias(world: World):
    two = Replica(world.replica.settings.home, "two").start()
    try:
        assert "has the objectives of defs.yaml" in world.tick(DECLARED).skip_reason.skip_message
        with httpx.Client(base_url=two.address, timeout=5) as client:
            wait_for(lambda: client.post("/predict", json=QUESTION).status_code == 200 or world.ask(10) == {200})
        ((actor, to),) = world.moves()
        assert (actor in {"guard:one", "guard:two"}, to) == (True, 1)
        wait_for(lambda: world.replica.version() == 1)
        world.tick(DECLARED)
        assert world.home.registry.alias(MODEL, "production") == 1
    finally:
        two.kill()


def boucle_rollback(world: World) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("boucle")), "rollback", "--reason", "test"],
        env={
            **os.environ,
            "BOUCLE_HOME": str(world.replica.settings.home),
            "COLUMNS": "200",
            "BOUCLE_REPLICA_TIMEOUT_SECONDS": "8",  # the command must look before the heartbeat expires
        },
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Version 1 answers, 2 was promoted after it: it passes its recorded request and fails every caller."""
    replica = Replica(tmp_path)
    publish_users(replica.settings.online_dir / MODEL)
    home = Home(replica.settings)
    client = MlflowClient(tracking_uri=home.registry.tracking_uri)
    client.create_registered_model(MODEL)
    for version in (1, 2):
        assert int(client.create_model_version(MODEL, str(tmp_path)).version) == version
    replica.promote(home.state, 1)
    broken = put_bundle(replica.bundles, tmp_path / "scratch", weights=(-18.0, 10.0), minimum=0.5)
    replica.start()
    try:
        wait_for(lambda: replica.version() == 1)
        world = World(replica, home)
        world.tick()  # it looks at version 1
        promote(home.state, version=2, digest=broken)
        reconcile_aliases(home.state, home.registry, MODEL)
        wait_for(lambda: world.ask(1) == {500})
        yield world
    finally:
        replica.kill()
        home.state.close()


def test_a_version_that_fails_its_callers_is_put_back_and_the_alias_follows(world: World):
    assert "failed_requests: inconclusive" in world.tick().skip_reason.skip_message  # one request says nothing
    assert world.ask(100) == {500}
    (request,) = world.tick().run_requests
    assert request.tags["boucle/trigger"].startswith("failed_requests: failed (measured 1 ratio of requests")
    assert world.moves() == [("sensor:repurchase_guard", 1)]
    assert (world.ask(20), world.replica.version()) == ({200}, 1)
    served = world.home.state.decisions(MODEL)[-1].decision
    assert (served.kind, served.to_version, served.seconds < 10) == (DecisionKind.SERVED, 1, True)
    assert world.home.registry.alias(MODEL, "production") == 2
    assert "alias 'production' of 'repurchase' was version 2, is version 1" in world.tick().skip_reason.skip_message
    assert world.home.registry.alias(MODEL, "production") == 1
    world.ask(50)
    assert "failed_requests: passed (measured 0 ratio of requests" in world.tick().skip_reason.skip_message
    assert len(world.moves()) == 1


def freeze(replica: Replica) -> None:
    """Stop it between two writes: one that is stopped while it writes holds SQLite's only lock, and nothing moves."""
    for _ in range(100):
        os.kill(replica.process.pid, signal.SIGSTOP)
        with closing(sqlite3.connect(replica.settings.home / "state.db", timeout=0.1, isolation_level=None)) as store:
            try:
                store.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(replica.process.pid, signal.SIGCONT)
            else:
                return
    raise AssertionError("it was writing each time it was stopped")


def test_a_replica_that_froze_is_named_by_the_rollback_and_holds_it_up_no_longer_than_its_heartbeat(world: World):
    frozen = Replica(world.replica.settings.home, "frozen").start()
    wait_for(lambda: set(world.home.state.replicas(max_age_seconds=3)) == {"one", "frozen"})
    freeze(frozen)
    try:
        done = boucle_rollback(world)
    finally:
        frozen.kill()
    assert (done.returncode, "silent since: frozen" in " ".join(done.stdout.split())) == (0, True), done.stderr
    assert (world.ask(5), world.replica.version()) == ({200}, 1)


def test_what_was_answered_while_nobody_looked_is_no_breach_and_what_comes_then_is(world: World):
    world.cursor = None
    world.ask(100)
    assert "failed_requests: inconclusive (measured nothing" in world.tick().skip_reason.skip_message
    world.ask(100)
    assert len(world.tick().run_requests) == 1
    assert world.moves() == [("sensor:repurchase_guard", 1)]


def test_what_was_answered_while_the_guard_was_silent_is_no_breach_and_what_comes_then_is(world: World):
    """Its last look at this version was twenty minutes ago: an incident may have been over for nineteen of them."""
    world.tick()
    watch = json.loads(world.cursor or "")
    long_ago = [(at - 1200, counts) for at, counts in watch["history"]]
    world.cursor = json.dumps({**watch, "history": long_ago})
    world.ask(100)
    said = world.tick().skip_reason.skip_message
    assert "The guard had not looked for 120" in said
    assert "failed_requests: inconclusive (measured nothing" in said
    assert world.moves() == []
    world.ask(100)
    assert len(world.tick().run_requests) == 1


def test_a_replica_that_could_not_be_read_is_counted_from_when_it_can_be_again(world: World):
    two = Replica(world.replica.settings.home, "two").start()
    try:
        with httpx.Client(base_url=two.address, timeout=5) as client:
            wait_for(lambda: client.post("/predict", json=QUESTION).status_code == 500)
            assert {client.post("/predict", json=QUESTION).status_code for _ in range(100)} == {500}
        watch = json.loads(world.cursor or "")
        world.cursor = json.dumps({**watch, "decision": 2})  # it looked at version 2 before the second one came
        wait_for(lambda: set(world.home.state.replicas(max_age_seconds=3)) == {"one", "two"})
        assert "failed_requests: inconclusive" in world.tick().skip_reason.skip_message
        assert set(json.loads(world.cursor)["history"][-1][1]) == {"one", "two"}
        assert world.moves() == []
    finally:
        two.kill()


def test_what_a_person_put_back_stays_and_its_alias_follows(world: World):
    actor = world.home.actor("user:ada", MODEL)
    promotion.roll_back(world.home.state, MODEL, reason="to see", actor=actor)
    wait_for(lambda: world.replica.version() == 1)
    said = world.tick().skip_reason.skip_message
    assert ("is version 1 as the ledger says" in said, world.home.registry.alias(MODEL, "production")) == (True, 1)
    promotion.roll_back(world.home.state, MODEL, reason="2 after all", actor=actor, to=ModelVersion(2))
    wait_for(lambda: world.ask(1) == {500})
    world.tick()
    world.ask(100)
    assert "it was put back by user:ada, and the guard goes no further" in world.tick().skip_reason.skip_message
    assert [to for _, to in world.moves()] == [1, 2]


def test_a_registry_that_is_away_holds_nothing_up_and_is_asked_again(world: World, monkeypatch: pytest.MonkeyPatch):
    def away(*_: object) -> None:
        raise RegistryError("away")

    world.ask(100)
    with monkeypatch.context() as broken:
        broken.setattr("boucle_adapters.mlflow_registry.MlflowRegistry.alias", away)
        assert len(world.tick().run_requests) == 1
        assert "does not follow decision 3 yet: away" in world.tick().skip_reason.skip_message
    assert world.replica.version() == 1
    assert "is version 1 as the ledger says" in world.tick().skip_reason.skip_message


def test_a_cursor_that_cannot_be_read_and_a_replica_that_is_gone_are_no_breach(world: World):
    world.ask(100)
    world.replica.kill()
    world.cursor = "not a cursor"
    assert "failed_requests: inconclusive (measured nothing" in world.tick().skip_reason.skip_message
    assert world.moves() == []
