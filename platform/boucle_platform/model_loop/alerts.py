"""Tells people, by a sensor: what happened is on record, so what could not be told is told later, and nothing waits."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import NamedTuple

import dagster as dg

from boucle.contracts.decision import Decision, DecisionKind
from boucle.policy.notices import Notice, Urgency, notice_of, notice_of_trigger
from boucle_adapters.home import Home
from boucle_platform.model_loop.automation import (
    FAILED,
    WILL_RETRY_TAG,
    checks_job_name,
    period_job_name,
    promote_job_name,
    retrain_job_name,
)
from boucle_platform.model_loop.in_environment import sensor_status
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.home import HomeResource

# The daemon's loop takes five seconds: asking for ten makes it every fifteen.
EVERY_SECONDS = 9
# A destination that was away for long is told the rest by the next ticks: one tick must not take minutes.
MOST_AT_ONCE = 20
RUNS_LOOKED_AT = 50


@dataclass(frozen=True, kw_only=True)
class Told:
    """How far a destination was told: the last decision, how many triggers, and when the last failed run ended."""

    decision: int
    triggers: int
    failed_at: float


class _News(NamedTuple):
    """A notice, if anybody need be told, and how far one who was told is then."""

    told: Told
    notice: Notice | None


def alerts_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Tells each destination of BOUCLE_ALERT_URLS what happened since it was last told, at least once.

    A destination that is away holds up no other, and is told once it is back. A new one is told from now on.
    """

    @dg.sensor(
        name=f"{spec.model}_alerts",
        job_name=checks_job_name(spec),
        minimum_interval_seconds=EVERY_SECONDS,
        default_status=sensor_status(),
        description="Rollbacks, refusals, requests, retrainings, drift, failed runs: told to BOUCLE_ALERT_URLS.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        ports = home.connect()
        urls = ports.settings.alert_urls.split()
        if not urls:
            return dg.SkipReason("Nobody is to be told: BOUCLE_ALERT_URLS is empty.")
        cursor, said = told_all(ports, spec, context.instance, urls, _read(context.cursor))
        return dg.SensorResult(skip_reason=" ".join(said), cursor=_written(cursor))

    return evaluate


def told_all(
    home: Home, spec: LoopSpec, instance: dg.DagsterInstance, urls: Sequence[str], cursor: Mapping[str, Told]
) -> tuple[dict[str, Told], list[str]]:
    """Tell every destination; how far each is then, and a sentence each.

    Raises:
        ConfigurationError: One of the URLs is none; nobody was told anything.
    """
    from boucle_adapters.notifier import Notifier

    notifiers = {_key(url): Notifier(url) for url in urls}
    now = _now(home, spec, instance)
    after, said = {}, []
    for key, notifier in notifiers.items():
        begun = cursor.get(key, now)
        after[key], sent, failed = _told(notifier.send, begun, news(home, spec, instance, since=begun))
        said.append(f"{notifier.name} was told {sent} news{', then was away' if failed else ''}.")
    return after, said


def news(home: Home, spec: LoopSpec, instance: dg.DagsterInstance, *, since: Told) -> Iterator[_News]:
    """What happened since, decisions first, each with the position after it."""
    told = since
    decisions = home.state.decisions(spec.name)
    for row in decisions:
        if row.decision_id > since.decision:
            told = replace(told, decision=row.decision_id)
            yield _News(told, notice_of(row))
    for number, (_, trigger) in enumerate(home.state.triggers(spec.name), start=1):
        if number > since.triggers:
            told = replace(told, triggers=number)
            yield _News(told, notice_of_trigger(trigger))
    for ended, run in _failed_runs(instance, spec, since.failed_at):
        told = replace(told, failed_at=ended)
        yield _News(told, None if _is_told_by(decisions, run) else _failure(spec, run))


def _told(send: Callable[[Notice], bool], begun: Told, found: Iterator[_News]) -> tuple[Told, int, bool]:
    """Tell one destination; how far it is then, how much it was told, and whether it was away."""
    told, sent = begun, 0
    for one in found:
        if one.notice is not None:
            if sent == MOST_AT_ONCE:
                break
            if not send(one.notice):
                return told, sent, True
            sent += 1
        told = one.told
    return told, sent, False


def _now(home: Home, spec: LoopSpec, instance: dg.DagsterInstance) -> Told:
    decisions = home.state.decisions(spec.name)
    failed = [ended for ended, _ in _failed_runs(instance, spec, 0.0)]
    return Told(
        decision=decisions[-1].decision_id if decisions else 0,
        triggers=len(home.state.triggers(spec.name)),
        failed_at=max(failed, default=0.0),
    )


def _failed_runs(instance: dg.DagsterInstance, spec: LoopSpec, since: float) -> list[tuple[float, dg.DagsterRun]]:
    """Runs of the model's jobs that failed after this moment, oldest first, and when each ended.

    A run that a person cancelled did not fail: Dagster never asked itself whether to start it again.
    """
    found = []
    for job in (period_job_name(spec), retrain_job_name(spec), promote_job_name(spec)):
        wanted = dg.RunsFilter(
            job_name=job,
            statuses=FAILED,
            updated_after=datetime.fromtimestamp(since, UTC) if since else None,
        )
        for record in instance.get_run_records(wanted, limit=RUNS_LOOKED_AT):
            ended, run = record.update_timestamp.timestamp(), record.dagster_run
            if ended > since and (run.is_failure or WILL_RETRY_TAG in run.tags):
                found.append((ended, run))
    return sorted(found, key=lambda one: one[0])


def _is_told_by(decisions: Sequence[Decision], run: dg.DagsterRun) -> bool:
    """Whether the ledger says why the run ended red: it refused a candidate, which is an answer."""
    refusals = (row.decision for row in decisions if row.decision.kind is DecisionKind.REJECT)
    return any(refusal.dagster_run_id == run.run_id for refusal in refusals)


def _failure(spec: LoopSpec, run: dg.DagsterRun) -> Notice:
    again = " Dagster starts it again." if run.is_complete_and_waiting_to_retry else ""
    return Notice(
        title=f"{spec.model}: a run of {run.job_name} failed",
        text=f"Run {run.run_id}, see Dagster's page of it.{again}",
        urgency=Urgency.FAILURE,
    )


def _key(url: str) -> str:
    """Names a destination in the cursor, which people see: URLs hold secrets."""
    return hashlib.sha256(url.encode()).hexdigest()[:12]


def _read(cursor: str | None) -> dict[str, Told]:
    """How far each destination is; nothing is known of a cursor that cannot be read."""
    try:
        return {key: Told(**values) for key, values in json.loads(cursor or "{}").items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _written(cursor: Mapping[str, Told]) -> str:
    return json.dumps({key: asdict(told) for key, told in cursor.items()})
