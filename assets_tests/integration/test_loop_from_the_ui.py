"""Everything from the Dagster UI alone: the running webserver and daemon do it, this test only clicks."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from assets_tests.faults.homes import until_march
from assets_tests.integration.dagster_ui import DagsterUI, get, predict
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelName, PeriodKey
from boucle.contracts.trigger import TriggerOutcome
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_adapters.snapshots import SnapshotStore
from boucle_cli.demo.traffic import Caller, send
from boucle_cli.services import free_port, tool
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.steps.features import known_entities
from boucle_platform.model_loop.steps.landing import feed

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

# As a person materialises them, one after the other.
STAGES = (
    ("raw_orders", "stg_orders", "int_customer_days", "repurchase_features", "repurchase_labels"),
    (
        "validated_features", "online_features",
        "prediction_log", "ground_truth", "live_performance", "drift_report",
    ),
)  # fmt: skip
RUN_TIMEOUT = 300
LOOP_TIMEOUT = 600
SPEC, FLIGHTS = spec_of("repurchase"), spec_of("flight_delay")
DAYS = ("2013-01-01", "2013-01-02", "2013-01-03")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """`boucle dev` on a home in which three months are loaded and nothing is trained; its process and its addresses."""
    home = until_march(tmp_path_factory)
    log = (home.parent / "dev.log").open("w")
    process = subprocess.Popen(
        [tool("boucle"), "dev", "--dagster", "0", "--mlflow", "0", "--api", "0", "--metrics", "0", "--json"],
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


def test_a_person_materialises_each_stage(stack):
    _, addresses, home = stack
    ui, api = DagsterUI(addresses["dagster"]), addresses["api"]

    status, problem = predict(api, user_id="00001", as_of="1997-05-01")
    assert status == 503
    assert "production_alias" in problem["detail"]

    assert ui.finish(ui.launch("repurchase_land", "1997-04"), timeout=RUN_TIMEOUT) == "SUCCESS"
    for stage in STAGES:
        alone = ui.launch("repurchase_period", "1997-04", only=[("repurchase", name) for name in stage])
        assert ui.finish(alone, timeout=RUN_TIMEOUT) == "SUCCESS"
    raw = ui.metadata("repurchase", "raw_orders")
    landed = (home / "landing" / "repurchase" / "orders" / "1997-04.csv").read_text().splitlines()[1:]
    assert raw["dagster/row_count"] + raw["quarantined"] == len(landed) > 3_000
    assert "recency" in ui.metadata("repurchase", "validated_features")["profile"]

    _train(ui, ("training_set", "candidate_model", "evaluation_report"), ("production_alias", "traffic_plan"))
    assert "| no_regression | passed |" in ui.metadata("repurchase", "evaluation_report")["gates"]
    answer = _wait_for_an_answer(ui, api, version=1, as_of="1997-05-01")
    assert 0 < answer["proba"] < 1

    gates = ui.checks("repurchase", "evaluation_report")
    assert {check["status"] for check in gates.values()} == {"SUCCEEDED"}
    assert "measured" in gates["no_regression"]["evaluation"]["description"]
    measured = ui.measured("repurchase", "evaluation_report")
    assert measured["quality_floor"] < 0.98
    assert measured["auc_floor"] > 0.6
    assert ui.metadata("repurchase", "production_alias")["production"] == 1
    registry = f"{addresses['mlflow']}/ajax-api/2.0/mlflow/registered-models"
    assert get(f"{registry}/alias?name=repurchase&alias=production")["model_version"]["version"] == "1"


def test_drift_in_what_was_served_brings_the_next_version_without_a_click(stack):
    """May is answered by version 1 and turns out otherwise: loading, report, retraining, promotion, by the daemon."""
    _, addresses, home = stack
    ui, ports = DagsterUI(addresses["dagster"]), Home(Settings(home=str(home)))
    for sensor in ("repurchase_landing", "repurchase_drift"):
        ui.switch_on(sensor)
    caller = Caller("127.0.0.1", int(addresses["api"].rsplit(":", 1)[1]), "repurchase", SPEC.entity)
    asked = send(
        caller,
        known_entities(ports, SPEC, SPEC.period(PeriodKey("1997-04")))[::10],
        SPEC.period(PeriodKey("1997-04")).end,
    )
    caller.close()
    assert (asked.served > 2_000, asked.failed) == (True, 0)

    assert ui.finish(ui.launch("repurchase_land", "1997-05"), timeout=RUN_TIMEOUT) == "SUCCESS"
    _wait_for_an_answer(ui, addresses["api"], version=2, as_of="1997-06-01")

    (trigger,) = [each for _, each in ports.state.triggers(SPEC.name) if each.production_version == 1]
    assert (trigger.period, trigger.outcome) == ("1997-05", TriggerOutcome.FIRED)
    assert "failed (measured" in trigger.reason
    assert ui.metadata("repurchase", "drift_report")["labelled"] >= asked.served
    assert ui.metadata("repurchase", "production_alias")["previous"] == 1
    moves = [row.decision for row in ports.state.decisions(SPEC.name) if row.decision.kind is DecisionKind.PROMOTE]
    assert [(move.actor, move.to_version) for move in moves] == [("dagster", 1), ("sensor:repurchase_drift", 2)]
    ports.state.close()


@pytest.mark.nightly
def test_the_checks_that_are_looked_at_again_and_again_pass(stack):
    ui = DagsterUI(stack[1]["dagster"])
    assert ui.finish(ui.launch("repurchase_checks"), timeout=RUN_TIMEOUT) == "SUCCESS"
    assert ui.checks("repurchase", "traffic_plan")["live_replicas_serve_the_plan"]["status"] == "SUCCEEDED"


@pytest.mark.nightly
def test_promoting_the_same_evidence_again_decides_nothing_new(stack):
    _, addresses, home = stack
    ui = DagsterUI(addresses["dagster"])
    decision = ui.metadata("repurchase", "production_alias")["decision"]
    alone = ui.launch("repurchase_retrain", only=[("repurchase", "production_alias")])
    assert ui.finish(alone, timeout=RUN_TIMEOUT) == "SUCCESS"
    assert ui.metadata("repurchase", "production_alias")["decision"] == decision
    state = Home(Settings(home=str(home))).state
    assert [row.decision.kind for row in state.decisions(ModelName("repurchase"))].count(DecisionKind.PROMOTE) == 2
    state.close()


@pytest.mark.nightly
def test_days_that_wait_are_loaded_by_one_run_of_the_daemon(stack):
    _, addresses, home = stack
    ui, ports = DagsterUI(addresses["dagster"]), Home(Settings(home=str(home)))
    for _ in DAYS:
        feed(ports, FLIGHTS)
    ui.switch_on("flight_delay_landing")
    _wait_for_periods(ui, 1, job="flight_delay_period")
    in_force = SnapshotStore(ports.settings.home_dir).in_force(FLIGHTS.name)
    assert [manifest.period for manifest in in_force] == list(DAYS)
    assert ui.metadata("flight_delay", "raw_flights")["dagster/row_count"] > 700
    assert ui.metadata("flight_delay", "raw_planes")["source_file"] == "none has landed"


def test_one_interrupt_ends_every_process(stack):
    process, addresses, home = stack
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert len(family) > 4
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    _, alive = psutil.wait_procs(family, timeout=60)
    assert [child.name() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(home) in " ".join(p.info["cmdline"] or [])]
    ports = [int(address.rsplit(":")[-1]) for address in addresses.values()]
    assert [free_port(port) for port in ports] == ports


def _train(ui: DagsterUI, *stages: tuple[str, ...]) -> None:
    for stage in stages:
        alone = ui.launch("repurchase_retrain", only=[("repurchase", name) for name in stage])
        assert ui.finish(alone, timeout=RUN_TIMEOUT) == "SUCCESS"


def _wait_for_periods(ui: DagsterUI, count: int, *, job: str = "repurchase_period") -> None:
    """Until so many runs of the period job ended well."""
    deadline = time.monotonic() + LOOP_TIMEOUT
    while time.monotonic() < deadline:
        runs = ui.runs()
        assert (job, "FAILURE") not in runs
        if runs.count((job, "SUCCESS")) == count:
            return
        time.sleep(0.5)
    raise AssertionError(f"not {count} period runs within {LOOP_TIMEOUT} s: {ui.runs()}")


def _wait_for_an_answer(ui: DagsterUI, api: str, *, version: int, as_of: str) -> dict:
    """The first answer by this version; a run that failed meanwhile ends the wait."""
    deadline = time.monotonic() + LOOP_TIMEOUT
    while time.monotonic() < deadline:
        status, answer = predict(api, user_id="00001", as_of=as_of)
        if status == 200 and answer["model_version"] == version:
            return answer
        assert not [run for run in ui.runs() if run[1] == "FAILURE"]
        time.sleep(0.5)
    raise AssertionError(f"version {version} did not answer within {LOOP_TIMEOUT} s; runs: {ui.runs()}")
