"""`boucle check` as CI runs it: the real loop on four months, in a home that is thrown away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from boucle.policy.limits import GateLimit
from boucle_cli.check import run_checks
from boucle_platform.model_loop.catalogue import spec_of

pytestmark = [pytest.mark.loop, pytest.mark.timeout(300)]


def test_the_code_at_hand_passes_and_leaves_reports_but_no_home(tmp_path: Path):
    summary, junit = tmp_path / "summary.md", tmp_path / "gates.xml"
    done = subprocess.run(
        [str(Path(sys.executable).with_name("boucle")), "check", "--json", "--junit", str(junit)],
        env={**os.environ, "BOUCLE_HOME": str(tmp_path / "home"), "GITHUB_STEP_SUMMARY": str(summary)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    checks = json.loads(done.stdout)["checks"]
    gates = {check["check"] for check in checks if check["blocking"]}
    assert gates >= {"landing_accepted", "contract", "enough_rows", "bundle_equals_estimator", "no_regression"}
    assert [check for check in checks if check["blocking"] and check["passed"] is not True] == []
    assert "| repurchase/evaluation_report | no_regression | passed |" in summary.read_text()
    assert "### repurchase, version 1: passed" in summary.read_text()
    assert 'failures="0" errors="0"' in junit.read_text()
    assert not (tmp_path / "home").exists()


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


def test_a_gate_that_does_not_pass_is_named_and_what_comes_after_it_is_missing():
    spec = spec_of("repurchase")
    floor = GateLimit(limit=0.99, unit="ratio")
    gates = spec.promotion.gates.model_copy(update={"auc_floor": floor})
    strict = spec.model_copy(update={"promotion": spec.promotion.model_copy(update={"gates": gates})})
    report = run_checks(strict)
    assert not report.passed
    blocking = {outcome.check: outcome for outcome in report.outcomes if outcome.blocks}
    assert set(blocking) == {"auc_floor"}
    assert "at least 0.99 ratio" in blocking["auc_floor"].description
    assert report.errors
    assert report.errors[0].startswith("repurchase_retrain ended red")
