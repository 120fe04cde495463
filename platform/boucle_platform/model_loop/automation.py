"""Jobs and sensors of one model: what may be launched, and what launches itself."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import dagster as dg

from boucle.contracts.ids import Digest, PeriodKey
from boucle.contracts.windows import next_period
from boucle.errors import ConflictError
from boucle.features.arrivals import Arrival, arrivals
from boucle.operations import promotion
from boucle.policy.promotion import PromotionOutcome
from boucle_platform.logs import run_config
from boucle_platform.model_loop.in_environment import sensor_status
from boucle_platform.model_loop.keys import ACTOR_TAG, FIRST_PARTITION_TAG, FRESH, LAST_PARTITION_TAG, key_of
from boucle_platform.model_loop.loaded import loaded_periods
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import landing as landing_step
from boucle_platform.model_loop.steps.risk import risk_of
from boucle_platform.model_loop.steps.store import newest_evidence
from boucle_platform.resources.home import HomeResource

# One retrain run of a model at a time: `dagster.yaml` limits the queue by it.
RETRAINS_TAG = "boucle/retrains"
# Set by Dagster on a run that failed: whether its daemon starts it again; and, once it has, as which run.
WILL_RETRY_TAG, RETRIED_AS_TAG = "dagster/will_retry", "dagster/auto_retry_run_id"
# How a failed run may end: stopped for its time, it says last, in a race with its process, that it was cancelled.
FAILED = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
# Seconds after which Dagster's run monitoring, which the home's `dagster.yaml` switches on, ends a run.
MAX_RUNTIME_TAG = "dagster/max_runtime"
MAX_RETRIES_TAG = "dagster/max_retries"
PARTITION_TAG = "dagster/partition"
FAILED_RUNS_LOOKED_AT = 20
# The landed content that a run of the period job is to load.
LANDING_TAG = "boucle/landing"
PROMOTE_ASSETS = ("production_alias", "traffic_plan")
JUDGE_ASSETS = ("training_set", "evaluation_report")
RETRAIN_ASSETS = ("training_set", "candidate_model", "evaluation_report", *PROMOTE_ASSETS)
# The daemon looks every five seconds: asking for five makes it every ten (traps of the sensor daemon's loop).
EVERY_TICK_SECONDS = 4


def period_job_name(spec: LoopSpec) -> str:
    """The job that takes one landed period to features and monitoring."""
    return f"{spec.model}_period"


def retrain_job_name(spec: LoopSpec) -> str:
    """The job from training set to traffic."""
    return f"{spec.model}_retrain"


def judge_job_name(spec: LoopSpec) -> str:
    """The job that judges a version that was not trained by the run before, such as an imported one."""
    return f"{spec.model}_judge"


def promote_job_name(spec: LoopSpec) -> str:
    """The job that carries out what people decided about the newest evaluation report."""
    return f"{spec.model}_promote"


def checks_job_name(spec: LoopSpec) -> str:
    """The job that looks at what can go wrong between runs."""
    return f"{spec.model}_checks"


def jobs(spec: LoopSpec, period_assets: dg.AssetSelection) -> list[Any]:
    """The model's jobs."""
    define = partial(dg.define_asset_job, config=run_config())
    retrain = dg.AssetSelection.assets(*(key_of(spec, name) for name in RETRAIN_ASSETS))
    as_the_ledger_says = dg.AssetSelection.checks(
        dg.AssetCheckKey(key_of(spec, "production_alias"), "alias_equals_ledger"),
        dg.AssetCheckKey(key_of(spec, "traffic_plan"), "traffic_equals_ledger"),
    )
    land = define(
        f"{spec.model}_land",
        dg.AssetSelection.assets(key_of(spec, "landing")).without_checks(),
        description="Land one period: the stand-in for the source system, what `boucle feed` does.",
    )
    return [
        *([land] if spec.has_history else []),
        define(
            period_job_name(spec),
            period_assets | as_the_ledger_says,
            description="One landed period: raw rows, features, online snapshot, outcomes, drift report.",
        ),
        define(
            retrain_job_name(spec),
            retrain,
            tags={
                RETRAINS_TAG: spec.model,
                MAX_RUNTIME_TAG: str(round(spec.training.max_run_minutes * 60)),
                # Dagster starts a run again that it stopped for its time, as one whose process died: once is enough.
                MAX_RETRIES_TAG: "1",
            },
            description="Training set, candidate, evaluation, promotion, traffic; a gate that does not pass ends it.",
        ),
        define(
            judge_job_name(spec),
            dg.AssetSelection.assets(*(key_of(spec, name) for name in JUDGE_ASSETS)),
            tags={RETRAINS_TAG: spec.model},
            description="The newest holdout, and the candidate at hand judged on it: after `boucle import`.",
        ),
        define(
            promote_job_name(spec),
            dg.AssetSelection.assets(*(key_of(spec, name) for name in PROMOTE_ASSETS)),
            tags={RETRAINS_TAG: spec.model},
            description="Promotion and traffic of the newest evaluation report: after a person asked or approved.",
        ),
        define(
            checks_job_name(spec),
            as_the_ledger_says
            | dg.AssetSelection.checks(
                dg.AssetCheckKey(key_of(spec, "traffic_plan"), "live_replicas_serve_the_plan"),
                *(dg.AssetCheckKey(key_of(spec, raw), FRESH) for raw in spec.raws),
            ),
            description="Do registry, traffic plan and replicas still say what the ledger says; is the data fresh?",
        ),
    ]


