"""What retrains a model by level: nobody, a calendar, drift, labels, an alert; and how it is noted what came of it."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from assets_tests.bundles import promote
from assets_tests.judging import MODEL, day, drift_report, gate, training_manifest
from assets_tests.scenarios import evidence
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.trigger import AlertRequest, AlertState, AnswerKind, TriggerCause, TriggerOutcome, TriggerRule
from boucle.contracts.verdict import Verdict
from boucle.policy.retraining import RetrainingPolicy
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.instance import NO_RETRIES, dagster_yaml
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.automation import MAX_RUNTIME_TAG, jobs
from boucle_platform.model_loop.component import loop_definitions
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.retraining import TRIGGER_TAG, drift_sensor, note_answers, retrain_schedule
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import document_file, version_dir, write_document
from boucle_platform.resources.home import HomeResource

SHIPPED = catalogue.spec_of("repurchase")
MONTHLY = "0 6 1 * *"
FIRST_OF_SEPTEMBER = datetime(1997, 9, 1, 6, tzinfo=UTC)


def spec_of(level: int, **changes: Any) -> LoopSpec:
    cron = {"retrain_cron": MONTHLY} if level in {1, 2} else {}
    return LoopSpec.model_validate({**SHIPPED.model_dump(), "level": level, **cron, **changes})


class World:
    """A home with version 2 in production, a Dagster instance, and the drift sensor's cursor."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance, self.cursor = Settings(home=str(path)), instance, None
        self.home = Home(self.settings)
        promote(self.home.state, version=2, digest=Digest("2" * 64))

    def report(self, period: str = "1997-08", **changes: Any) -> None:
        """Materialise a drift report."""
        write_document(
            document_file(self.home, SHIPPED, "drift_report", period), drift_report(period=period, **changes)
        )
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=key_of(SHIPPED, "drift_report"), partition=period)
        )

    def tick(self, spec: LoopSpec) -> Any:
        """Evaluate the drift sensor."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            sensor_name="repurchase_drift",
            resources={"home": HomeResource.of(self.settings)},
        ) as context:
            answer = drift_sensor(spec)(context)
        self.cursor = getattr(answer, "cursor", None) or self.cursor
        return answer

    def scheduled(self, spec: LoopSpec, at: datetime = FIRST_OF_SEPTEMBER) -> Any:
        """Evaluate the schedule as of a moment."""
        with dg.build_schedule_context(
            instance=self.instance,
            scheduled_execution_time=at,
            resources={"home": HomeResource.of(self.settings)},
        ) as context:
            return retrain_schedule(spec)(context)

    def alert(self, **changes: Any) -> AlertRequest:
        """Put an alert on record."""
        known: dict[str, Any] = {
            "model": MODEL,
            "fingerprint": "a1b2",
            "starts_at": day("1997-08-20"),
            "state": AlertState.FIRING,
            "name": "RefundsUp",
            "summary": "refunds doubled",
            "actor": "service:alertmanager",
            "received_at": day("1997-08-20"),
        }
        made = AlertRequest(**known | changes)
        self.home.state.record_alert(made)
        return made

    def run(self, key: str, status: dg.DagsterRunStatus, **tags: str) -> str:
        """A retrain run that answers a trigger."""
        return self.instance.create_run_for_job(RETRAIN, tags={TRIGGER_TAG: key, **tags}, status=status).run_id

    def last(self) -> tuple[TriggerCause, TriggerOutcome, TriggerRule | None]:
        """The newest trigger on record."""
        _, trigger = self.home.state.triggers(MODEL)[-1]
        return trigger.cause, trigger.outcome, trigger.rule


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


@pytest.mark.parametrize(
    ("level", "cron", "sensors", "schedules"),
    [
        (0, "", set(), set()),
        (1, MONTHLY, {"answers"}, {"retrain"}),
        (2, MONTHLY, {"answers"}, {"retrain"}),
        (3, "", {"answers", "drift"}, set()),
        (3, MONTHLY, {"answers", "drift"}, {"retrain"}),
    ],
)
def test_a_level_is_what_may_start_a_retraining(level: int, cron: str, sensors: set[str], schedules: set[str]):
    made = loop_definitions(spec_of(level, retrain_cron=cron))
    found = {sensor.name.removeprefix("repurchase_") for sensor in made.sensors or ()}
    timed = {schedule.name.removeprefix("repurchase_") for schedule in made.schedules or ()}
    assert found & {"answers", "drift"} == sensors
    assert timed & {"retrain"} == schedules
    assert "repurchase_retrain" in {job.name for job in made.jobs or ()}


@pytest.mark.parametrize(
    ("level", "cron", "words"),
    [(0, MONTHLY, "level 0 retrains by hand only"), (1, "", "say when, as in retrain_cron"), (4, "", "level")],
)
def test_a_level_that_makes_no_sense_is_refused(level: int, cron: str, words: str):
    with pytest.raises(ValidationError, match=words):
        spec_of(level, retrain_cron=cron)


def test_a_cron_that_is_none_stops_the_start():
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="monthly"):
        loop_definitions(spec_of(1, retrain_cron="monthly"))


def test_the_schedule_asks_for_one_run_a_tick_through_a_recorded_trigger(world: World):
    world.report()
    request = world.scheduled(spec_of(1))
    assert request.run_key == "repurchase/schedule/1997-09-01T06:00:00+00:00"
    assert request.tags[TRIGGER_TAG] == request.run_key
    assert world.last() == (TriggerCause.SCHEDULE, TriggerOutcome.FIRED, TriggerRule.SCHEDULE)
    assert world.home.state.decisions(MODEL)[-1].decision.kind is DecisionKind.RETRAIN
    assert world.scheduled(spec_of(1)).run_key == request.run_key, "killed before Dagster took it: asked for again"
    world.run(request.run_key, dg.DagsterRunStatus.SUCCESS)
    assert "requested already" in world.scheduled(spec_of(1)).skip_message
    assert len(world.home.state.triggers(MODEL)) == 1


def test_the_schedule_does_not_retrain_without_new_labels(world: World):
    world.report()
    write_document(
        version_dir(world.home, SHIPPED, ModelVersion(3)) / "training.json", training_manifest(holdout=("1997-07-01",))
    )
    assert "no new labels" in world.scheduled(spec_of(1)).skip_message
    assert world.last() == (TriggerCause.SCHEDULE, TriggerOutcome.SUPPRESSED, TriggerRule.NO_NEW_LABELS)


def test_a_scheduled_tick_during_a_run_is_on_record_as_held_back(world: World):
    world.report()
    run_id = world.run("somebody else's", dg.DagsterRunStatus.STARTED)
    assert run_id[:8] in world.scheduled(spec_of(1)).skip_message
    assert world.last() == (TriggerCause.SCHEDULE, TriggerOutcome.SUPPRESSED, TriggerRule.BUSY)


def test_the_schedule_keeps_to_the_budget(world: World):
    world.report()
    spec = spec_of(1, retraining=RetrainingPolicy(max_runs_per_month=1))
    world.run(world.scheduled(spec).run_key, dg.DagsterRunStatus.SUCCESS)
    skipped = world.scheduled(spec, FIRST_OF_SEPTEMBER.replace(day=2))
    assert "1 of 1 runs" in skipped.skip_message
    assert world.last()[2] is TriggerRule.BUDGET


def test_without_any_drift_report_the_schedule_waits(world: World):
    assert "No drift report" in world.scheduled(spec_of(1)).skip_message
    assert world.home.state.triggers(MODEL) == []


def test_a_firing_alert_asks_once_for_a_retraining(world: World):
    world.report()
    world.tick(spec_of(3))
    alert = world.alert()
    (request,) = world.tick(spec_of(3)).run_requests
    assert request.run_key == f"repurchase/alert/{alert.incident}/1997-08"
    assert world.last() == (TriggerCause.ALERT, TriggerOutcome.FIRED, TriggerRule.ALERT)
    world.run(request.run_key, dg.DagsterRunStatus.SUCCESS)
    world.alert(summary="sent again, as Alertmanager does")
    assert not world.tick(spec_of(3)).run_requests
    assert len(world.home.state.triggers(MODEL)) == 2


def damaged(world: World) -> Path:
    """The file of the newest drift report, cut off after it was judged."""
    world.report()
    world.tick(spec_of(3))
    file = document_file(world.home, SHIPPED, "drift_report", "1997-08")
    file.write_text(file.read_text()[:100])
    return file


def test_an_alert_waits_while_the_newest_report_cannot_be_read_and_fires_then(world: World):
    file = damaged(world)
    world.alert()
    said = world.tick(spec_of(3)).skip_reason.skip_message
    assert "1 firing alert(s) wait." in said
    assert f"{file} cannot be read" in said
    assert "materialise drift_report of 1997-08 again" in said
    world.report("1997-09", newest_mature_as_of=day("1997-08-01"), trained_up_to=day("1997-07-01"))
    assert world.tick(spec_of(3)).run_requests == []
    assert len(world.tick(spec_of(3)).run_requests) == 1, "what comes after it is judged all the same"


def test_the_schedule_names_a_newest_report_that_cannot_be_read(world: World):
    file = damaged(world)
    assert f"{file} cannot be read" in world.scheduled(spec_of(1)).skip_message
    assert len(world.home.state.triggers(MODEL)) == 1


def test_a_resolved_alert_asks_for_nothing(world: World):
    world.report()
    world.tick(spec_of(3))
    world.alert(state=AlertState.RESOLVED)
    assert not world.tick(spec_of(3)).run_requests
    assert len(world.home.state.triggers(MODEL)) == 1


def test_an_alert_that_goes_on_is_judged_again_with_the_next_window(world: World):
    world.report(trained_up_to=day("1997-07-01"))
    world.tick(spec_of(3))
    world.alert()
    world.tick(spec_of(3))
    assert world.last() == (TriggerCause.ALERT, TriggerOutcome.SUPPRESSED, TriggerRule.NO_NEW_LABELS)
    world.report("1997-09", newest_mature_as_of=day("1997-08-01"), trained_up_to=day("1997-07-01"))
    world.tick(spec_of(3))
    (request,) = world.tick(spec_of(3)).run_requests
    assert request.run_key.endswith("/1997-09")


def test_one_drifted_window_is_on_record_and_the_second_one_fires(world: World):
    drifted = {"gates": (gate("calibration_drift", Verdict.FAILED),)}
    spec = spec_of(3, retraining=RetrainingPolicy())
    world.report("1997-07", **drifted)
    assert "2 of 3 are asked for" in world.tick(spec).skip_reason.skip_message
    world.report("1997-08", **drifted)
    (request,) = world.tick(spec).run_requests
    assert "drift in 2 of the last 2 windows" in request.tags["boucle/trigger"]


def fire(world: World) -> str:
    """A trigger that fired, by its run key."""
    world.report()
    return str(world.scheduled(spec_of(1)).run_key)


def test_how_a_requested_run_ended_is_noted_once_it_is_over(world: World):
    key = fire(world)
    assert note_answers(world.instance, world.home, SHIPPED, None)[0] == ""
    run_id = world.run(key, dg.DagsterRunStatus.STARTED, **NO_RETRIES)
    assert note_answers(world.instance, world.home, SHIPPED, None)[0] == ""
    world.instance.report_run_failed(world.instance.get_run_by_id(run_id), "the registry is away")
    noted, _ = note_answers(world.instance, world.home, SHIPPED, None)
    answer = world.home.state.answers(MODEL)[key]
    assert (answer.kind, answer.reason, answer.dagster_run_id) == (AnswerKind.FAILED, "the registry is away", run_id)
    assert key in noted


def test_a_run_that_died_and_is_about_to_be_started_again_has_not_ended(world: World):
    key = fire(world)
    run_id = world.run(key, dg.DagsterRunStatus.STARTED)
    world.instance.report_run_failed(world.instance.get_run_by_id(run_id), "the process died")
    note_answers(world.instance, world.home, SHIPPED, None)
    assert world.home.state.answers(MODEL) == {}


def test_a_run_that_was_stopped_for_its_time_says_so(world: World):
    key = fire(world)
    run_id = world.run(key, dg.DagsterRunStatus.STARTED)
    message = "Exceeded maximum runtime of 3600 seconds."
    world.instance.report_run_failed(world.instance.get_run_by_id(run_id), message)
    note_answers(world.instance, world.home, SHIPPED, None)
    answer = world.home.state.answers(MODEL)[key]
    assert (answer.kind, message in answer.reason) == (AnswerKind.STOPPED, True)


def test_a_failed_run_that_was_executed_again_is_judged_by_the_second_one(world: World):
    key = fire(world)
    for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.FAILURE):
        run_id = world.run(key, status)
        note_answers(world.instance, world.home, SHIPPED, None)
        assert world.home.state.answers(MODEL)[key].dagster_run_id == run_id


def test_a_refusal_is_an_answer(world: World):
    key = fire(world)
    run_id = world.run(key, dg.DagsterRunStatus.FAILURE)
    production = world.home.state.production(MODEL)
    refused = NewDecision(
        kind=DecisionKind.REJECT,
        model=MODEL,
        at=day("1997-09-01"),
        actor="test",
        reason="no_regression: failed",
        from_version=production,
        to_version=production,
        dagster_run_id=run_id,
    )
    world.home.state.record(refused, expected_production=production)
    note_answers(world.instance, world.home, SHIPPED, None)
    answer = world.home.state.answers(MODEL)[key]
    assert (answer.kind, answer.reason) == (AnswerKind.REFUSED, "no_regression: failed")


def decide_about(world: World, kind: DecisionKind, version: int, *, run_id: str = "") -> None:
    """A decision about a version, by a run or by a person."""
    production = world.home.state.production(MODEL)
    decision = NewDecision(
        kind=kind,
        model=MODEL,
        at=day("1997-09-01"),
        actor="user:ada",
        reason=f"{kind} it",
        from_version=production,
        to_version=ModelVersion(version) if kind is DecisionKind.PROMOTE else production,
        subject_version=ModelVersion(version),
        dagster_run_id=run_id,
    )
    world.home.state.record(decision, expected_production=production)


def evaluated(world: World, version: int, run_id: str, *, later: bool = False) -> None:
    """A version that was measured against production, as the evaluation report of a run."""
    found = evidence(version, against=2, run_id=run_id)
    found = found.model_copy(update={"created_at": found.created_at + timedelta(days=later)})
    write_document(world.home.evidence.file(found, ".json"), found)
    write_document(document_file(world.home, SHIPPED, "evaluation_report"), found)


def noted(world: World, key: str) -> tuple[AnswerKind, int | None]:
    """What is on record of a trigger after one more look."""
    note_answers(world.instance, world.home, SHIPPED, None)
    answer = world.home.state.answers(MODEL)[key]
    return answer.kind, answer.version


@pytest.mark.parametrize(
    ("decided", "kind"), [(DecisionKind.PROMOTE, AnswerKind.PROMOTED), (DecisionKind.REQUEST, AnswerKind.WAITING)]
)
def test_a_run_executed_again_from_its_failure_answers_with_what_the_first_one_measured(
    world: World, decided: DecisionKind, kind: AnswerKind
):
    key = fire(world)
    evaluated(world, 3, world.run(key, dg.DagsterRunStatus.FAILURE))
    decide_about(world, decided, 3, run_id=world.run(key, dg.DagsterRunStatus.SUCCESS))
    assert noted(world, key) == (kind, 3)


@pytest.mark.parametrize(
    ("said", "kind"), [(DecisionKind.REJECT, AnswerKind.REFUSED), (DecisionKind.PROMOTE, AnswerKind.PROMOTED)]
)
def test_a_version_that_waits_goes_on_waiting_until_somebody_decides_about_it(
    world: World, said: DecisionKind, kind: AnswerKind
):
    decide_about(world, DecisionKind.REJECT, 3)  # before it was asked for: not about this retraining
    key = fire(world)
    evaluated(world, 3, world.run(key, dg.DagsterRunStatus.SUCCESS))
    assert noted(world, key) == (AnswerKind.WAITING, 3)
    evaluated(world, 4, "a run of somebody else")
    assert noted(world, key) == (AnswerKind.WAITING, 3)
    decide_about(world, said, 3)
    assert noted(world, key) == (kind, 3)


@pytest.mark.parametrize("again", [4, 3], ids=["a later version", "the same version by another run"])
def test_what_a_run_measured_is_found_after_others_measured_before_anybody_looked(world: World, again: int):
    key = fire(world)
    evaluated(world, 3, world.run(key, dg.DagsterRunStatus.SUCCESS))
    evaluated(world, again, "a run of somebody else", later=True)
    torn = world.home.evidence.file(evidence(1), ".json")
    torn.parent.mkdir(parents=True)
    torn.write_text("{")
    assert noted(world, key) == (AnswerKind.WAITING, 3)
    answer = world.home.state.answers(MODEL)[key]
    assert (answer.compared_with, answer.holdout_gain is None) == (2, False)


def test_production_that_came_out_again_waits_for_nobody(world: World):
    key = fire(world)
    evaluated(world, 2, world.run(key, dg.DagsterRunStatus.SUCCESS))
    assert noted(world, key) == (AnswerKind.REFUSED, 2)


def test_a_retrain_run_has_a_time_budget_that_run_monitoring_holds():
    (retrain,) = [job for job in jobs(SHIPPED, dg.AssetSelection.all()) if job.name == "repurchase_retrain"]
    assert retrain.tags[MAX_RUNTIME_TAG] == "3600"
