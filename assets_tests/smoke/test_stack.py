"""The stack of compose.yaml, for real: its start, one turn of the loop in it, its end.

The same test everywhere (`make smoke`); engine.py says where the containers run.
"""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import jsonschema
import pytest

from assets_tests.integration.dagster_ui import DagsterUI
from assets_tests.smoke.engine import ROOT
from assets_tests.smoke.stack import LOOP_SECONDS, REPLICAS, Stack, ask, until

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1500)]

OURS = ("code", "webserver", "daemon", "mlflow", "exporter", *REPLICAS)
UNTIL, AS_OF = "1997-04", "1997-05-01"
SCRAPE_SECONDS = 60


def test_every_service_is_healthy(stack: Stack):
    lines = stack.compose("ps", "-a", "--format", "json").splitlines()
    states = {one["Service"]: one["Health"] or f"{one['State']} {one['ExitCode']}" for one in map(json.loads, lines)}
    assert states.pop("settings") == "exited 0"
    assert states == dict.fromkeys((*OURS, "postgres", "proxy", "prometheus"), "healthy")


@pytest.mark.parametrize("service", OURS)
def test_the_root_file_system_is_read_only_and_the_state_is_not(stack: Stack, service: str):
    code = "import os; print(os.getuid(), os.access('/app', os.W_OK), os.access(os.environ['BOUCLE_HOME'], os.W_OK))"
    assert stack.run_in(service, "python", "-c", code).split() == ["10001", "False", "True"]


def test_replicas_are_not_ready_before_the_first_promotion(stack: Stack):
    status, said = ask(f"{stack.api}/readyz")
    assert status == 503
    assert "No model is in production yet" in said["missing"][0]


def test_the_loop_goes_round_in_the_stack(stack: Stack):
    """Lands months, loads, judges, trains and promotes them over the common stores; requests go through the proxy.

    In one process, as the sensors are stopped: the daemon takes a minute for each month, and has its turn below.
    """
    command = [str(Path(sys.executable).with_name("boucle")), "demo", "--target", "compose"]
    done = subprocess.run(
        [*command, "--until", UNTIL, "--requests", "200", "--json"],
        cwd=ROOT, env=stack.engine.environment, capture_output=True, text=True, timeout=LOOP_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    stack.notes["demo"] = summary = json.loads(done.stdout)
    assert summary["missing"] == []
    assert summary["requests_failed"] == 0
    assert ask(f"{stack.api}/readyz")[0] == 200


def test_both_replicas_serve_the_promoted_version(stack: Stack):
    status = stack.boucle("status")
    assert status["production"] == 1
    assert set(status["replicas"].split(", ")) == {f"{name} (revision 1)" for name in REPLICAS}


def test_daemon_and_code_server_load_the_next_month(stack: Stack):
    """Sensor, queue, launch and run, each in a container of its own."""
    ui = DagsterUI(stack.address("webserver", 3000))
    ui.switch_on("repurchase_landing")
    period = stack.boucle("feed")["period"]
    assert until(lambda: stack.runs(period) == ["SUCCESS"], seconds=LOOP_SECONDS)


def test_the_proxy_gives_requests_to_both_replicas(stack: Stack):
    log = "/var/lib/boucle/prediction_log/repurchase"
    written = {name: stack.run_in("code", "sh", "-c", f"cat {log}/{name}/*.jsonl | wc -l") for name in REPLICAS}
    assert min(map(int, written.values())) >= 20, written


def test_prometheus_scrapes_the_exporter_and_both_replicas(stack: Stack):
    for job, targets in (("boucle-serving", 2), ("boucle-exporter", 1)):
        up = f"up%7Bjob=%22{job}%22%7D"
        assert until(lambda up=up, n=targets: list(stack.query(up).values()) == [1.0] * n, seconds=SCRAPE_SECONDS), job
    asked = "sum%20by%20(instance)%20(boucle_requests_total)"
    assert until(lambda: len(stack.query(asked)) == 2 and min(stack.query(asked).values()) > 0, seconds=SCRAPE_SECONDS)


def test_three_protocols_answer_the_same_through_the_proxy(stack: Stack):
    log = "/var/lib/boucle/prediction_log/repurchase"
    entity = json.loads(stack.run_in("code", "sh", "-c", f"tail -qn 1 {log}/*/*.jsonl | tail -n 1"))["entity_key"]
    row = {"user_id": entity, "as_of": AS_OF}
    status, answer = ask(f"{stack.api}/predict", row)
    assert status == 200, answer
    document = ask(f"{stack.api}/openapi.json")[1]
    schema = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})
    status, scored = ask(f"{stack.api}/invocations", {"dataframe_records": [row]})
    assert status == 200, scored
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in row.items()]
    status, inferred = ask(f"{stack.api}/v2/models/repurchase/infer", {"inputs": inputs})
    assert status == 200, inferred
    assert scored["predictions"][0] == pytest.approx(answer["proba"])
    assert inferred["outputs"][0]["data"][0] == pytest.approx(answer["proba"])


def test_a_malformed_request_is_refused_by_its_field_and_metrics_are_not_public(stack: Stack):
    status, problem = ask(f"{stack.api}/predict", {"user_id": "4", "as_of": "yesterday"})
    assert status == 422
    assert "as_of" in json.dumps(problem)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{stack.api}/metrics", timeout=20)


def test_state_runs_and_versions_are_in_postgres_and_nowhere_else(stack: Stack):
    """The driver that SQLAlchemy takes is the one that is installed, in the stack and not only on paper."""
    kept = {"boucle": "decision", "dagster": "runs", "mlflow": "model_versions"}
    assert all(stack.rows(database, table) > 0 for database, table in kept.items())
    files = stack.run_in("code", "find", "/var/lib/boucle", "/var/lib/boucle-warehouse", "-name", "*.db*")
    assert files == ""


def test_the_warehouse_is_the_platforms_alone(stack: Stack):
    assert "warehouse.duckdb" in stack.run_in("code", "ls", "/var/lib/boucle-warehouse")
    for replica in REPLICAS:
        assert stack.run_in(replica, "find", "/var/lib", "-name", "warehouse*", check=False) == ""


def test_doctor_finds_nothing_wrong(stack: Stack):
    findings = stack.boucle("doctor", check=False)
    assert [one for one in findings if not one["ok"]] == []
