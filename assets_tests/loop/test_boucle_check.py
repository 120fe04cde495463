"""`boucle check` as CI runs it: the step of model-gates.yml, on four real months, in a home that is thrown away."""

import os
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from assets_tests.workflows import ROOT, run_step, step
from boucle_cli.check import run_checks
from boucle_platform.model_loop.catalogue import spec_of

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
STEP = step("model-gates", "gates", "boucle check")
DATA_STEPS = {model: step("ci", "data", f"boucle check {model}") for model in ("repurchase", "flight_delay")}


def the_step(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """The step in a checkout."""
    home = str(folder / "home")
    return run_step(STEP, folder, timeout=780, MODEL="repurchase", BOUCLE_HOME=home, **environment)


def assert_reports_but_no_home(folder: Path, verdict: str) -> ET.Element:
    """What the step leaves behind; returns the cases of its JUnit file."""
    cases = ET.parse(folder / "reports" / "gates-repurchase.xml").getroot()
    gates = {case.get("name") for case in cases}
    assert gates >= {"landing_accepted", "contract", "enough_rows", "bundle_equals_estimator", "no_regression"}
    assert "data_is_fresh" not in gates
    for summary in ("summary.md", "comment/model-report-repurchase.md"):
        text = (folder / summary).read_text()
        assert "| repurchase/evaluation_report | no_regression | passed |" in text
        assert f"### repurchase, version 1: {verdict}" in text
    assert "<html" in (folder / "reports" / "evaluation-repurchase.html").read_text()
    assert not (folder / "home").exists()
    return cases


@pytest.mark.nightly
def test_the_code_at_hand_passes(tmp_path: Path):
    """By day as well, on GitHub: it is the step itself."""
    done = the_step(tmp_path)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cases = assert_reports_but_no_home(tmp_path, "passed")
    assert (cases.get("failures"), cases.get("errors"), cases.get("skipped")) == ("0", "0", "0")


@pytest.mark.nightly
@pytest.mark.parametrize("model", ["repurchase", "flight_delay"])
def test_the_light_checks_of_the_data_train_nothing(tmp_path: Path, model: str):
    done = run_step(DATA_STEPS[model], tmp_path, timeout=780, BOUCLE_HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cases = ET.parse(tmp_path / "reports" / f"data-{model}.xml").getroot()
    checks = {case.get("name") for case in cases}
    assert checks >= {"landing_accepted", "contract", "no_feature_from_the_future"}
    assert not checks & {"enough_rows", "no_regression"}
    assert (cases.get("failures"), cases.get("errors")) == ("0", "0")


@pytest.mark.nightly
def test_the_second_model_passes_on_its_first_weeks():
    report = run_checks(spec_of("flight_delay"))
    assert report.errors == []
    assert [outcome for outcome in report.outcomes if outcome.blocks] == []
    judged = {(outcome.asset, outcome.check) for outcome in report.outcomes if outcome.passed}
    assert judged >= {
        ("flight_delay/raw_flights", "landing_accepted"),
        ("flight_delay/validated_features", "no_feature_from_the_future"),
        ("flight_delay/online_features", "online_equals_offline"),
        ("flight_delay/evaluation_report", "no_regression"),
    }


def test_a_gate_that_is_broken_on_purpose_turns_the_job_red(tmp_path: Path):
    """Somebody asks for more than the model can; what comes after the gate is missing, and that is red as well."""
    for folder in ("platform", "dbt_features"):
        unneeded = shutil.ignore_patterns("__pycache__", "target", "logs", ".boucle*")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=unneeded)
    file = tmp_path / "platform" / "boucle_platform" / "defs" / "repurchase" / "defs.yaml"
    declared = file.read_text()
    assert "auc_floor: {limit: 0.6," in declared
    file.write_text(declared.replace("auc_floor: {limit: 0.6,", "auc_floor: {limit: 0.99,"))
    paths = (tmp_path / "platform", ROOT / "serving")
    done = the_step(tmp_path, PYTHONPATH=os.pathsep.join(map(str, paths)))
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-3000:]
    cases = assert_reports_but_no_home(tmp_path, "failed")
    failed = {case.get("name"): case[0].get("message", "") for case in cases if case.find("failure") is not None}
    assert set(failed) == {"auc_floor"}
    assert "at least 0.99 ratio" in failed["auc_floor"]
    errors = [case[0].get("message", "") for case in cases if case.find("error") is not None]
    assert [error.startswith("repurchase_retrain ended red") for error in errors] == [True]
    assert "| auc_floor | FAILED |" in (tmp_path / "summary.md").read_text()
