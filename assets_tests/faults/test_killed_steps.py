"""A step dies in the middle, by SIGKILL; the job is run again; the end is the one of a run that nobody disturbed."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from assets_tests import warm
from assets_tests.faults import killed_run
from assets_tests.faults.loop_home import LAND, NEWEST, PERIOD, RETRAIN, SPEC, copied, opened

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]

PERIOD_FAULTS = {
    "raw_orders: rows inserted, not committed": "after=boucle_adapters.duckdb_warehouse:_insert",
    "raw_orders: committed, quarantine torn": "torn=quarantine/orders/.1997-04",
    "raw_orders: receipt not in place": "unplaced=documents/repurchase/raw_orders",
    "dbt: the second of its models just built": "dbt=2",
    "validated_features: snapshot there, CURRENT not": "unplaced=validated_features/1997-04/CURRENT",
    "online_features: arrays there, CURRENT not": "unplaced=online/repurchase/CURRENT",
    "prediction_log: torn": "torn=predictions/.1997-04",
    "ground_truth: torn": "torn=ground_truth/.1997-04",
    "ground_truth: rows there, statement not": "unplaced=ground_truth/1997-04.json",
    "live_performance: not in place": "unplaced=live_performance/1997-04.json",
    "drift_report: measured, not in place": "unplaced=drift_report/1997-04.json",
}
LANDING_FAULTS = {
    "landing: file whole, not in place": "unplaced=orders/1997-04.csv",
    "landing: file in place, checksum not": "placed=orders/1997-04.csv",
    "landing: file and checksum there, clock not moved": "before=boucle_adapters.clock:HomeClock.set",
}
RETRAIN_FAULTS = {
    "training_set: rows torn": "torn=training_sets",
    "candidate_model: bundle there, not registered": "after=boucle_adapters.bundle_store:DirectoryBundleStore.put",
    "candidate_model: registered, nothing else": "after=boucle_adapters.mlflow_registry:MlflowRegistry.register",
    "evaluation_report: evidence there, document not": "unplaced=documents/repurchase/evaluation_report",
    "production_alias: recorded, alias not set": "before=boucle_adapters.mlflow_registry:MlflowRegistry.set_alias",
    "production_alias: alias set, version not tagged": "after=boucle_adapters.mlflow_registry:MlflowRegistry.set_alias",
    "traffic_plan: not published": "before=boucle_adapters.sql_state:SqlStateStore.publish_plan",
}


# One of each kind of death; the others at night.
EACH_TIME = {
    "raw_orders: committed, quarantine torn",
    "dbt: the second of its models just built",
    "online_features: arrays there, CURRENT not",
    "landing: file in place, checksum not",
    "production_alias: recorded, alias not set",
}


def cases(faults: dict[str, str]) -> Any:
    return pytest.mark.parametrize(
        "fault",
        [
            pytest.param(fault, id=name, marks=() if name in EACH_TIME else pytest.mark.nightly)
            for name, fault in faults.items()
        ],
    )


def die_in_the_middle(source: Path, target: Path, job: str, partition: str, fault: str) -> Path:
    """A copy of `source` in which the job was started and killed."""
    words = (str(copied(source, target)), job, partition, fault)
    done = warm.in_process(killed_run.main, *words, environment=os.environ, timeout=200)
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    return target


@pytest.fixture(scope="session")
def loaded(four_months: Path) -> dict[str, Any]:
    with opened(four_months) as loop:
        return loop.period_result()


@pytest.fixture(scope="session")
def promoted(in_production: Path) -> dict[str, Any]:
    with opened(in_production) as loop:
        return loop.retrain_result()


def test_the_undisturbed_loop_promotes_version_one_once(promoted: dict[str, Any]):
    assert promoted["decisions"] == [("promote", 1)]
    assert promoted["versions"] == [1]
    assert promoted["aliases"] == ((), 1)
    assert promoted["plan"][0] == 1


def april_files(home: Path) -> list[Path]:
    """April's landing file and what lies beside it under its name."""
    return sorted((home / "landing").rglob(f"{NEWEST}.csv*"))


@cases(LANDING_FAULTS)
def test_a_month_whose_landing_was_killed_lands_again(fault: str, march: Path, three_months: Path, tmp_path: Path):
    home = die_in_the_middle(march, tmp_path / "home", LAND, NEWEST, fault)
    with opened(home) as loop:
        assert loop.home.clock(SPEC.name).now() < SPEC.period(NEWEST).end
        loop.done(LAND, partition=NEWEST)
        assert loop.home.clock(SPEC.name).now() >= SPEC.period(NEWEST).end
    undisturbed = {file.name: file.read_bytes() for file in april_files(three_months)}
    assert {file.name: file.read_bytes() for file in april_files(home)} == undisturbed
    assert list(undisturbed) == ["1997-04.csv", "1997-04.csv.sha256"]


@cases(PERIOD_FAULTS)
def test_a_killed_period_run_is_run_again(fault: str, three_months: Path, loaded: dict[str, Any], tmp_path: Path):
    home = die_in_the_middle(three_months, tmp_path / "home", PERIOD, NEWEST, fault)
    with opened(home) as loop:
        loop.done(PERIOD, partition=NEWEST)
        assert loop.period_result() == loaded


@cases(RETRAIN_FAULTS)
def test_a_killed_retraining_is_run_again(fault: str, four_months: Path, promoted: dict[str, Any], tmp_path: Path):
    home = die_in_the_middle(four_months, tmp_path / "home", RETRAIN, "-", fault)
    with opened(home) as loop:
        loop.done(RETRAIN)
        assert loop.retrain_result() == promoted
