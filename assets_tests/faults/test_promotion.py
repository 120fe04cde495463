"""Production stays what the ledger says: launched alone, on a damaged bundle, or with aliases moved behind its back."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets_tests.bundles import flip_last_byte
from assets_tests.faults.loop_home import CHECKS, RETRAIN, SPEC, LoopHome
from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.evidence import Candidate, Evidence
from boucle_adapters.home import Home
from boucle_platform.model_loop.steps.store import document_file, read_document, write_document

pytestmark = [pytest.mark.loop, pytest.mark.timeout(400)]
Copy = Callable[[Path], LoopHome]


def client(home: Home):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=home.registry.tracking_uri)


def doctor(loop: LoopHome, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(Path(sys.executable).with_name("boucle")), "doctor", *words],
        env={**os.environ, "BOUCLE_HOME": str(loop.path), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def check_of_aliases(loop: LoopHome):
    """What the job of checks says of the aliases now."""
    run_id = loop.run(CHECKS).run_id
    found = loop.runner.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [entry.dagster_event.asset_check_evaluation_data for entry in found]
    return next(item for item in evaluations if item.check_name == "alias_equals_ledger")


def delete(loop: LoopHome) -> None:
    client(loop.home).delete_registered_model_alias(SPEC.model, "production")


def move(loop: LoopHome) -> None:
    source = client(loop.home).get_model_version(SPEC.model, "1").source
    other = client(loop.home).create_model_version(SPEC.model, source)
    client(loop.home).set_registered_model_alias(SPEC.model, "production", other.version)


@pytest.mark.parametrize(
    ("meddle", "found"), [(delete, "no version"), (move, "version 2")], ids=["alias deleted", "alias moved"]
)
def test_an_alias_touched_behind_the_ledger_is_named_and_put_back(
    meddle: Callable[[LoopHome], None], found: str, in_production: Path, copy_of: Copy
):
    loop = copy_of(in_production)
    assert check_of_aliases(loop).passed
    meddle(loop)
    sentence = f"alias 'production' points to {found}, the ledger says version 1"
    check = check_of_aliases(loop)
    assert (check.passed, sentence in check.description) == (False, True)
    told = doctor(loop)
    assert (told.returncode, sentence in told.stdout) == (1, True)
    mended = doctor(loop, "--fix", "--yes")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    assert loop.alias() == 1
    assert check_of_aliases(loop).passed


def test_a_candidate_whose_bundle_has_one_changed_byte_is_not_evaluated(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    candidate = read_document(document_file(loop.home, SPEC, "candidate_model"), Candidate)
    decided = loop.kinds()
    flip_last_byte(loop.path / "bundles" / candidate.bundle_digest / MODEL_FILE)
    outcome = loop.run(RETRAIN, only=("evaluation_report", "production_alias", "traffic_plan"))
    assert not outcome.succeeded
    assert "model.onnx has SHA-256" in outcome.error
    assert loop.kinds() == decided
    assert loop.alias() == 1


def test_the_next_retraining_replaces_the_damaged_bundle_by_a_whole_one(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    candidate = read_document(document_file(loop.home, SPEC, "candidate_model"), Candidate)
    flip_last_byte(loop.path / "bundles" / candidate.bundle_digest / MODEL_FILE)
    assert loop.run(RETRAIN, only=("training_set", "candidate_model")).succeeded
    assert loop.home.bundles.fetch(candidate.bundle_digest).name == candidate.bundle_digest


def test_production_alias_launched_alone_without_a_report_promotes_nothing(four_months: Path, copy_of: Copy):
    loop = copy_of(four_months)
    outcome = loop.run(RETRAIN, only=("production_alias",))
    assert not outcome.succeeded
    assert "evaluation_report has no document yet" in outcome.error
    assert loop.kinds() == []


def test_production_alias_launched_alone_on_a_report_nobody_checked_is_refused(in_production: Path, copy_of: Copy):
    """A document put there by hand, and a materialisation reported for it: no check ever saw it."""
    loop = copy_of(in_production)
    report = document_file(loop.home, SPEC, "evaluation_report")
    evidence = read_document(report, Evidence)
    forged = evidence.model_copy(update={"version": evidence.version + 1, "production_version": 1})
    write_document(report, forged)
    decided = loop.kinds()
    loop.runner.instance.report_runless_asset_event(
        dg.AssetMaterialization(dg.AssetKey([SPEC.model, "evaluation_report"]))
    )
    outcome = loop.run(RETRAIN, only=("production_alias",))
    assert not outcome.succeeded
    assert "another materialisation of the report" in outcome.error
    assert (loop.kinds(), loop.alias()) == (decided, 1)
