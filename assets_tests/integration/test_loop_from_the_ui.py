"""Everything from the Dagster UI alone: the running webserver and daemon do it, this test only clicks."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from assets_tests.integration.dagster_ui import DagsterUI, get, predict
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelName
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_cli.services import free_port, tool

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

RUN_TIMEOUT = 120
LOOP_TIMEOUT = 300


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """`boucle dev` on an empty home; its process and the addresses it printed."""
    home = tmp_path_factory.mktemp("ui") / "home"
    log = (home.parent / "dev.log").open("w")
    process = subprocess.Popen(
        [tool("boucle"), "dev", "--dagster", "0", "--mlflow", "0", "--api", "0", "--json"],
        env={**os.environ, "BOUCLE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    try:
        yield process, _addresses(process, home.parent / "dev.log"), home
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        process.stdout.close()
        log.close()


def _addresses(process: subprocess.Popen[str], log: Path) -> dict[str, str]:
    printed = ""
    for line in process.stdout:
        printed += line
        if line.startswith("]"):
            return {row["service"]: "/".join(row["address"].split("/")[:3]) for row in json.loads(printed)}
    raise AssertionError(f"boucle dev ended with {process.wait(10)}: {printed}{log.read_text()}")


def test_a_person_lands_periods_and_the_daemon_closes_the_loop(stack):
    _, addresses, _ = stack
    ui, api = DagsterUI(addresses["dagster"]), addresses["api"]

    status, problem = predict(api, user_id="00001", as_of="1997-05-01")
    assert status == 503
    assert "production_alias" in problem["detail"]

    assert ui.finish(ui.launch("repurchase_land", "1997-01"), timeout=RUN_TIMEOUT) == "SUCCESS"
    assert ui.finish(ui.launch("repurchase_period", "1997-01"), timeout=RUN_TIMEOUT) == "SUCCESS"
    raw = ui.metadata("repurchase", "raw_orders")
    assert raw["dagster/row_count"] + raw["quarantined"] == 8_928
    assert "recency" in ui.metadata("repurchase", "validated_features")["profile"]

    ui.switch_on("repurchase_landing")
    ui.switch_on("repurchase_drift")
    for period in ("1997-02", "1997-03", "1997-04"):
        assert ui.finish(ui.launch("repurchase_land", period), timeout=RUN_TIMEOUT) == "SUCCESS"

    answer = _wait_for_an_answer(ui, api)
    assert answer["model_version"] == 1
    assert 0 < answer["proba"] < 1

    assert ui.finish(ui.launch("repurchase_checks"), timeout=RUN_TIMEOUT) == "SUCCESS"
    gates = ui.checks("repurchase", "evaluation_report")
    assert {check["status"] for check in gates.values()} == {"SUCCEEDED"}
    assert "measured" in gates["no_regression"]["evaluation"]["description"]
    measured = ui.measured("repurchase", "evaluation_report")
    assert measured["quality_floor"] < 0.98
    assert measured["auc_floor"] > 0.6
    assert ui.checks("repurchase", "traffic_plan")["live_replicas_serve_the_plan"]["status"] == "SUCCEEDED"
    assert ui.metadata("repurchase", "production_alias")["production"] == 1
    registry = f"{addresses['mlflow']}/ajax-api/2.0/mlflow/registered-models"
    assert get(f"{registry}/alias?name=repurchase&alias=production")["model_version"]["version"] == "1"


def test_promoting_the_same_evidence_again_decides_nothing_new(stack):
    _, addresses, home = stack
    ui = DagsterUI(addresses["dagster"])
    decision = ui.metadata("repurchase", "production_alias")["decision"]
    alone = ui.launch("repurchase_retrain", only=[("repurchase", "production_alias")])
    assert ui.finish(alone, timeout=RUN_TIMEOUT) == "SUCCESS"
    assert ui.metadata("repurchase", "production_alias")["decision"] == decision
    state = Home(Settings(home=str(home))).state
    assert [row.decision.kind for row in state.decisions(ModelName("repurchase"))].count(DecisionKind.PROMOTE) == 1
    state.close()


def test_one_interrupt_ends_every_process(stack):
    process, addresses, home = stack
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) > 4
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [child.name() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]
    ports = [int(address.rsplit(":")[-1]) for address in addresses.values()]
    assert [free_port(port) for port in ports] == ports


def _wait_for_an_answer(ui: DagsterUI, api: str) -> dict:
    deadline = time.monotonic() + LOOP_TIMEOUT
    while time.monotonic() < deadline:
        status, answer = predict(api, user_id="00001", as_of="1997-05-01")
        if status == 200:
            return answer
        failed = [run for run in ui.runs() if run[1] == "FAILURE"]
        assert not failed, failed
        time.sleep(0.5)
    raise AssertionError(f"no version answered within {LOOP_TIMEOUT} s; runs: {ui.runs()}")
