"""What moves in the stack once it runs: versions, environments, and a code server that dies in the middle of a run."""

from typing import Any

import pytest

from assets_tests.smoke.stack import LOOP_SECONDS, REPLICAS, Stack, ask, until

pytestmark = [pytest.mark.smoke, pytest.mark.nightly, pytest.mark.timeout(1500)]

ARCHIVE, ELSEWHERE = "/var/lib/boucle/version-1.tar", "/var/lib/boucle/elsewhere"


def answering(stack: Stack) -> set[int]:
    """The versions that answer through the proxy."""
    entity = {"user_id": "00001", "as_of": "1997-05-01"}
    answers = [ask(f"{stack.api}/predict", entity) for _ in range(20)]
    assert {status for status, _ in answers} == {200}
    return {answer["model_version"] for _, answer in answers}


def test_a_new_version_is_promoted_and_a_person_puts_the_one_before_back(stack: Stack):
    stack.boucle("retrain", "--reason", "one more month")
    assert stack.boucle("status")["production"] == 2
    assert answering(stack) == {2}

    stack.boucle("rollback", "--reason", "complaints", "--from", "2")
    status = stack.boucle("status")
    assert (status["production"], status["aliases"]) == (1, "as the ledger says")
    assert set(status["replicas"].split(", ")) == {f"{name} (revision 3)" for name in REPLICAS}
    assert answering(stack) == {1}
    assert "rollback" in stack.sql("boucle", "select document::json->>'kind' from decision").split()


def elsewhere(stack: Stack, *words: str) -> Any:
    """A verb in another environment: databases, warehouse, registry and home of its own, in this stack's containers."""
    return stack.boucle(
        *words, check=False,
        BOUCLE_HOME=ELSEWHERE, BOUCLE_WAREHOUSE_DIR=ELSEWHERE,
        BOUCLE_STATE_URL="postgresql://boucle@postgres/elsewhere",
        BOUCLE_DAGSTER_URL="postgresql://boucle@postgres/elsewhere_dagster",
        BOUCLE_MLFLOW_TRACKING_URI=f"sqlite:///{ELSEWHERE}/mlflow.db",
    )  # fmt: skip


def test_a_version_goes_to_another_environment_by_its_digest_with_its_evidence(stack: Stack):
    sent = stack.boucle("export", "1", "--to", ARCHIVE)
    for database in ("elsewhere", "elsewhere_dagster"):
        stack.sql("postgres", f"create database {database}")
    stack.run_in("code", "mkdir", ELSEWHERE)

    came = elsewhere(stack, "import", ARCHIVE)
    assert (came["bundle_digest"], came["registered"], came["production"]) == (sent["bundle_digest"], True, None)
    # There are no features of its own yet, so it was not judged: no data is never a pass.
    assert came["verdict"] is None
    assert "no validated features yet" in came["said"]
    again = elsewhere(stack, "import", ARCHIVE)
    assert (again["version"], again["registered"]) == (came["version"], False)
    assert stack.rows("elsewhere", "decision") == 0
    assert stack.boucle("status")["production"] == 1


def test_the_run_of_a_code_server_that_dies_fails_and_is_run_again(stack: Stack):
    """The sensor of the landing zone is on since test_stack.py; nobody but boucle puts the run right."""
    period = stack.boucle("feed")["period"]
    assert until(lambda: stack.runs(period) == ["STARTED"], seconds=LOOP_SECONDS)
    stack.compose("kill", "code")
    stack.compose("up", "-d", "--wait", "--no-build", "--pull", "never", "code", timeout=LOOP_SECONDS)
    assert until(lambda: stack.runs(period)[-1] == "SUCCESS", seconds=LOOP_SECONDS)
    assert stack.runs(period) == ["FAILURE", "SUCCESS"]
