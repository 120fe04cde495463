"""Runs whose executing process is gone, as a power cut leaves them: ended, or the sensors would wait for them."""

import json
import socket

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from boucle_adapters.settings import Settings
from boucle_platform.instance import CODE_SERVER_TAG, dagster_yaml, end_dead_runs
from boucle_platform.runs_left_behind import WHY, runs_of_code_server, settle


@dg.op
def nothing() -> None: ...


@dg.job
def loop() -> None:
    nothing()


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def code_server(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        yield str(tmp_path / "s")


def started(instance: dg.DagsterInstance, tags: dict[str, str]) -> str:
    run = instance.create_run_for_job(loop, tags=tags, status=dg.DagsterRunStatus.STARTED)
    return run.run_id


def test_a_run_of_a_code_server_that_is_gone_is_ended(instance, tmp_path):
    run_id = started(instance, {CODE_SERVER_TAG: json.dumps({"host": "localhost", "socket": str(tmp_path / "gone")})})
    assert end_dead_runs(instance) == [run_id]
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.FAILURE


def test_a_run_of_a_code_server_that_left_its_socket_file_is_ended(instance, tmp_path):
    file = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(file))
    run_id = started(instance, {CODE_SERVER_TAG: json.dumps({"socket": str(file)})})
    assert end_dead_runs(instance) == [run_id]


def test_a_run_of_a_code_server_that_answers_goes_on(instance, code_server):
    run_id = started(instance, {CODE_SERVER_TAG: json.dumps({"socket": code_server})})
    assert end_dead_runs(instance) == []
    assert instance.get_run_by_id(run_id).status is dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("tags", [{}, {CODE_SERVER_TAG: json.dumps({"host": "elsewhere", "port": 4000})}])
def test_a_run_of_which_nothing_is_known_here_goes_on(instance, tags):
    started(instance, tags)
    assert end_dead_runs(instance) == []


ELSEWHERE = {CODE_SERVER_TAG: json.dumps({"host": "code", "port": 4000})}


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """An instance with our retries: runs on record in files, since only such a one knows which runs follow another."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(dagster_yaml(Settings(home=tmp_path)))
    with dg.DagsterInstance.get() as opened:
        yield opened


def failures(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    return [
        record.dagster_event.message for record in instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)
    ]


def test_only_runs_of_a_code_server_with_an_address_are_left_behind_by_it(shared, tmp_path):
    started(shared, {})
    started(shared, {CODE_SERVER_TAG: json.dumps({"socket": str(tmp_path / "s")})})
    left = started(shared, ELSEWHERE)
    assert runs_of_code_server(shared) == [left]


def test_a_run_that_was_left_behind_is_failed_and_waits_for_the_daemon(shared):
    run_id = started(shared, ELSEWHERE)
    assert not settle(shared, run_id)
    assert not settle(shared, run_id)
    assert failures(shared, run_id) == [WHY]
    assert shared.get_run_by_id(run_id).tags[WILL_RETRY_TAG] == "true"


def test_a_run_that_the_daemon_could_not_start_again_is_failed_anew_until_it_does(shared):
    """So the daemon marks it when no code server answers; it looks at new failures only."""
    run_id = started(shared, ELSEWHERE)
    settle(shared, run_id)
    shared.add_run_tags(run_id, {WILL_RETRY_TAG: "false"})
    assert not settle(shared, run_id)
    assert len(failures(shared, run_id)) == 2
    assert shared.get_run_by_id(run_id).tags[WILL_RETRY_TAG] == "true"
    shared.add_run_tags(run_id, {AUTO_RETRY_RUN_ID_TAG: "another"})
    assert settle(shared, run_id)
    assert len(failures(shared, run_id)) == 2


def test_nothing_is_left_to_do_for_a_run_that_may_not_be_started_again_that_ended_well_or_is_gone(shared):
    run_id = started(shared, ELSEWHERE | {"dagster/max_retries": "0"})
    assert not settle(shared, run_id)
    assert settle(shared, run_id)
    assert len(failures(shared, run_id)) == 1
    well = shared.create_run_for_job(loop, tags=ELSEWHERE, status=dg.DagsterRunStatus.SUCCESS).run_id
    assert settle(shared, well)
    assert settle(shared, "00000000-0000-0000-0000-000000000000")
