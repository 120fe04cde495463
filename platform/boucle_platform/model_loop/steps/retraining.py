"""Facts for the retraining policy, its decision on record, and what became of what it asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import (
    AlertRequest,
    AnswerKind,
    Gain,
    Trigger,
    TriggerAnswer,
    TriggerCause,
    TriggerOutcome,
)
from boucle.contracts.verdict import Gate
from boucle.errors import NotEnoughDataError
from boucle.policy.retraining import TriggerFacts, budget_used, decide_trigger, recorded
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.gains import expected_gain
from boucle_platform.model_loop.steps.store import document_file, read_drift_report, trained_up_to

OPEN_ANSWERS = 5
"""So many of the newest triggers are looked after."""
DECIDED = frozenset({AnswerKind.PROMOTED, AnswerKind.REFUSED})
GAIN_GATE, COST_GATE = "no_regression", "within_compute_budget"
"""The gates whose measured values are the paired gain on the holdout (nats), and the CPU seconds of the fit."""


def report_periods(home: Home, spec: LoopSpec) -> list[str]:
    """Periods that have a drift report, oldest first."""
    folder = document_file(home, spec, "drift_report", "any").parent
    return sorted(file.stem for file in folder.glob("*.json") if spec.is_period(file.stem))


def report_or_why(home: Home, spec: LoopSpec, period: str) -> tuple[DriftReport | None, str]:
    """The drift report of a period; or why there is none, in a sentence that names its file."""
    try:
        return read_drift_report(home, spec, period), ""
    except NotEnoughDataError as error:
        return None, str(error)
    except ValueError as error:  # what is no document, and what is no text
        file, said = document_file(home, spec, "drift_report", period), str(error).partition("\n")[0]
        return None, f"The drift report {file} cannot be read ({said}): materialise drift_report of {period} again."


def newest_report(home: Home, spec: LoopSpec) -> tuple[DriftReport | None, str]:
    """The drift report of the newest period that has one; or why there is none. Both empty before the first one."""
    periods = report_periods(home, spec)
    return report_or_why(home, spec, periods[-1]) if periods else (None, "")


def facts_about(
    home: Home,
    spec: LoopSpec,
    report: DriftReport,
    *,
    cause: TriggerCause = TriggerCause.DRIFT,
    alert: AlertRequest | None = None,
    busy: str = "",
) -> TriggerFacts:
    """All that a decision about this report, or about what asks on top of it, rests on."""
    triggers, now = home.state.triggers(spec.name), home.clock(spec.name).now()
    before = [period for period in report_periods(home, spec) if period < report.period]
    trained = trained_up_to(home, spec)
    found = [report_or_why(home, spec, period) for period in before[-spec.retraining.of_windows :]]
    return TriggerFacts(
        report=report,
        production=home.state.production(spec.name),
        trained_up_to=trained,
        budget=budget_used(spec.retraining, triggers, home.state.answers(spec.name), at=now),
        cause=cause,
        recent=[one for one, _ in found if one is not None],
        unreadable=[why for _, why in found if why],
        earlier=[trigger for _, trigger in triggers],
        new_mature_periods=_new_mature(home, spec, report.window_end, trained),
        expected_gain=expected_gain(home, spec, report),
        alert=alert,
        busy=busy,
    )


def judge(home: Home, spec: LoopSpec, facts: TriggerFacts, *, run_key: str, actor: str) -> Trigger | None:
    """Decide, and put the trigger on record, with the decision to retrain when it fired.

    None when somebody else recorded the same trigger in between: the run is theirs to request.
    """
    trigger = recorded(facts, decide_trigger(spec.retraining, facts), run_key=run_key)
    who = home.actor(f"sensor:{actor}", spec.name)
    decision = NewDecision(
        kind=DecisionKind.RETRAIN,
        model=spec.name,
        at=who.at,
        actor=who.name,
        reason=trigger.reason,
        from_version=facts.production,
        to_version=facts.production,
        git_commit=who.git_commit,
    )
    fired = trigger.outcome is TriggerOutcome.FIRED
    return trigger if home.state.record_trigger(trigger, who.at, decision if fired else None) else None


@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A retrain run that is over: whether it was stopped for its time, its wall time, and the error it ended with.

    It is the newest of the runs `of_trigger`: one executed again from its failure measures nothing anew.
    """

    run_id: str
    of_trigger: frozenset[str]
    succeeded: bool
    stopped: bool
    wall_seconds: float
    error: str