def checks_schedule(spec: LoopSpec) -> dg.ScheduleDefinition:
    """Looks for moved aliases and late data when nothing else runs; a person switches it on."""
    return dg.ScheduleDefinition(
        name=checks_job_name(spec),
        job_name=checks_job_name(spec),
        cron_schedule="*/10 * * * *",
        description="Every ten minutes: is all as the ledger says, and has the newest data landed in time?",
    )


def landing_sensor(
    spec: LoopSpec, rebuilt: Sequence[dg.AssetKey], partitions: dg.PartitionsDefinition[str]
) -> dg.SensorDefinition:
    """Requests the period job for the oldest periods whose landed content is not loaded, one run at a time, in order.

    A run takes up to `periods_per_run` of them; where such a run failed, its periods are requested one by one, so that
    the one that is broken holds up none before it. What is loaded is what the event log says, so that a run of a person
    or of a verb counts, and a failed one does not. The cursor names what the last tick saw when all was loaded: while
    nothing lands and nothing is logged, a tick reads no history (a year of days: 0.05 s instead of 0.5 s). Of a period
    that was monitored already it requests only the assets `rebuilt`: what was seen of its window stays.
    """

    @dg.sensor(
        name=f"{spec.model}_landing",
        job_name=period_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        default_status=sensor_status(),
        description="Landed content that is not loaded starts the period job; a corrected file also every later one.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        if busy := _unfinished_loading(context.instance, spec, rebuilt):
            return dg.SkipReason(f"Run {busy.run_id[:8]} of {busy.job_name} is not finished.")
        files, periods = landing_step.landed_files(home.connect(), spec), set(partitions.get_partition_keys())
        seen = _sight(context.instance, files, periods)
        if seen == context.cursor:
            return dg.SkipReason(f"Nothing has landed since all was loaded ({len(files)} periods).")
        loaded = loaded_periods(context.instance, spec)
        landed = {period: digest for period, digest in files.items() if period in periods}
        due = arrivals(landed, loaded.stamps, unfinished=loaded.unfinished, restated=_answering(spec, landed))
        if not due:
            strange = ", ".join(f"{name}.csv" for name in files if name not in landed)
            ignored = f" Ignored, as no period of '{spec.model}' that is over: {strange}." if strange else ""
            everything = f"Everything that has landed is loaded ({len(landed)} periods).{ignored}"
            return dg.SensorResult(skip_reason=everything, cursor=seen)
        batch = due[:1] if _failed_together(context.instance, spec, due[0]) else _together(spec, due, loaded.monitored)
        last = _last_loading(context.instance, spec, batch)
        if last is not None and last.status is not dg.DagsterRunStatus.SUCCESS:
            return dg.SkipReason(_what_to_do(batch[0], last))
        run_key = f"{spec.model}/{batch[-1].period}/{batch[-1].stamp}"
        request = dg.RunRequest(
            # Content that comes back after it was replaced has been requested before: Dagster would drop its key.
            run_key=f"{run_key}/{last.run_id[:8]}" if last else run_key,
            partition_key=batch[0].period if len(batch) == 1 else None,
            tags={ACTOR_TAG: context.sensor_name, LANDING_TAG: batch[-1].stamp, **_range_tags(batch)},
            asset_selection=list(rebuilt) if batch[0].period in loaded.monitored else None,
        )
        return dg.SensorResult(run_requests=[request])

    return evaluate


def _sight(instance: dg.DagsterInstance, files: Mapping[PeriodKey, Digest], periods: Collection[str]) -> str:
    """All that a tick of the landing sensor depends on, as one word: files, partitions, and how far the log reaches."""
    log_end = instance.event_log_storage.get_maximum_record_id() or 0
    landed = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]
    return f"{landed}/{len(periods)}/{log_end}"


def _answering(spec: LoopSpec, landed: Collection[PeriodKey]) -> set[PeriodKey]:
    """Periods whose features requests may still ask for: a correction of an earlier one is carried into these."""
    ends = {period: spec.period(period).end for period in landed}
    oldest = max(ends.values(), default=None)
    return {p for p, end in ends.items() if oldest and end > oldest - timedelta(days=spec.online.retention_days)}


def _together(spec: LoopSpec, due: Sequence[Arrival], monitored: Collection[PeriodKey]) -> tuple[Arrival, ...]:
    """The first of the due periods and those that follow it without a gap and are to be loaded in the same way."""
    batch = [due[0]]
    for arrival in due[1 : spec.periods_per_run]:
        follows = next_period(spec.period(batch[-1].period), spec.cadence).key == arrival.period
        if not follows or (arrival.period in monitored) is not (due[0].period in monitored):
            break
        batch.append(arrival)
    return tuple(batch)


