"""Connections that stay open change how fast events are written, and nothing else."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage

from boucle_adapters.settings import Settings
from boucle_platform.instance import prepare_dagster_home
from boucle_platform.resources import event_log
from boucle_platform.resources.event_log import OpenEventLog


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("DAGSTER_HOME", "BOUCLE_HOME"):
        monkeypatch.setenv(name, "")
    prepare_dagster_home(Settings(home=tmp_path / "home"))
    with dg.DagsterInstance.get() as instance:
        yield instance


@dg.asset(check_specs=[dg.AssetCheckSpec("counted", asset="orders")])
def orders() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3}, check_results=[dg.AssetCheckResult(passed=True)])


@dg.asset(deps=[orders])
def features() -> None: ...


def run(instance: dg.DagsterInstance) -> str:
    done = dg.materialize([orders, features], instance=instance)
    assert done.success
    return done.run_id


def kinds(storage: SqliteEventLogStorage, run_id: str) -> list[str]:
    return [str(entry.dagster_event_type) for entry in storage.get_logs_for_run(run_id)]


def runs_dir(instance: dg.DagsterInstance) -> str:
    return str(Path(instance.root_directory, "history", "runs"))


def test_a_home_logs_its_events_through_open_connections(instance: dg.DagsterInstance):
    assert isinstance(instance.event_log_storage, OpenEventLog)


def test_what_is_written_is_what_dagster_writes_and_dagsters_own_class_reads_it(
    instance: dg.DagsterInstance, tmp_path: Path
):
    run_id = run(instance)
    plain = SqliteEventLogStorage(runs_dir(instance))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as default:
        assert kinds(plain, run_id) == kinds(default.event_log_storage, run(default))
    assert plain.get_latest_materialization_events([orders.key])[orders.key].run_id == run_id


def test_after_a_wipe_new_events_are_not_written_into_deleted_files(instance: dg.DagsterInstance):
    run(instance)
    instance.wipe()
    run_id = run(instance)
    assert len(kinds(SqliteEventLogStorage(runs_dir(instance)), run_id)) > 10


def test_runs_beyond_the_open_connections_are_written_and_read_all_the_same(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(event_log, "OPEN_DATABASES", 2)
    made = [run(instance) for _ in range(4)]
    assert [len(kinds(instance.event_log_storage, run_id)) for run_id in made] == [len(instance.all_logs(made[0]))] * 4


def test_threads_share_a_connection_and_lose_nothing(instance: dg.DagsterInstance):
    run(instance)

    def land(number: int) -> None:
        instance.report_runless_asset_event(dg.AssetMaterialization(orders.key, metadata={"rows": number}))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(land, range(40)))
    events = instance.fetch_materializations(orders.key, limit=100).records
    found = sorted(event.asset_materialization.metadata["rows"].value for event in events)
    assert found == sorted([3, *range(40)])


FROM_ANOTHER_PROCESS = """
import dagster as dg
@dg.asset
def orders(): ...
job = dg.Definitions([orders], jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
with dg.DagsterInstance.get() as instance:
    job.execute_in_process(instance=instance, run_id="00000000-0000-4000-8000-000000000001")
"""


def test_events_of_another_process_reach_whoever_watches_the_run(instance: dg.DagsterInstance):
    """The page of a run shows what happens while it happens."""
    run_id, seen, over = "00000000-0000-4000-8000-000000000001", [], threading.Event()

    def see(event: dg.EventLogEntry, _cursor: str) -> None:
        seen.append(event)
        if event.is_dagster_event and event.dagster_event.event_type is dg.DagsterEventType.PIPELINE_SUCCESS:
            over.set()

    instance.watch_event_logs(run_id, None, see)
    done = subprocess.run([sys.executable, "-c", FROM_ANOTHER_PROCESS], env={**os.environ}, check=False, timeout=150)
    assert (done.returncode, over.wait(30)) == (0, True)
    instance.end_watch_event_logs(run_id, see)
    assert len(seen) >= len(instance.all_logs(run_id)) - 2


KILLED = """
import os, dagster as dg
@dg.asset
def orders(): os.kill(os.getpid(), 9)
with dg.DagsterInstance.get() as instance:
    dg.materialize([orders], instance=instance)
"""


def test_what_was_logged_before_a_kill_is_there(instance: dg.DagsterInstance):
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ}, check=False, timeout=150)
    assert done.returncode == -9
    (left,) = instance.get_runs()
    assert kinds(instance.event_log_storage, left.run_id)[-1] == "DagsterEventType.STEP_START"
