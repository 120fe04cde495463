"""What requests the retrain job by itself, and what notes how that ended: by level, a schedule or the drift sensor."""

from collections.abc import Iterable, Sequence
from datetime import UTC

import dagster as dg

from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import (
    AlertRequest,
    AlertState,
    AnswerKind,
    Trigger,
    TriggerAnswer,
    TriggerCause,
    TriggerOutcome,
)
from boucle.errors import BoucleError
from boucle.policy.retraining import report_run_key
from boucle_adapters.home import Home
from boucle_platform.model_loop.automation import EVERY_TICK_SECONDS, retrain_job_name, unfinished_retraining
from boucle_platform.model_loop.in_environment import sensor_status
from boucle_platform.model_loop.keys import ACTOR_TAG, key_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import gains
from boucle_platform.model_loop.steps.retraining import (
    EndedRun,
    answer_of,
    facts_about,
    judge,
    newest_report,
    open_answers,
    report_or_why,
)
from boucle_platform.resources.home import HomeResource

# The trigger that a retrain run answers, whoever executes it.
TRIGGER_TAG = "boucle/trigger_key"
REPORTS_PER_TICK = 100
# Answers are looked for less often than work: nobody waits for them.
ANSWERS_SECONDS = 14
# So many of the newest answers with a version follow the labels that come in: two months of a budget of eight runs.
FOLLOWED_ANSWERS = 16
NO_REPORT = "No drift report was written yet: whether any label is mature is not known."


