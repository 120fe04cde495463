"""Production stays what the ledger says: launched alone, on a damaged bundle, or with aliases moved behind its back."""

import json
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets_tests.bundles import flip_last_byte
from assets_tests.faults.loop_home import (
    RETRAIN,
    SPEC,
    LoopHome,
    boucle,
    check_named,
    client,
    promote_second,
    register,
)
from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.ids import ModelVersion
from boucle.contracts.verdict import Verdict
from boucle_cli.demo.faults import AFTER_TRAINING_SET, shuffled_labels
from boucle_platform.instance import PROCESS_TAG, RunOutcome, this_process
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.steps.store import document_file, read_document, version_dir, write_document

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
Copy = Callable[[Path], LoopHome]


def doctor(loop: LoopHome, *words: str) -> "subprocess.CompletedProcess[str]":
    return boucle(loop, "doctor", *words)


def check_of_aliases(loop: LoopHome):
    """What the job of checks says of the aliases now."""
    return check_named(loop, "alias_equals_ledger")


def delete(loop: LoopHome) -> None:
    client(loop.home).delete_registered_model_alias(SPEC.model, "production")


def move(loop: LoopHome) -> None:
    client(loop.home).set_registered_model_alias(SPEC.model, "production", str(register(loop)))


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


@pytest.mark.parametrize(
    "launch",
    [
        lambda loop: loop.run(RETRAIN, only=("production_alias",)),
        lambda loop: loop.runner.run("repurchase_promote", tags={ACTOR_TAG: "repurchase_promotion"}),
    ],
    ids=["alone", "by automation"],
)
def test_a_promotion_on_a_report_nobody_checked_is_refused(
    launch: Callable[[LoopHome], RunOutcome], in_production: Path, copy_of: Copy
):
    """A document put there by hand, and a materialisation reported for it: no check ever saw it."""
    loop = copy_of(in_production)
    report = document_file(loop.home, SPEC, "evaluation_report")
    evidence = read_document(report, Evidence)
    forged = evidence.model_copy(update={"version": evidence.version + 1, "production_version": 1})
    write_document(report, forged)
    decided = [*loop.kinds(), ("reject", 1)]
    loop.runner.instance.report_runless_asset_event(
        dg.AssetMaterialization(dg.AssetKey([SPEC.model, "evaluation_report"]))
    )
    outcome = launch(loop)
    assert not outcome.succeeded
    assert "another materialisation of the report" in outcome.error
    assert (loop.kinds(), loop.alias()) == (decided, 1)


def test_a_candidate_whose_own_gate_failed_is_not_promoted_by_launching_the_rest_alone(evaluated: Path, copy_of: Copy):
    """Dagster's blocking checks end with the run: the evidence has to carry what they said."""
    loop = copy_of(evaluated)
    file = document_file(loop.home, SPEC, "candidate_model")
    candidate = read_document(file, Candidate)
    failed = tuple(gate.model_copy(update={"verdict": Verdict.FAILED}) for gate in candidate.gates)
    write_document(file, candidate.model_copy(update={"gates": failed}))
    outcome = loop.run(RETRAIN, only=("evaluation_report", "production_alias", "traffic_plan"))
    assert not outcome.succeeded
    assert (loop.kinds(), loop.alias(), loop.home.state.plan(SPEC.name)) == ([("reject", None)], None, None)
    refused = loop.home.state.decisions(SPEC.name)[0].decision
    assert refused.reason.startswith("bundle_equals_estimator: failed")
    assert loop.home.registry.versions(SPEC.name)[0].tags["validation_status"] == "rejected"


def test_evaluating_again_writes_further_evidence_and_keeps_the_one_that_was_decided_on(
    in_production: Path, copy_of: Copy
):
    loop = copy_of(in_production)
    decided = loop.kinds()
    assert loop.run(RETRAIN, only=("evaluation_report", "production_alias", "traffic_plan")).succeeded
    folder = loop.path / "data" / SPEC.model / "versions" / "1" / "evidence"
    promoted = loop.home.state.decisions(SPEC.name)[0].decision
    kept = read_document(folder / f"{promoted.evidence_digest}.json", Evidence)
    assert kept.digest() == promoted.evidence_digest
    assert len(list(folder.glob("*.json"))) == 2
    assert loop.kinds() == decided


