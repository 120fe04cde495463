"""A real serving process: versions change under load, files break, the process dies."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import pytest

from assets_tests.bundles import MODEL, publish_users, put_bundle
from assets_tests.replica import QUESTION, Replica, wait_for
from boucle.contracts.feedback import FEEDBACK_STREAM
from boucle_adapters.clock import wall_now
from boucle_adapters.feedback import read_feedback
from boucle_adapters.sql_state import SqlStateStore

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]
HEAVY = ("dagster", "mlflow", "sklearn", "pandas", "pandera", "pyarrow", "duckdb", "evidently", "dbt", "alembic")
HEAVY += ("opentelemetry.sdk", "opentelemetry.instrumentation", "apprise", "pythonjsonlogger")


class Load:
    """Threads that ask without a pause; what they were told is kept."""

    def __init__(self, address: str, *, threads: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[int] = Counter()
        self.prediction_ids: set[str] = set()
        self.broken = 0
        self._address = address
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        wait_for(lambda: len(self.prediction_ids) > 50)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    def more(self, answers: int = 200) -> None:
        """Wait until so many more answers came."""
        goal = len(self.prediction_ids) + answers
        wait_for(lambda: len(self.prediction_ids) >= goal)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._address, timeout=5) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", json=QUESTION)
                except httpx.HTTPError:
                    with self._lock:
                        self.broken += 1
                    return
                with self._lock:
                    self.statuses[answer.status_code] += 1
                    if answer.status_code == 200:
                        self.versions[answer.json()["model_version"]] += 1
                        self.prediction_ids.add(answer.json()["prediction_id"])


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    replica = Replica(tmp_path)
    yield replica
    if replica.process is not None and replica.exit_code() is None:
        replica.kill()


@contextmanager
def state_of(replica: Replica) -> Iterator[SqlStateStore]:
    state = SqlStateStore.create(replica.settings.state_store_url)
    try:
        yield state
    finally:
        state.close()


@pytest.fixture
def state(replica: Replica) -> Iterator[SqlStateStore]:
    publish_users(replica.settings.online_dir / MODEL)
    with state_of(replica) as state:
        yield state


def logged_ids(replica: Replica) -> set[str]:
    now = wall_now()
    records = replica.log.read(MODEL, now - timedelta(hours=1), now + timedelta(hours=1))
    return {record.prediction_id for record in records}


def test_a_replica_in_an_empty_home_waits_and_serves_the_first_plan_by_itself(replica: Replica):
    replica.start()
    assert httpx.get(f"{replica.address}/livez", timeout=5).status_code == 200
    assert replica.version() is None
    assert replica.ready()["status"] == "not ready"
    publish_users(replica.settings.online_dir / MODEL)
    with state_of(replica) as state:
        replica.promote(state, 1)
        wait_for(lambda: replica.version() == 1)
        assert state.replicas(max_age_seconds=3) == {"one": {MODEL: 1}}


def test_whoever_comes_as_soon_as_it_listens_is_answered(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    for _ in range(3):
        assert replica.start().version() == 1
        replica.stop()


def test_no_request_fails_while_versions_change(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    with Load(replica.address) as load:
        for version in (2, 3, 4):
            replica.promote(state, version)
            wait_for(lambda version=version: state.replicas(max_age_seconds=3) == {"one": {MODEL: version}})  # type: ignore[misc]
            publish_users(replica.settings.online_dir / MODEL, watermark=datetime(1997, 11, version + 1, tzinfo=UTC))
            load.more()
    assert set(load.statuses) == {200}
    assert load.broken == 0
    assert set(load.versions) == {1, 2, 3, 4}
    assert load.prediction_ids <= logged_ids(replica)


def test_after_the_heartbeat_every_answer_is_of_the_new_version(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    for version in range(2, 8):
        replica.promote(state, version)
        wait_for(lambda version=version: state.replicas(max_age_seconds=3) == {"one": {MODEL: version}})  # type: ignore[misc]
        assert replica.version() == version


def test_a_bundle_with_one_changed_byte_leaves_the_old_version_answering(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    replica.promote(state, 2, damaged=True)
    wait_for(lambda: bool(replica.ready()["problems"]))
    assert replica.version() == 1
    assert "model.onnx has SHA-256" in str(replica.ready()["problems"])
    assert state.replicas(max_age_seconds=3) == {"one": {MODEL: 1}}


def test_a_damaged_bundle_that_is_put_back_is_served(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    replica.promote(state, 2, damaged=True)
    wait_for(lambda: bool(replica.ready()["problems"]))
    put_bundle(replica.bundles, replica.settings.home / "scratch", weights=(0.2, -0.2))
    wait_for(lambda: replica.version() == 2)
    assert replica.ready()["problems"] == []


def test_every_answer_of_a_killed_replica_is_in_the_log_and_the_next_one_goes_on(
    replica: Replica, state: SqlStateStore
):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    with Load(replica.address) as load:
        load.more(300)
        replica.kill()
    assert load.prediction_ids <= logged_ids(replica)
    replica.announcement.unlink()
    replica.start()
    wait_for(lambda: replica.version() == 1)
    assert replica.log.segment_gaps(MODEL) == ()
    assert len(list((replica.settings.log_dir / MODEL / "one").glob("*.jsonl"))) == 2


def tell_until_it_dies(address: str, name: str, told: list[str]) -> None:
    """Send feedback without a pause, by ten; `told` are the ids of what was said to be kept."""
    with httpx.Client(base_url=address, timeout=5) as client:
        for number in range(1_000_000):
            ids = [f"{name}-{number}-{item}" for item in range(10)]
            items = [{"prediction_id": said, "outcome": 1, "at": "1997-11-02T12:00:00Z"} for said in ids]
            try:
                answer = client.post("/feedback", json={"feedback": items})
            except httpx.HTTPError:
                return
            told += [item["prediction_id"] for item in answer.json()["feedback"] if item["status"] == "kept"]


def test_all_feedback_that_a_killed_replica_said_was_kept_is_in_the_log_and_the_next_one_goes_on(replica: Replica):
    """It serves no model: feedback may come to any replica, at any time."""
    replica.start()
    told: list[str] = []
    threads = [
        threading.Thread(target=tell_until_it_dies, args=(replica.address, name, told), daemon=True) for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(told) >= 400)
    replica.kill()
    for thread in threads:
        thread.join(timeout=10)
    replica.announcement.unlink()
    assert set(told) <= set(read_feedback(replica.feedback, known=()).outcomes)
    replica.start()
    last = {"prediction_id": "last", "reward": 2.5, "at": "1997-11-02T12:00:00Z"}
    assert httpx.post(f"{replica.address}/feedback", json=last, timeout=5).json()["status"] == "kept"
    found = read_feedback(replica.feedback, known=told)
    assert found.rewards["last"].reward == 2.5
    assert "last" in found.unknown
    assert (replica.feedback.torn_lines(FEEDBACK_STREAM), replica.feedback.segment_gaps(FEEDBACK_STREAM)) == (0, ())
    segments = sorted(file.name for file in (replica.settings.feedback_dir / FEEDBACK_STREAM / "one").iterdir())
    assert segments == ["00000001.jsonl", "00000001.seal.json", "00000002.jsonl"]


def test_on_a_full_disk_answers_are_withheld_and_come_back_when_there_is_room(replica: Replica, state: SqlStateStore):
    """The disk of this process is full at 400 kB: the log comes there long before the state store does."""
    replica.promote(state, 1)
    replica.start()
    assert replica.process is not None
    wait_for(lambda: replica.version() == 1)
    resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    told: list[str] = []
    answer = httpx.Response(200)
    with httpx.Client(base_url=replica.address, timeout=5) as client:
        while answer.status_code == 200:
            answer = client.post("/predict", json=QUESTION)
            told += [answer.json()["prediction_id"]] if answer.status_code == 200 else []
            assert len(told) < 2_000
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:boucle:problem:log-unavailable"
        assert "withheld" in str(client.get("/readyz").json()["problems"])
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(replica.process.pid, resource.RLIMIT_FSIZE, unlimited)
        told.append(client.post("/predict", json=QUESTION).json()["prediction_id"])
    assert set(told) <= logged_ids(replica)
    assert replica.log.torn_lines(MODEL) == 0


def test_a_request_that_has_begun_is_answered_by_a_replica_that_is_asked_to_stop(
    replica: Replica, state: SqlStateStore
):
    replica.promote(state, 1)
    replica.start()
    assert replica.process is not None
    wait_for(lambda: replica.version() == 1)
    host, port = replica.address.removeprefix("http://").split(":")
    body = json.dumps(QUESTION).encode()
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as begun:
        begun.sendall(head.encode())
        assert begun.recv(1_000).startswith(b"HTTP/1.1 100")  # it waits for the body
        replica.process.terminate()
        wait_for(lambda: not replica.announcement.exists())
        begun.sendall(body)
        answer = b""
        while chunk := begun.recv(10_000):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["prediction_id"] in logged_ids(replica)
    assert replica.process.wait(timeout=60) in (0, -signal.SIGTERM)


def test_a_replica_that_is_asked_to_stop_finishes_and_signs_off(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    replica.start()
    wait_for(lambda: replica.version() == 1)
    assert replica.stop() in (0, -signal.SIGTERM)
    assert not replica.announcement.exists()
    assert state.replicas(max_age_seconds=60) == {}


def test_an_address_in_use_ends_the_start_with_a_message(replica: Replica):
    replica.start()
    environment = {**os.environ, "BOUCLE_HOME": str(replica.settings.home), "BOUCLE_REPLICA": "two"}
    environment["BOUCLE_PORT"] = replica.address.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "boucle_serving.main"]
    second = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 1
    assert "BOUCLE_PORT" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_started_app_has_imported_nothing_heavy(replica: Replica, state: SqlStateStore):
    replica.promote(state, 1)
    program = f"""
import sys
from starlette.testclient import TestClient
from boucle_adapters.settings import Settings
from boucle_serving.app import create_app
from boucle_serving.main import parts_of
app = create_app(parts_of(Settings(), ""))
app.state.watch.poll()
answer = TestClient(app).post("/predict", json={QUESTION!r})
assert answer.status_code == 200, answer.text
sys.stdout.write(",".join(name for name in {HEAVY!r} if name in sys.modules))
"""
    environment = {**os.environ, "BOUCLE_HOME": str(replica.settings.home)}
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr, run.stdout) == (0, "", "")
