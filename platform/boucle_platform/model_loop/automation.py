"""Jobs and sensors of one model: what may be launched, and what launches itself."""

from typing import Any

import dagster as dg

from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.monitoring import DriftReport, Trigger, TriggerOutcome
from boucle.policy.retraining import decide_trigger
from boucle_adapters.home import Home
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import landing as landing_step
from boucle_platform.model_loop.steps.store import read_drift_report
from boucle_platform.resources.home import HomeResource

ACTOR_TAG = "boucle/actor"
RETRAIN_ASSETS = ("training_set", "candidate_model", "evaluation_report", "production_alias", "traffic_plan")
# The daemon looks every five seconds: asking for five makes it every ten (traps of the sensor daemon's loop).
EVERY_TICK_SECONDS = 4


def period_job_name(spec: LoopSpec) -> str:
    """The job that takes one landed period to features and monitoring."""
    return f"{spec.model}_period"


def retrain_job_name(spec: LoopSpec) -> str:
    """The job from training set to traffic."""
    return f"{spec.model}_retrain"


def jobs(spec: LoopSpec, period_assets: dg.AssetSelection) -> list[Any]:
    """The model's jobs."""
    retrain = dg.AssetSelection.assets(*(key_of(spec, name) for name in RETRAIN_ASSETS))
    return [
        dg.define_asset_job(
            f"{spec.model}_land",
            dg.AssetSelection.assets(key_of(spec, "landing")).without_checks(),
            description="Land one period: the stand-in for the source system, what `boucle feed` does.",
        ),
        dg.define_asset_job(
            period_job_name(spec),
            period_assets,
            description="One landed period: raw rows, features, online snapshot, outcomes, drift report.",
        ),
        dg.define_asset_job(
            retrain_job_name(spec),
            retrain,
            description="Training set, candidate, evaluation, promotion, traffic; a gate that does not pass ends it.",
        ),
        dg.define_asset_job(
            f"{spec.model}_checks",
            dg.AssetSelection.checks(
                dg.AssetCheckKey(key_of(spec, "production_alias"), "alias_equals_ledger"),
                dg.AssetCheckKey(key_of(spec, "traffic_plan"), "live_replicas_serve_the_plan"),
            ),
            description="Is what the registry and the replicas say still what the ledger says?",
        ),
    ]


def landing_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Requests the period job for the oldest landed file that is not loaded yet, one at a time and in order."""

    @dg.sensor(
        name=f"{spec.model}_landing",
        job_name=period_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        description="A new or changed landing file starts the period job; periods run in order, one at a time.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        busy = context.instance.get_runs(dg.RunsFilter(job_name=period_job_name(spec), statuses=_unfinished()), limit=1)
        if busy:
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of {period_job_name(spec)} is not finished.")
        arrived = landing_step.newest_arrival(home.connect(), spec, done=context.cursor or "")
        if arrived is None:
            return dg.SkipReason("No new landing file.")
        request = dg.RunRequest(
            run_key=arrived.run_key, partition_key=arrived.period, tags={ACTOR_TAG: context.sensor_name}
        )
        return dg.SensorResult(run_requests=[request], cursor=arrived.cursor)

    return evaluate


def drift_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Evaluates the retraining policy on each new drift report; records the trigger, fired or suppressed."""

    @dg.sensor(
        name=f"{spec.model}_drift",
        job_name=retrain_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        description="A drift report outside its limits, or no production model yet, requests retraining once a window.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        event = context.instance.get_latest_materialization_event(key_of(spec, "drift_report"))
        if event is None or event.dagster_event is None:
            return dg.SkipReason("No drift report yet: land a period and run the period job.")
        period = event.dagster_event.partition or ""
        cursor = f"{period}/{event.run_id}"
        if cursor == context.cursor:
            return dg.SkipReason(f"The drift report of {period} was judged already.")
        ports = home.connect()
        trigger = judge(ports, spec, read_drift_report(ports, spec, period), actor=context.sensor_name)
        if trigger.outcome is not TriggerOutcome.FIRED:
            return dg.SensorResult(skip_reason=dg.SkipReason(trigger.reason), cursor=cursor)
        request = dg.RunRequest(
            run_key=trigger.run_key, tags={ACTOR_TAG: context.sensor_name, "boucle/trigger": trigger.reason[:250]}
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return evaluate


def judge(home: Home, spec: LoopSpec, report: DriftReport, *, actor: str) -> Trigger:
    """Decide on one drift report and put the trigger on record, once per window and production version."""
    earlier = [trigger for _, trigger in home.state.triggers(spec.name)]
    outcome, reason = decide_trigger(spec.retraining, report, tuple(earlier))
    trigger = Trigger(
        model=spec.name,
        period=report.period,
        outcome=outcome,
        reason=reason,
        run_key=f"{spec.model}/{report.period}/{report.production_version or 'first'}",
    )
    who = home.actor(f"sensor:{actor}")
    if home.state.record_trigger(trigger, who.at) and outcome is TriggerOutcome.FIRED:
        production = home.state.production(spec.name)
        home.state.record(
            NewDecision(
                kind=DecisionKind.RETRAIN,
                model=spec.name,
                at=who.at,
                actor=who.name,
                reason=reason,
                from_version=production,
                to_version=production,
                git_commit=who.git_commit,
            ),
            expected_production=production,
        )
    return trigger


def _unfinished() -> list[dg.DagsterRunStatus]:
    status = dg.DagsterRunStatus
    return [status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