def answer_of(
    home: Home, spec: LoopSpec, trigger: Trigger, run: EndedRun, known: TriggerAnswer | None
) -> TriggerAnswer:
    """What became of a trigger, by what its runs put in the ledger; without a decision, by how the newest run ended.

    A version that is `known` to have come out stays the answer's: the ledger says what becomes of it.
    """
    said = _said_since(home, spec, trigger)
    ours = [decision for decision in said if decision.dagster_run_id in run.of_trigger]
    evidence = _evidence(home, spec, ours, run, known)
    version = evidence.version if evidence else known.version if known else None
    about = [decision for decision in said if decision in ours or _is_end_of(decision, version)]
    kind, reason = _ended(about, evidence, run, known)
    gates = {gate.name: gate for gate in evidence.gates} if evidence else {}
    gain, cost = gates.get(GAIN_GATE), gates.get(COST_GATE)
    return TriggerAnswer(
        run_key=trigger.run_key,
        model=spec.name,
        kind=kind,
        reason=reason,
        dagster_run_id=run.run_id,
        compared_with=evidence.production_version if evidence else trigger.production_version,
        version=version,
        holdout_gain=_measured_gain(gain) or (known.holdout_gain if known else None),
        realised_gain=known.realised_gain if known and known.version == version else None,
        cpu_seconds=cost.measured if cost is not None and cost.measured is not None else run.wall_seconds,
        at=home.clock(spec.name).now(),
    )


def _said_since(home: Home, spec: LoopSpec, trigger: Trigger) -> list[NewDecision]:
    """The ledger's rows after the one that the trigger wrote: a version may have been decided about before."""
    asked_at = next((at for at, one in home.state.triggers(spec.name) if one.run_key == trigger.run_key), None)
    rows = [row.decision for row in home.state.decisions(spec.name)]
    wrote = (DecisionKind.RETRAIN, asked_at, trigger.reason)
    asked = [place for place, row in enumerate(rows) if (row.kind, row.at, row.reason) == wrote]
    return rows[asked[-1] + 1 :] if asked else rows


def _is_end_of(decision: NewDecision, version: ModelVersion | None) -> bool:
    if version is None:
        return False
    promoted = decision.kind is DecisionKind.PROMOTE and decision.to_version == version
    return promoted or (decision.kind is DecisionKind.REJECT and decision.subject_version == version)


def _measured_gain(gate: Gate | None) -> Gain | None:
    if gate is None or gate.measured is None:
        return None
    return Gain(nats=gate.measured, rows=gate.sample_size, low=gate.low, high=gate.high)


def _ended(
    about: list[NewDecision], evidence: Evidence | None, run: EndedRun, known: TriggerAnswer | None
) -> tuple[AnswerKind, str]:
    by_kind = {decision.kind: decision for decision in about}
    if promoted := by_kind.get(DecisionKind.PROMOTE):
        return AnswerKind.PROMOTED, promoted.reason
    if refused := by_kind.get(DecisionKind.REJECT):
        return AnswerKind.REFUSED, refused.reason
    if asked := by_kind.get(DecisionKind.REQUEST):
        return AnswerKind.WAITING, asked.reason
    if known is not None and known.kind is AnswerKind.WAITING:
        return known.kind, known.reason
    return _undecided(evidence, run)


def _undecided(evidence: Evidence | None, run: EndedRun) -> tuple[AnswerKind, str]:
    """How it ended where the ledger says nothing of it."""
    # Evaluated against itself, the version that came out is production.
    is_new = evidence is not None and evidence.version != evidence.production_version
    if is_new and run.succeeded:
        return AnswerKind.WAITING, "it passed its gates and waits for a person"
    if run.stopped:
        return AnswerKind.STOPPED, f"stopped after {run.wall_seconds:.0f} s: {run.error or 'its time was over'}"
    if run.succeeded:
        return AnswerKind.REFUSED, "the same version came out again: nothing new was learnt, nothing was decided"
    return AnswerKind.FAILED, run.error or "the run ended without a decision about a candidate"


def _evidence(
    home: Home, spec: LoopSpec, ours: list[NewDecision], run: EndedRun, known: TriggerAnswer | None
) -> Evidence | None:
    """What the trigger's runs measured: of the version known, of what they decided about, or last.

    Other runs may have measured since, this version or later ones.
    """
    measured = home.evidence.of_runs(spec.name, run.of_trigger)
    wanted = [known.version if known else None, *(row.subject_version or row.to_version for row in ours)]
    about = [one for version in wanted for one in measured if one.version == version]
    return next(iter([*about, *measured]), None)


def _new_mature(home: Home, spec: LoopSpec, known_at: datetime, trained: datetime | None) -> int:
    """How many periods became mature by then that the last training did not look at."""
    horizon = timedelta(days=spec.horizon_days)
    ends = [spec.period(key).end for key in SnapshotStore(home.settings.home_dir).periods(spec.name)]
    return sum(end + horizon <= known_at and (trained is None or end > trained) for end in ends)


def open_answers(home: Home, spec: LoopSpec) -> list[tuple[Trigger, TriggerAnswer | None]]:
    """The newest triggers that fired and about whose candidate nothing is decided yet, oldest first.

    A run that failed or was stopped may be executed again, a person may still agree.
    """
    answers: Mapping[str, TriggerAnswer] = home.state.answers(spec.name)
    fired = [trigger for _, trigger in home.state.triggers(spec.name) if trigger.outcome is TriggerOutcome.FIRED]
    known = [(trigger, answers.get(trigger.run_key)) for trigger in fired[-OPEN_ANSWERS:]]
    return [(trigger, one) for trigger, one in known if one is None or one.kind not in DECIDED]