def _range_tags(batch: Sequence[Arrival]) -> dict[str, str]:
    if len(batch) == 1:
        return {}
    return {FIRST_PARTITION_TAG: batch[0].period, LAST_PARTITION_TAG: batch[-1].period}


def _failed_together(instance: dg.DagsterInstance, spec: LoopSpec, arrival: Arrival) -> bool:
    """Whether a run of several periods, this one among them, did not end well."""
    status = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    wanted = dg.RunsFilter(job_name=period_job_name(spec), statuses=status)
    return any(
        FIRST_PARTITION_TAG in run.tags
        and run.tags[FIRST_PARTITION_TAG] <= arrival.period <= run.tags[LAST_PARTITION_TAG]
        for run in instance.get_runs(wanted, limit=FAILED_RUNS_LOOKED_AT)
    )


def promotion_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Carries out, once, what a person asked for or approved; nothing waits inside a run, and rollback stays armed."""

    @dg.sensor(
        name=f"{spec.model}_promotion",
        job_name=promote_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        default_status=sensor_status(),
        description="An approved (or, under `manual`, requested) version whose gates passed starts its promotion.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.RunRequest | dg.SkipReason:
        ports = home.connect()
        if (evidence := newest_evidence(ports, spec)) is None:
            return dg.SkipReason("No version was evaluated yet.")
        judged, people = promotion.judge(
            ports.state,
            evidence,
            spec.promotion,
            at=ports.clock(spec.name).now(),
            risk=risk_of(ports, spec, evidence),
        )
        if judged.outcome is not PromotionOutcome.PROMOTE or people.answer is None:
            return dg.SkipReason(f"Version {evidence.version}: {judged.reason}")
        if busy := unfinished_retraining(context.instance, spec):
            return dg.SkipReason(f"Run {busy[0].run_id[:8]} of {busy[0].job_name} is not finished.")
        return dg.RunRequest(
            run_key=f"{spec.model}/{people.answer.row_hash}",
            tags={ACTOR_TAG: context.sensor_name, "boucle/trigger": judged.reason[:250]},
        )

    return evaluate


def refuse_second_retraining(instance: dg.DagsterInstance, spec: LoopSpec) -> None:
    """Raise while a retrain run of the model is under way: both would write the same documents."""
    if busy := unfinished_retraining(instance, spec):
        raise ConflictError(
            f"Run {busy[0].run_id[:8]} is training or promoting '{spec.model}' already (it is {busy[0].status.value}). "
            "Wait for its end, or end it in the Dagster UI. Nothing was started."
        )


def unfinished_retraining(instance: dg.DagsterInstance, spec: LoopSpec) -> Sequence[dg.DagsterRun]:
    """Runs to or of a promotion that are under way, or that died and Dagster is about to start again."""
    found: list[dg.DagsterRun] = []
    for job in (retrain_job_name(spec), judge_job_name(spec), promote_job_name(spec)):
        died = instance.get_runs(dg.RunsFilter(job_name=job, statuses=FAILED, tags={WILL_RETRY_TAG: "true"}), limit=3)
        found += instance.get_runs(dg.RunsFilter(job_name=job, statuses=_unfinished()), limit=1)
        found += [run for run in died if RETRIED_AS_TAG not in run.tags]
    return found


def _unfinished_loading(
    instance: dg.DagsterInstance, spec: LoopSpec, assets: Sequence[dg.AssetKey]
) -> dg.DagsterRun | None:
    """A run under way that loads a period: of the period job, or of these assets as a person selected them."""
    for run in instance.get_runs(dg.RunsFilter(statuses=_unfinished())):
        if run.job_name == period_job_name(spec) or not set(assets).isdisjoint(run.asset_selection or ()):
            return run
    return None


def _last_loading(instance: dg.DagsterInstance, spec: LoopSpec, batch: Sequence[Arrival]) -> dg.DagsterRun | None:
    """The newest run that was to load this content, or executes such a run again."""
    tags = {LANDING_TAG: batch[-1].stamp, **(_range_tags(batch) or {PARTITION_TAG: batch[0].period})}
    runs = instance.get_runs(dg.RunsFilter(job_name=period_job_name(spec), tags=tags), limit=1)
    return runs[0] if runs else None


def _what_to_do(arrived: Arrival, last: dg.DagsterRun) -> str:
    if last.is_complete_and_waiting_to_retry:
        return f"Run {last.run_id[:8]} of {arrived.period} died; Dagster is about to start it again."
    return (
        f"{arrived.period} is not loaded: run {last.run_id[:8]} ended as {last.status.value}. Execute it again from "
        "the Dagster UI, or land a corrected file. Later periods wait for it."
    )


def _unfinished() -> list[dg.DagsterRunStatus]:
    status = dg.DagsterRunStatus
    return [status.QUEUED, status.NOT_STARTED, status.STARTING, status.STARTED, status.CANCELING]