def drift_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Evaluates the retraining policy on each drift report in order, then on firing alerts; records every trigger."""

    @dg.sensor(
        name=f"{spec.model}_drift",
        job_name=retrain_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        default_status=sensor_status(),
        description="Drift in enough windows, an alert, or no production model yet: requests retraining once a window.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        busy = unfinished_retraining(context.instance, spec)
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of {busy[0].job_name} is not finished.")
        ports = home.connect()
        trigger, cursor, passed_over = _next_trigger(context, ports, spec)
        if passed_over:
            return dg.SensorResult(skip_reason=dg.SkipReason(passed_over), cursor=cursor)
        wrong = ""
        if trigger is None:
            trigger, wrong = _next_alert(context.instance, ports, spec, context.sensor_name)
        if trigger is None:
            reason = wrong or _unanswered(ports, spec) or "No drift report that was not judged."
            return dg.SensorResult(skip_reason=dg.SkipReason(reason), cursor=cursor)
        if trigger.outcome is not TriggerOutcome.FIRED:
            return dg.SensorResult(skip_reason=dg.SkipReason(trigger.reason), cursor=cursor)
        return dg.SensorResult(run_requests=[_request(trigger, context.sensor_name)], cursor=cursor)

    return evaluate


def retrain_schedule(spec: LoopSpec) -> dg.ScheduleDefinition:
    """Evaluates the retraining policy when its cron says so: new labels and budget decide, drift is not asked."""

    @dg.schedule(
        name=retrain_job_name(spec),
        job_name=retrain_job_name(spec),
        cron_schedule=spec.retrain_cron,
        execution_timezone="UTC",
        description="Retraining by the calendar, if there are new labels to learn from.",
    )
    def evaluate(context: dg.ScheduleEvaluationContext, home: HomeResource) -> dg.RunRequest | dg.SkipReason:
        ports, name = home.connect(), retrain_job_name(spec)
        under_way = unfinished_retraining(context.instance, spec)
        busy = f"Run {under_way[0].run_id[:8]} of {under_way[0].job_name} is not finished." if under_way else ""
        report, wrong = newest_report(ports, spec)
        if report is None:
            return dg.SkipReason(busy or wrong or NO_REPORT)
        run_key = f"{spec.model}/schedule/{context.scheduled_execution_time.astimezone(UTC).isoformat()}"
        facts = facts_about(ports, spec, report, cause=TriggerCause.SCHEDULE, busy=busy)
        trigger = judge(ports, spec, facts, run_key=run_key, actor=name) or _recorded(ports, spec, run_key)
        if trigger.outcome is not TriggerOutcome.FIRED:
            return dg.SkipReason(trigger.reason)
        if busy or not _lost_its_run(context.instance, ports, trigger):
            return dg.SkipReason(busy or f"This tick's run was requested already ({run_key}).")
        return _request(trigger, name)

    return evaluate


def answers_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Notes what became of each trigger that fired, and what it gains as labels of later requests become known."""

    @dg.sensor(
        name=f"{spec.model}_answers",
        minimum_interval_seconds=ANSWERS_SECONDS,
        default_status=sensor_status(),
        description="Puts on record how a requested retraining ended: promoted, refused, failed or stopped; its gain.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
        noted, seen = note_answers(context.instance, home.connect(), spec, context.cursor)
        return dg.SensorResult(skip_reason=dg.SkipReason(noted or "Nothing new is known."), cursor=seen)

    return evaluate


def note_answers(instance: dg.DagsterInstance, home: Home, spec: LoopSpec, seen: str | None) -> tuple[str, str]:
    """What was noted, in words, and what it rests on: while that is `seen`, realised gains are not measured anew."""
    noted = []
    for trigger, known in open_answers(home, spec):
        run = _ended_run(instance, trigger)
        if run is None:
            continue
        found = answer_of(home, spec, trigger, run, known)
        if known is None or (found.kind, found.dagster_run_id, found.version) != (
            known.kind,
            known.dagster_run_id,
            known.version,
        ):
            home.state.record_answer(found)
            noted.append(f"{trigger.run_key}: {found.kind}, {found.reason}")
    answers = home.state.answers(spec.name)
    basis = f"{gains.known_outcomes(home, spec)}/{len(answers)}"
    if basis == seen:
        return "; ".join(noted), basis
    noted += [said for one in _followed(answers.values()) if (said := _gain_noted(home, spec, *one))]
    return "; ".join(noted), basis


def _gain_noted(home: Home, spec: LoopSpec, answer: TriggerAnswer, version: ModelVersion, before: ModelVersion) -> str:
    """What was put on record of one answer's realised gain, or why it cannot be measured; empty: nothing new.

    A gain that can be measured no more stays as it was, and holds no other up.
    """
    try:
        gain = gains.realised_gain(home, spec, version, before)
    except (BoucleError, OSError, ValueError) as error:
        return f"{answer.run_key}: its realised gain cannot be measured, the next outcomes ask for it again: {error}"
    if gain is None or gain == answer.realised_gain:
        return ""
    home.state.record_answer(answer.model_copy(update={"realised_gain": gain}))
    return f"{answer.run_key}: realised gain {gain.nats:+.4f} nats"


def _followed(answers: Iterable[TriggerAnswer]) -> list[tuple[TriggerAnswer, ModelVersion, ModelVersion]]:
    """The newest answers that have a new version, newest first, with it and the one before; others push nobody out."""
    new = [
        (one, one.version, one.compared_with)
        for one in sorted(answers, key=lambda one: one.at, reverse=True)
        if one.version is not None and one.compared_with is not None and one.version != one.compared_with
    ]
    return new[:FOLLOWED_ANSWERS]


def _request(trigger: Trigger, actor: str) -> dg.RunRequest:
    tags = {ACTOR_TAG: actor, TRIGGER_TAG: trigger.run_key, "boucle/trigger": trigger.reason[:250]}
    return dg.RunRequest(run_key=trigger.run_key, tags=tags)


def _next_trigger(
    context: dg.SensorEvaluationContext, home: Home, spec: LoopSpec
) -> tuple[Trigger | None, str | None, str]:
    """Judge the oldest drift report that was not judged; also the cursor behind it, and why it was passed over instead.

    A report on record is passed over: another daemon, or `boucle demo`, judged it. Only a trigger that fired and has
    no run comes back, because its tick was killed between recording and requesting.
    """
    on_record = {trigger.report_digest: trigger for trigger in _of_reports(home, spec)}
    cursor = context.cursor
    for record in _reports(context.instance, spec, after=cursor):
        cursor = str(record.storage_id)
        report, wrong = _report_of(home, spec, record.partition_key or "")
        if report is None:
            return None, cursor, wrong
        trigger = on_record.get(report.digest())
        if trigger is None:
            return judge_report(home, spec, report, actor=context.sensor_name), cursor, ""
        if _lost_its_run(context.instance, home, trigger):
            return trigger, cursor, ""
    return None, cursor, ""


def _report_of(home: Home, spec: LoopSpec, period: str) -> tuple[DriftReport | None, str]:
    """The report of a materialisation, or what is wrong with it: one that cannot be read must not hold up the rest."""
    if not spec.is_period(period):
        return None, f"A drift report of no period ({period!r}) was materialised: passed over. Materialise a period."
    report, why = report_or_why(home, spec, period)
    return report, f"The window {period} is passed over. {why}" if why else ""


def judge_report(home: Home, spec: LoopSpec, report: DriftReport, *, actor: str) -> Trigger | None:
    """The trigger of one drift report, put on record; None when somebody else did in between."""
    return judge(home, spec, facts_about(home, spec, report), run_key=report_run_key(report), actor=actor)


def _of_reports(home: Home, spec: LoopSpec) -> list[Trigger]:
    of_reports = {TriggerCause.DRIFT, TriggerCause.ARRIVAL}
    return [trigger for _, trigger in home.state.triggers(spec.name) if trigger.cause in of_reports]


def _next_alert(instance: dg.DagsterInstance, home: Home, spec: LoopSpec, actor: str) -> tuple[Trigger | None, str]:
    """Judge the oldest firing alert that was not judged on top of the newest drift report: once an alert and window.

    Also why none can be judged: the report that says what there is to learn cannot be read.
    """
    firing = [alert for alert in home.state.alerts(spec.name) if alert.state is AlertState.FIRING]
    report, wrong = newest_report(home, spec) if firing else (None, "")
    if report is None:
        return None, f"{len(firing)} firing alert(s) wait. {wrong}" if wrong else ""
    on_record = {trigger.run_key: trigger for _, trigger in home.state.triggers(spec.name)}
    for alert in firing:
        run_key = _alert_run_key(alert, report)
        if run_key not in on_record:
            facts = facts_about(home, spec, report, cause=TriggerCause.ALERT, alert=alert)
            return judge(home, spec, facts, run_key=run_key, actor=actor), ""
        if _lost_its_run(instance, home, on_record[run_key]):
            return on_record[run_key], ""
    return None, ""


def _alert_run_key(alert: AlertRequest, report: DriftReport) -> str:
    return f"{alert.model}/alert/{alert.incident}/{report.period}"


def _recorded(home: Home, spec: LoopSpec, run_key: str) -> Trigger:
    return next(trigger for _, trigger in home.state.triggers(spec.name) if trigger.run_key == run_key)


def _reports(instance: dg.DagsterInstance, spec: LoopSpec, *, after: str | None) -> Sequence[dg.EventLogRecord]:
    """Materialisations of the drift report, oldest first; those of an unreadable cursor start at the beginning."""
    newer = int(after) if after and after.isdecimal() else None
    wanted = dg.AssetRecordsFilter(asset_key=key_of(spec, "drift_report"), after_storage_id=newer)
    return instance.fetch_materializations(wanted, limit=REPORTS_PER_TICK, ascending=True).records


def _lost_its_run(instance: dg.DagsterInstance, home: Home, trigger: Trigger) -> bool:
    production = home.state.production(trigger.model)
    if trigger.outcome is not TriggerOutcome.FIRED or trigger.production_version != production:
        return False
    return not instance.get_runs(dg.RunsFilter(tags={TRIGGER_TAG: trigger.run_key}), limit=1)


def _ended_run(instance: dg.DagsterInstance, trigger: Trigger) -> EndedRun | None:
    """The newest run of a trigger if it is over; one that died and is about to be started again is not."""
    records = instance.get_run_records(dg.RunsFilter(tags={TRIGGER_TAG: trigger.run_key}))
    run = records[0].dagster_run if records else None
    if run is None or not run.is_finished:
        return None
    started, ended = records[0].start_time, records[0].end_time
    said = _told(instance, run.run_id)
    stopped = any("maximum runtime" in message for message in said)
    if run.is_complete_and_waiting_to_retry and not stopped:
        return None
    return EndedRun(
        run_id=run.run_id,
        of_trigger=frozenset(record.dagster_run.run_id for record in records),
        succeeded=run.status is dg.DagsterRunStatus.SUCCESS,
        stopped=stopped,
        wall_seconds=ended - started if started and ended else 0.0,
        error=said[0] if said else "",
    )


def _told(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """Why a run did not end well: the errors of its steps, as their authors worded them, then what Dagster said."""
    kinds = dg.DagsterEventType
    ends = {kinds.STEP_FAILURE, kinds.RUN_CANCELING, kinds.RUN_FAILURE, kinds.RUN_CANCELED}
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=ends) if entry.dagster_event]
    errors = [event.step_failure_data.error for event in events if event.is_step_failure]
    found = [(error.cause or error).message for error in errors if error is not None]
    found += [event.message or "" for event in events if not event.is_step_failure]
    return [" ".join(message.split()) for message in found if message.strip()]


def _unanswered(home: Home, spec: LoopSpec) -> str:
    """What to do about a retraining that ended without a decision on a candidate; empty when there is none.

    A refused candidate is an answer. A registry that was away is not, and nothing asks again within the window.
    """
    fired = [trigger for _, trigger in home.state.triggers(spec.name) if trigger.outcome is TriggerOutcome.FIRED]
    answer = home.state.answers(spec.name).get(fired[-1].run_key) if fired else None
    if answer is None or answer.kind not in {AnswerKind.FAILED, AnswerKind.STOPPED}:
        return ""
    return (
        f"The retraining that {fired[-1].period} asked for ended without a decision: run {answer.dagster_run_id[:8]} "
        f"{answer.kind} ({answer.reason}). Execute it again from the Dagster UI, or `boucle retrain {spec.model} "
        "--reason …`."
    )
