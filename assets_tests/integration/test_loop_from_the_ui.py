"""Everything from the Dagster UI alone: the running webserver and daemon do it, this test only clicks."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from assets_tests.integration.dagster_ui import DagsterUI, predict
from boucle_cli.services import tool

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

RUN_TIMEOUT = 240
LOOP_TIMEOUT = 420


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
            return {row["service"]: row["address"].removesuffix("/docs") for row in json.loads(printed)}
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
    assert gates["no_regression"]["status"] == "SUCCEEDED"
    assert "measured" in gates["no_regression"]["evaluation"]["description"]
    assert ui.checks("repurchase", "traffic_plan")["live_replicas_serve_the_plan"]["status"] == "SUCCEEDED"
    assert ui.metadata("repurchase", "production_alias")["production"] == 1


def test_one_interrupt_ends_every_process(stack):
    process, _, home = stack
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) > 4
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=20)
    assert [child.name() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]


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
