"""Runs whose executing process is gone, as a power cut leaves them: ended, or the sensors would wait for them."""

import json
import socket

import dagster as dg
import pytest

from boucle_platform.instance import CODE_SERVER_TAG, end_dead_runs


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
