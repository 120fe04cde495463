"""Which drift reports are judged, in which order, and when a retrain run is requested for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets_tests.bundles import promote
from assets_tests.judging import MODEL, day, drift_report, gate, training_manifest
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import TriggerOutcome
from boucle.contracts.verdict import Verdict
from boucle.errors import ConflictError, StateStoreError
from boucle.policy.retraining import RetrainingPolicy
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.instance import CODE_SERVER_TAG, NO_RETRIES, PROCESS_TAG, dagster_yaml, end_dead_runs
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.automation import FAILED, RETRAINS_TAG, jobs, refuse_second_retraining
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.retraining import TRIGGER_TAG, drift_sensor, note_answers
from boucle_platform.model_loop.steps.store import document_file, version_dir, write_document
from boucle_platform.resources.home import HomeResource

ONE_WINDOW = RetrainingPolicy(failed_windows=1, of_windows=1)
SPEC = catalogue.spec_of("repurchase").model_copy(update={"retraining": ONE_WINDOW})
DRIFTED = (gate("calibration_drift", Verdict.FAILED),)
FIRED, SUPPRESSED = TriggerOutcome.FIRED, TriggerOutcome.SUPPRESSED


class World:
    """A home with version 2 in production, an instance, and the sensor with its cursor."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(home=str(path))
        self.home, self.instance, self.cursor = Home(self.settings), instance, None
        promote(self.home.state, version=2, digest=Digest("2" * 64))

    def write(self, period: str, **changes: Any) -> DriftReport:
        """Materialise the drift report of a period."""
        report = drift_report(period=period, **changes)
        write_document(document_file(self.home, SPEC, "drift_report", period), report)
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=key_of(SPEC, "drift_report"), partition=period)
        )
        return report

    def tick(self, cursor: str | None = None) -> Any:
        """Evaluate the sensor as a daemon does."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor or self.cursor,
            sensor_name="repurchase_drift",
            resources={"home": HomeResource.of(self.settings)},
        ) as context:
            answer = drift_sensor(SPEC)(context)
        self.cursor = getattr(answer, "cursor", None) or self.cursor
        return answer

    def requests(self, cursor: str | None = None) -> list[str]:
        """Run keys that one tick requests."""
        return [request.run_key for request in getattr(self.tick(cursor), "run_requests", None) or []]

    def run(self, status: dg.DagsterRunStatus, **tags: str) -> str:
        """A retrain run in some status."""
        return self.instance.create_run_for_job(RETRAIN, tags=tags, status=status).run_id

    def judged(self) -> list[tuple[str, TriggerOutcome]]:
        """Triggers on record."""
        return [(trigger.period, trigger.outcome) for _, trigger in self.home.state.triggers(MODEL)]

    def retrainings(self) -> int:
        """Decisions to retrain in the ledger."""
        return [row.decision.kind for row in self.home.state.decisions(MODEL)].count(DecisionKind.RETRAIN)


@dg.op
def nothing() -> None: ...


@dg.job(name="repurchase_retrain")
def RETRAIN() -> None:  # noqa: N802 - a job is a value
    nothing()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    folder = tmp_path / "dagster"
    folder.mkdir()
    (folder / "dagster.yaml").write_text(dagster_yaml(Settings()))
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        made = World(tmp_path / "home", instance)
        yield made
        made.home.state.close()


def test_without_a_report_nothing_is_judged(world: World):
    assert world.requests() == []
    assert world.judged() == []


def test_reports_written_between_two_ticks_are_judged_one_by_one_oldest_first(world: World):
    for period in ("1997-07", "1997-08", "1997-09"):
        world.write(period)
    for judged in (1, 2, 3, 3):
        assert world.requests() == []
        assert [period for period, _ in world.judged()] == ["1997-07", "1997-08", "1997-09"][:judged]


@pytest.mark.parametrize(
    ("period", "document", "words"),
    [
        ("1997-07", None, "window 1997-07 is passed over. There is no DriftReport at"),
        ("1997-07", b"{}", "drift_report/1997-07.json cannot be read (13 validation errors for DriftReport): mater"),
        ("1997-07", b"\xff", "drift_report/1997-07.json cannot be read ('utf-8' codec can't decode byte 0xff"),
        (None, None, "drift report of no period"),
    ],
)
def test_a_report_that_cannot_be_read_is_named_and_does_not_hold_up_the_next(
    world: World, period: str | None, document: bytes | None, words: str
):
    key = key_of(SPEC, "drift_report")
    world.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key=key, partition=period))
    if period and document:
        file = document_file(world.home, SPEC, "drift_report", period)
        file.parent.mkdir(parents=True)
        file.write_bytes(document)
    assert words in world.tick().skip_reason.skip_message
    if document:
        file.unlink()
    report = world.write("1997-08", gates=DRIFTED)
    assert world.requests() == [f"repurchase/1997-08/2/{report.digest()}"]


def test_an_earlier_report_that_cannot_be_read_holds_nothing_up_and_is_named(world: World):
    world.write("1997-07")
    assert world.requests() == []
    damaged = document_file(world.home, SPEC, "drift_report", "1997-07")
    damaged.write_text("{")
    report = world.write("1997-08", gates=DRIFTED)
    (request,) = world.tick().run_requests
    assert request.run_key == f"repurchase/1997-08/2/{report.digest()}"
    assert f"not looked at: The drift report {damaged} cannot be read" in world.home.state.triggers(MODEL)[-1][1].reason


def test_a_drifted_report_requests_a_run_named_after_what_was_judged(world: World):
    report = world.write("1997-08", gates=DRIFTED)
    (request,) = world.tick().run_requests
    assert request.run_key == f"repurchase/1997-08/2/{report.digest()}"
    assert request.tags[TRIGGER_TAG] == request.run_key
    assert "calibration_drift: failed" in request.tags["boucle/trigger"]
    assert (world.judged(), world.retrainings()) == ([("1997-08", FIRED)], 1)


def test_while_a_retrain_run_is_unfinished_nothing_is_judged(world: World):
    world.write("1997-08", gates=DRIFTED)
    run_id = world.run(dg.DagsterRunStatus.STARTED)
    assert run_id[:8] in world.tick().skip_message
    assert world.judged() == []


@pytest.mark.parametrize("status", FAILED)
def test_a_retrain_run_that_dagster_is_about_to_start_again_is_unfinished(world: World, status: dg.DagsterRunStatus):
    world.write("1997-08", gates=DRIFTED)
    run_id = world.run(status, **{"dagster/will_retry": "true"})
    assert world.requests() == []
    assert world.judged() == []
    world.instance.add_run_tags(run_id, {"dagster/auto_retry_run_id": "as this one, which is over"})
    assert len(world.requests()) == 1


def test_a_retrain_run_that_was_refused_does_not_hold_the_next_report_up(world: World):
    world.write("1997-08", gates=DRIFTED)
    world.run(dg.DagsterRunStatus.FAILURE, **{"dagster/will_retry": "false"})
    assert len(world.requests()) == 1


def test_a_suppressed_window_that_fires_when_written_again_has_its_trigger_and_its_decision(world: World):
    world.write("1997-08")
    assert world.requests() == []
    again = world.write("1997-08", gates=DRIFTED)
    assert world.requests() == [f"repurchase/1997-08/2/{again.digest()}"]
    assert [outcome for _, outcome in world.judged()].count(FIRED) == world.retrainings() == 1


def test_a_window_that_fired_does_not_fire_again_when_written_again(world: World):
    world.write("1997-08", gates=DRIFTED)
    assert len(world.requests()) == 1
    world.write("1997-08", gates=DRIFTED, labelled=1_999)
    assert world.requests() == []
    assert world.retrainings() == 1


def test_reports_left_over_from_the_version_before_request_nothing(world: World):
    world.write("1997-08", gates=DRIFTED)
    world.write("1997-09", gates=DRIFTED)
    assert len(world.requests()) == 1
    promote(world.home.state, version=3, digest=Digest("3" * 64))
    assert "the report judged version 2, production is version 3 now" in world.tick().skip_reason.skip_message
    assert world.judged()[-1] == ("1997-09", SUPPRESSED)


@pytest.mark.parametrize("cursor", ["", "1997-08/0a1b2c", "{}"])
def test_a_daemon_without_a_usable_cursor_requests_nothing_that_is_on_record(world: World, cursor: str):
    world.write("1997-07")
    world.write("1997-08", gates=DRIFTED)
    (key,) = [key for _ in range(3) for key in world.requests()]
    world.run(dg.DagsterRunStatus.SUCCESS, **{TRIGGER_TAG: key})
    world.cursor = cursor
    assert world.requests() == []
    assert (len(world.judged()), world.retrainings()) == (2, 1)


def test_killed_between_recording_and_requesting_it_requests_the_run_without_a_second_record(world: World):
    report = world.write("1997-08", gates=DRIFTED)
    lost = world.requests()
    world.cursor = None
    assert world.requests() == lost == [f"repurchase/1997-08/2/{report.digest()}"]
    assert (len(world.judged()), world.retrainings()) == (1, 1)


def test_a_lost_request_is_dropped_when_production_moved_on(world: World):
    world.write("1997-08", gates=DRIFTED)
    assert len(world.requests()) == 1
    world.cursor = None
    promote(world.home.state, version=3, digest=Digest("3" * 64))
    assert world.requests() == []


def test_a_store_that_fails_leaves_neither_trigger_nor_request_and_the_next_tick_judges(world: World, monkeypatch):
    world.write("1997-08", gates=DRIFTED)

    def full(*_: object) -> None:
        raise StateStoreError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr("boucle_adapters.sql_state._append", full)
        with pytest.raises(StateStoreError, match="disk full"):
            world.tick()
    assert (world.judged(), world.retrainings()) == ([], 0)
    assert len(world.requests()) == 1


def test_a_report_with_nothing_new_to_learn_from_is_on_record_with_its_reason(world: World):
    world.write("1997-08", gates=DRIFTED, trained_up_to=day("1997-07-01"))
    assert "no new labels" in world.tick().skip_reason.skip_message
    assert world.judged() == [("1997-08", SUPPRESSED)]


def test_days_that_were_loaded_together_ask_for_one_training(world: World):
    """All reports were there before the training that the first of them asked for."""
    for period in ("1997-08", "1997-09"):
        world.write(period, gates=DRIFTED)
    assert len(world.requests()) == 1
    trained = training_manifest(holdout=("1997-07-01",))
    write_document(version_dir(world.home, SPEC, ModelVersion(3)) / "training.json", trained)
    assert "no new labels" in world.tick().skip_reason.skip_message
    assert world.judged() == [("1997-08", FIRED), ("1997-09", SUPPRESSED)]


def test_one_retrain_run_of_a_model_at_a_time():
    (retrain,) = [job for job in jobs(SPEC, dg.AssetSelection.all()) if job.name == "repurchase_retrain"]
    assert retrain.tags[RETRAINS_TAG] == "repurchase"
    (limit,) = yaml.safe_load(dagster_yaml(Settings()))["concurrency"]["runs"]["tag_concurrency_limits"]
    assert limit == {"key": RETRAINS_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": 1}


def test_a_second_retraining_by_hand_is_refused_while_one_is_under_way(world: World):
    refuse_second_retraining(world.instance, SPEC)
    run_id = world.run(dg.DagsterRunStatus.STARTED)
    with pytest.raises(ConflictError, match=f"Run {run_id[:8]} is training or promoting 'repurchase' already"):
        refuse_second_retraining(world.instance, SPEC)


def test_a_retraining_that_ended_without_a_decision_is_named_with_what_to_do(world: World):
    world.write("1997-08", gates=DRIFTED)
    (key,) = world.requests()
    run_id = world.run(dg.DagsterRunStatus.FAILURE, **{TRIGGER_TAG: key})
    note_answers(world.instance, world.home, SPEC, None)
    answer = world.tick()
    assert f"asked for ended without a decision: run {run_id[:8]}" in str(answer.skip_reason)
    assert "boucle retrain repurchase" in str(answer.skip_reason)


def test_a_retraining_whose_candidate_was_refused_has_its_answer(world: World):
    world.write("1997-08", gates=DRIFTED)
    (key,) = world.requests()
    run_id = world.run(dg.DagsterRunStatus.FAILURE, **{TRIGGER_TAG: key})
    production = world.home.state.production(MODEL)
    refused = NewDecision(
        kind=DecisionKind.REJECT,
        model=MODEL,
        at=day("1997-09-01"),
        actor="test",
        reason="worse",
        from_version=production,
        to_version=production,
        dagster_run_id=run_id,
    )
    world.home.state.record(refused, expected_production=production)
    assert "No drift report that was not judged" in str(world.tick().skip_reason)


def test_dagster_starts_a_run_again_whose_process_died(world: World):
    gone = '{"socket": "/nowhere/at/all"}'
    run_id = world.run(dg.DagsterRunStatus.STARTED, **{CODE_SERVER_TAG: gone})
    assert end_dead_runs(world.instance) == [run_id]
    assert world.instance.get_run_by_id(run_id).is_complete_and_waiting_to_retry


def test_a_run_that_a_verb_executed_is_not_started_again(world: World):
    import socket

    run_id = world.run(
        dg.DagsterRunStatus.STARTED, **NO_RETRIES, **{PROCESS_TAG: f"{socket.gethostname()}/999999999/0"}
    )
    assert end_dead_runs(world.instance) == [run_id]
    assert not world.instance.get_run_by_id(run_id).is_complete_and_waiting_to_retry


def test_a_refused_candidate_is_not_tried_again(world: World):
    @dg.asset(check_specs=[dg.AssetCheckSpec("no_regression", asset="report", blocking=True)])
    def report() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=False, check_name="no_regression")])

    done = dg.materialize([report], instance=world.instance, raise_on_error=False)
    tags = world.instance.get_run_by_id(done.run_id).tags
    assert (done.success, tags["dagster/will_retry"], tags["dagster/failure_reason"]) == (
        False,
        "false",
        "STEP_FAILURE",
    )
