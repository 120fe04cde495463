"""Several worker processes behind one address: each is a replica, one that dies is replaced, all end together."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from assets_tests.bundles import MODEL, publish_users
from assets_tests.replica import QUESTION, Replica, wait_for
from boucle_adapters.sql_state import SqlStateStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
BOTH = {"one.1": {MODEL: 1}, "one.2": {MODEL: 1}}


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path, BOUCLE_WORKERS="2")
    publish_users(replica.settings.online_dir / MODEL)
    yield replica
    if replica.process is not None and replica.exit_code() is None:
        for child in psutil.Process(replica.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                child.kill()
        replica.kill()


@pytest.fixture
def state(replica: Replica) -> Iterator[SqlStateStore]:
    state = SqlStateStore.create(replica.settings.state_store_url)
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: state.replicas(max_age_seconds=3) == BOTH)
    yield state
    state.close()


def pid_of(replica: Replica, worker: str) -> int | None:
    file = replica.settings.home / f"serving-{worker}.json"
    return int(json.loads(file.read_text())["pid"]) if file.exists() else None


def ask(address: str) -> httpx.Response:
    """Over a connection of its own: any worker may take it."""
    return httpx.post(f"{address}/predict", json=QUESTION, timeout=5)


def test_each_worker_is_a_replica_that_follows_the_plan_and_answers_by_itself(replica: Replica, state: SqlStateStore):
    addresses = state.addresses(max_age_seconds=3)
    assert set(addresses) == set(BOTH)
    assert len({*addresses.values(), replica.address}) == 3
    for address in (*addresses.values(), replica.address):
        assert ask(address).json()["model_version"] == 1
    replica.promote(state, 2)
    wait_for(lambda: state.replicas(max_age_seconds=3) == {"one.1": {MODEL: 2}, "one.2": {MODEL: 2}})
    assert {ask(replica.address).json()["model_version"] for _ in range(20)} == {2}


def test_whoever_is_asked_the_metrics_are_those_of_all_workers(replica: Replica, state: SqlStateStore):
    for number, address in enumerate(sorted(state.addresses(max_age_seconds=3).values()), start=1):
        for _ in range(number):
            ask(address)
    own = httpx.get(f"{next(iter(state.addresses(max_age_seconds=3).values()))}/metrics", timeout=5).text
    assert 'worker="' not in own
    for _ in range(4):
        text = httpx.get(f"{replica.address}/metrics", timeout=5).text
        counted = {
            sample.labels["worker"]: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "boucle_requests_total"
        }
        assert sorted(counted.values()) == [1, 2]
        assert set(counted) == set(BOTH)


def test_a_worker_that_is_killed_is_replaced_and_goes_on_under_its_name(replica: Replica, state: SqlStateStore):
    killed = pid_of(replica, "one.1")
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    told = set()

    def is_replaced() -> bool:
        told.add(ask(replica.address).status_code)
        return pid_of(replica, "one.1") not in {killed, None}

    wait_for(is_replaced)
    own = json.loads((replica.settings.home / "serving-one.1.json").read_text())["address"]
    wait_for(lambda: state.addresses(max_age_seconds=3).get("one.1") == own)  # its first heartbeat
    told |= {ask(own).status_code, *(ask(replica.address).status_code for _ in range(20))}
    assert told == {200}  # a worker joins the others once it has a model


def test_all_end_with_the_supervisor_and_sign_off(replica: Replica, state: SqlStateStore):
    workers = [pid for pid in (pid_of(replica, name) for name in BOTH) if pid is not None]
    assert replica.stop() == 0
    assert state.replicas(max_age_seconds=60) == {}
    assert not any(psutil.pid_exists(pid) for pid in workers)
    assert list(replica.settings.home.glob("serving-*.json")) == []


def test_workers_whose_supervisor_was_killed_end_too(replica: Replica, state: SqlStateStore):
    workers = [pid for pid in (pid_of(replica, name) for name in BOTH) if pid is not None]
    assert len(workers) == 2
    replica.kill()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in workers))
    assert state.replicas(max_age_seconds=60) == {}