def test_after_a_refusal_production_is_still_what_a_candidate_is_compared_with(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    with shuffled_labels(loop.home, SPEC):
        assert not loop.run(RETRAIN, only=AFTER_TRAINING_SET).succeeded
        assert not loop.run(RETRAIN, only=("evaluation_report", "production_alias", "traffic_plan")).succeeded
    production, refused = (version_dir(loop.home, SPEC, ModelVersion(version)) / "evidence" for version in (1, 2))
    (promoted,) = [read_document(file, Evidence) for file in production.glob("*.json")]
    found = [read_document(file, Evidence) for file in refused.glob("*.json")]
    assert len(found) == 2
    assert all(evidence.production == promoted.candidate for evidence in found)


def test_a_version_that_was_promoted_and_not_brought_into_traffic_is_named_and_brought_in(
    evaluated: Path, copy_of: Copy
):
    loop = copy_of(evaluated)
    loop.done(RETRAIN, only=("production_alias",))
    sentence = "the traffic plan gives the requests to no version, the ledger says version 1"
    check = check_named(loop, "traffic_equals_ledger")
    assert (check.passed, sentence in check.description) == (False, True)
    told = doctor(loop)
    assert (told.returncode, "gives the requests to no version" in told.stdout) == (1, True)
    mended = doctor(loop, "--fix", "--yes")
    assert mended.returncode == 0, mended.stdout + mended.stderr
    plan = loop.home.state.plan(SPEC.name)
    assert plan is not None
    assert plan.production.version == 1
    assert check_named(loop, "traffic_equals_ledger").passed


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("update decision set document = replace(document, 'automatic', 'manual')", "is not what was written"),
        ("delete from decision", "rows at the end were deleted"),
    ],
    ids=["row edited", "tail cut"],
)
def test_nothing_is_put_where_a_damaged_ledger_says(damage: str, words: str, in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    loop.home.state.close()
    with sqlite3.connect(loop.path / "state.db") as connection:
        connection.execute(damage)
    connection.close()
    move(loop)
    asked = doctor(loop, "--fix", "--yes")
    assert (asked.returncode, words in " ".join(asked.stderr.split())) == (1, True), asked.stderr
    assert loop.alias() == 2


def test_neither_dagster_nor_a_registry_that_is_away_holds_up_a_rollback(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    promote_second(loop)
    (loop.path / "dagster").rename(loop.path / "away")
    done = boucle(loop, "rollback", "--reason", "test", BOUCLE_MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout + done.stderr
    (loop.path / "away").rename(loop.path / "dagster")
    assert "The registry did not follow" in " ".join(done.stdout.split())
    assert "Traceback" not in done.stderr
    plan = loop.home.state.plan(SPEC.name)
    assert plan is not None
    assert (loop.home.state.production(SPEC.name), plan.production.version, loop.alias()) == (1, 1, 2)
    assert doctor(loop, "--fix", "--yes").returncode == 0
    assert loop.alias() == 1


def test_status_says_what_is_in_production_while_the_registry_is_away(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    done = boucle(loop, "status", "--json", BOUCLE_MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert (found["production"], found["versions"]) == (1, None)
    assert "not known: The model registry at http://127.0.0.1:9 did not do it" in found["aliases"]


def test_a_registry_file_that_is_none_is_an_error_for_people(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    (loop.path / "mlflow.db").write_bytes(b"not a database" * 100)
    told = doctor(loop)
    assert (told.returncode, "Traceback" in told.stderr) == (1, False), told.stderr
    assert "The model registry at sqlite:///" in " ".join(told.stdout.split())


def test_history_shows_the_rows_of_a_damaged_ledger_and_then_the_damage(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    loop.home.state.close()
    with sqlite3.connect(loop.path / "state.db") as connection:
        connection.execute("update decision set document = replace(document, 'automatic', 'manual')")
    connection.close()
    told = boucle(loop, "history")
    assert told.returncode == 1
    assert "promote" in told.stdout
    assert "is not what was written" in " ".join(told.stderr.split())


def test_retraining_by_hand_is_refused_while_a_retraining_is_under_way(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    job = loop.runner.definitions.resolve_job_def(RETRAIN)
    tags = {PROCESS_TAG: this_process()}
    run = loop.runner.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
    told = boucle(loop, "retrain", "--reason", "test")
    assert told.returncode == 1
    assert f"Run {run.run_id[:8]} is training or promoting 'repurchase' already" in " ".join(told.stderr.split())
    assert "Nothing was started" in " ".join(told.stderr.split())


def test_a_dagster_yaml_of_another_release_is_named(in_production: Path, copy_of: Copy):
    loop = copy_of(in_production)
    assert doctor(loop).returncode == 0
    with (loop.path / "dagster" / "dagster.yaml").open("a") as file:
        file.write("retention: {}\n")
    told = doctor(loop)
    assert (told.returncode, "is not what this release writes" in " ".join(told.stdout.split())) == (1, True)


@pytest.mark.parametrize("log", [f"prediction_log/{SPEC.model}", "feedback_log/all", f"rank_log/{SPEC.model}"])
def test_a_missing_segment_of_a_log_is_named(in_production: Path, copy_of: Copy, log: str):
    loop = copy_of(in_production)
    replica = loop.path / log / "replica-1"
    replica.mkdir(parents=True)
    (replica / "00000002.jsonl").write_text("")
    told = doctor(loop)
    assert (told.returncode, "replica-1/00000001.jsonl" in "".join(told.stdout.split())) == (1, True)
