"""A real daemon, its sensors on: retrainings that take too long, and one whose process is killed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar

import dagster as dg
import pytest
import yaml

from assets_tests.faults.killed_run import HOLD, KILL
from assets_tests.faults.loop_home import LOADED, SPEC, LoopHome, boucle, copied, opened
from assets_tests.judging import day
from boucle.contracts.trigger import AlertRequest, AlertState, AnswerKind, TriggerAnswer, TriggerOutcome
from boucle_cli.services import tool
from boucle_platform.model_loop.automation import FAILED, MAX_RUNTIME_TAG
from boucle_platform.model_loop.retraining import TRIGGER_TAG

pytestmark = [pytest.mark.loop, pytest.mark.nightly, pytest.mark.timeout(1200)]
DRIFT_SENSOR = "repurchase_drift"
ALERT = AlertRequest(
    model=SPEC.name,
    fingerprint="a1b2",
    starts_at=day("1997-04-20"),
    state=AlertState.FIRING,
    name="RefundsUp",
    actor="service:alertmanager",
    received_at=day("1997-04-20"),
)
STATUS = dg.DagsterRunStatus
PATIENCE_SECONDS = 400
T = TypeVar("T")


@dataclass(frozen=True)
class Watched:
    """A home that a daemon works in, looked at from this process."""

    loop: LoopHome
    daemon: "subprocess.Popen[bytes]"
    log: Path

    def until(self, found: Callable[[], T | None]) -> T:
        """What is found once there is something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.daemon.poll() is None:
            if (something := found()) is not None:
                return something
            time.sleep(0.1)
        runs = [(run.run_id[:8], run.job_name, run.status.value) for run in self.loop.runner.instance.get_runs()]
        raise AssertionError(f"not within {PATIENCE_SECONDS} s; runs: {runs}; {self.log.read_text()[-4000:]}")

    def fired(self) -> list[str]:
        """Run keys of the triggers that fired, oldest first."""
        rows = self.loop.home.state.triggers(SPEC.name)
        return [one.run_key for _, one in rows if one.outcome is TriggerOutcome.FIRED]

    def runs(self, key: str) -> list[dg.DagsterRun]:
        """The runs of a trigger, oldest first."""
        return list(reversed(self.loop.runner.instance.get_runs(dg.RunsFilter(tags={TRIGGER_TAG: key}))))

    def run(self, key: str, number: int, *status: STATUS) -> dg.DagsterRun:
        """The n-th run of a trigger, once it has one of these."""

        def found() -> dg.DagsterRun | None:
            runs = self.runs(key)[number - 1 : number]
            return next((run for run in runs if run.status in status), None)

        return self.until(found)

    def answer(self, key: str, run: dg.DagsterRun) -> TriggerAnswer:
        """What is on record of a trigger once this run of it is told of."""

        def found() -> TriggerAnswer | None:
            answer = self.loop.home.state.answers(SPEC.name).get(key)
            return answer if answer is not None and answer.dagster_run_id == run.run_id else None

        return self.until(found)

    def steps(self, run: dg.DagsterRun) -> list[str]:
        """What a run began, by the names of the assets."""
        events = self.loop.runner.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
        return [entry.step_key.removeprefix("repurchase__") for entry in events if entry.step_key]


@pytest.fixture(scope="module")
def watched(four_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """April asks for the first model; registering it is held up from the start."""
    folder = tmp_path_factory.mktemp("daemon")
    with opened(copied(four_months, folder / "home")) as loop:
        for _ in LOADED:
            with loop.runner.tick(DRIFT_SENSOR) as requests:
                assert requests == []
        _looks_often(loop.path / "dagster" / "dagster.yaml")
        (loop.path / HOLD).touch()
        with (folder / "daemon.log").open("wb") as log:
            daemon = _start(folder / "workspace.yaml", loop.path, log)
        try:
            yield Watched(loop, daemon, folder / "daemon.log")
        finally:
            daemon.send_signal(signal.SIGINT)
            daemon.wait(60)


def _looks_often(file: Path) -> None:
    """The home's own `dagster.yaml`, but that runs are looked at each second."""
    said = yaml.safe_load(file.read_text())
    said["run_monitoring"]["poll_interval_seconds"] = 1
    file.write_text(yaml.safe_dump(said))


def _start(workspace: Path, home: Path, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    location = {
        "module_name": "assets_tests.faults.daemon_location",
        "location_name": "boucle",
        "working_directory": str(Path.cwd()),
    }
    workspace.write_text(json.dumps({"load_from": [{"python_module": location}]}))
    return subprocess.Popen(
        [tool("dagster-daemon"), "run", "-w", str(workspace)],
        env={**os.environ, "BOUCLE_HOME": str(home), "BOUCLE_SENSORS": "running"},
        stdout=log,
        stderr=subprocess.STDOUT,
    )


def test_a_run_over_its_time_is_stopped_started_once_more_and_then_nobody_asks_again(watched: Watched):
    (key,) = watched.until(lambda: watched.fired() or None)
    begun = watched.run(key, 1, STATUS.STARTED)
    assert begun.tags[MAX_RUNTIME_TAG] == f"{SPEC.training.max_run_minutes * 60:.0f}"
    watched.until(lambda: watched.loop.home.registry.versions(SPEC.name) or None)
    watched.loop.runner.instance.add_run_tags(begun.run_id, {MAX_RUNTIME_TAG: "1"})

    last = watched.run(key, 2, *FAILED)
    answer = watched.answer(key, last)
    assert answer.kind is AnswerKind.STOPPED
    assert "exceeding maximum runtime of 1 seconds" in answer.reason
    assert last.step_keys_to_execute[0] == "repurchase__candidate_model", "it goes on where it was stopped"
    assert len(watched.runs(key)) == 2
    (shown,) = json.loads(boucle(watched.loop, "triggers", SPEC.model, "--fired", "--json").stdout)["triggers"]
    assert (shown["run_key"], shown["answer"]["kind"], shown["answer"]["reason"]) == (key, "stopped", answer.reason)
    assert "stopped after" in boucle(watched.loop, "triggers", SPEC.model, "--fired").stdout


def test_a_killed_run_gives_the_warehouse_back_and_is_executed_again_to_one_promotion(watched: Watched):
    """The second trigger: what the first one left registered comes out again, and is one version."""
    (stopped,) = watched.fired()
    (watched.loop.path / HOLD).unlink()
    (watched.loop.path / KILL).touch()
    watched.loop.home.state.record_alert(ALERT)

    key = watched.until(lambda: next((one for one in watched.fired() if one != stopped), None))
    killed = watched.run(key, 1, STATUS.FAILURE)
    again = watched.run(key, 2, STATUS.SUCCESS, *FAILED)
    answer = watched.answer(key, again)
    assert (answer.kind, answer.version) == (AnswerKind.PROMOTED, 1)
    assert (watched.steps(killed), again.parent_run_id) == (["training_set"], killed.run_id)
    assert [len(watched.runs(one)) for one in (stopped, key)] == [2, 2]
    assert watched.fired() == [stopped, key], "nobody asked again for what was stopped"
    assert watched.loop.kinds() == [("retrain", None), ("retrain", None), ("promote", 1)]
    assert watched.loop.retrain_result()["versions"] == [1]
