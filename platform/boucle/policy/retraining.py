"""Should the model be trained again now? One pure function; every answer has a rule, a reason and numbers on record."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.ids import ModelVersion, version_text
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import (
    AlertRequest,
    BudgetUse,
    Gain,
    Trigger,
    TriggerAnswer,
    TriggerCause,
    TriggerOutcome,
    TriggerRule,
    WindowCount,
)
from boucle.contracts.verdict import Gate, GateMode, Verdict


class RetrainingPolicy(BaseModel):
    """When a model is trained again without a person."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_mature_periods: int = Field(
        default=3,
        ge=2,
        description="as_of with mature labels; the split needs a holdout and, purged, something before it",
    )
    failed_windows: int = Field(
        default=2, ge=1, description="windows in which a drift gate failed, the newest one among them"
    )
    of_windows: int = Field(default=3, ge=1, description="windows looked at, all of the same production version")
    new_mature_periods: int | None = Field(
        default=None, ge=1, description="as_of that became mature since the last training and ask by themselves; off"
    )
    cool_down_periods: int = Field(
        default=0,
        ge=0,
        description="windows without retraining after one that fired, except the one of the first model",
    )
    max_runs_per_month: int = Field(default=8, ge=0, description="automatic retrainings in a calendar month (UTC)")
    max_cpu_minutes_per_month: float = Field(
        default=60.0, ge=0, description="CPU minutes that their fits may take in a calendar month"
    )
    broken_input_gates: frozenset[str] = Field(
        default=frozenset({"input_frozen", "input_missing"}),
        description="drift gates whose failure says that the source is broken: what it delivers is not to be learnt",
    )

    @model_validator(mode="after")
    def _counts(self) -> Self:
        if self.failed_windows > self.of_windows:
            raise ValueError(
                f"failed_windows is {self.failed_windows}, of_windows {self.of_windows}: so many cannot fail. Lower "
                "the first or raise the second."
            )
        return self


@dataclass(frozen=True, kw_only=True)
class TriggerFacts:
    """What a decision about retraining rests on.

    `report` is the newest drift report, of the version that was production when it was written; `recent` are those of
    windows before it, in any order, of any version; `unreadable` says of others of these windows why their reports
    cannot be read: they count as not looked at. `earlier` are all triggers on record. `trained_up_to` is the newest
    as_of that the last training looked at, promoted or not (reports of days that were loaded together were all written
    before the training that the first of them asked for), `new_mature_periods` how many as_of became mature since,
    where that is known. `alert` is what asks, where an alert does, `busy` the
    run that is at it already, in words.
    """

    report: DriftReport
    production: ModelVersion | None
    trained_up_to: datetime | None
    budget: BudgetUse
    cause: TriggerCause = TriggerCause.DRIFT
    recent: Sequence[DriftReport] = ()
    unreadable: Sequence[str] = ()
    earlier: Sequence[Trigger] = ()
    new_mature_periods: int | None = None
    expected_gain: Gain | None = None
    alert: AlertRequest | None = None
    busy: str = ""


@dataclass(frozen=True, kw_only=True)
class TriggerDecision:
    """Fired or suppressed, by which rule, and why; `cause` is `arrival` where new labels asked and not drift."""

    outcome: TriggerOutcome
    rule: TriggerRule
    reason: str
    cause: TriggerCause
    failed_gates: tuple[str, ...] = ()
    windows: WindowCount | None = None


_Said = tuple[TriggerRule, str]
_FIRING = frozenset(
    {TriggerRule.NO_PRODUCTION, TriggerRule.DRIFT, TriggerRule.ARRIVAL, TriggerRule.SCHEDULE, TriggerRule.ALERT}
)

_COUNTS_WINDOWS = frozenset({TriggerRule.DRIFT, TriggerRule.NOT_PERSISTENT})


def decide_trigger(policy: RetrainingPolicy, facts: TriggerFacts) -> TriggerDecision:
    """Fired or suppressed, and why; the first rule that applies decides, and the budget has the last word.

    0. A retraining is under way: suppressed (only a schedule asks then; drift and alerts wait for its end).
    1. The report judged a version that is no longer production: suppressed (only where drift asks).
    2. This window, or this incident, fired already: suppressed.
    3. Too few as_of with mature labels: suppressed.
    4. No label is mature that the last training did not look at: suppressed.
    5. Nothing is in production: fired.
    6. The newest window says that an input is broken: suppressed; a model that learns from it is no cure.
    7. A window fired a short while ago: suppressed (the cron of a schedule is its own cool-down).
    8. A schedule or an alert asks: fired.
    9. A drift gate failed in enough of the last windows, the newest one among them: fired.
    10. So many as_of became mature that the policy asks for a training: fired.
    11. Anything else, inconclusive gates among them: suppressed.
    """
    windows = _count_windows(policy, facts)
    rule, reason = _decided(policy, facts, windows)
    if facts.unreadable and rule in _COUNTS_WINDOWS:
        reason = f"{reason}; not looked at: {' '.join(facts.unreadable)}"
    if rule in _FIRING and facts.budget.is_spent:
        rule, reason = TriggerRule.BUDGET, f"{budget_sentence(facts.budget)}; it would have fired: {reason}"
    return TriggerDecision(
        outcome=TriggerOutcome.FIRED if rule in _FIRING else TriggerOutcome.SUPPRESSED,
        rule=rule,
        reason=reason,
        cause=TriggerCause.ARRIVAL if rule is TriggerRule.ARRIVAL else facts.cause,
        failed_gates=tuple(gate.name for gate in _failed(facts.report)),
        windows=windows if facts.cause is TriggerCause.DRIFT else None,
    )


def recorded(facts: TriggerFacts, decision: TriggerDecision, *, run_key: str) -> Trigger:
    """The decision as it goes on record, with the numbers that it rests on."""
    return Trigger(
        model=facts.report.model,
        period=facts.report.period,
        production_version=facts.production if facts.cause is not TriggerCause.DRIFT else _judged(facts.report),
        report_digest=facts.report.digest(),
        outcome=decision.outcome,
        reason=decision.reason,
        run_key=run_key,
        cause=decision.cause,
        rule=decision.rule,
        failed_gates=decision.failed_gates,
        windows=decision.windows,
        new_mature_periods=facts.new_mature_periods,
        budget=facts.budget,
        expected_gain=facts.expected_gain,
        alert=facts.alert.incident if facts.alert else None,
    )


def report_run_key(report: DriftReport) -> str:
    """What names the trigger of a report: model, window, production version, digest. One report is judged once."""
    return f"{report.model}/{report.period}/{report.production_version or 'first'}/{report.digest()}"


def budget_used(
    policy: RetrainingPolicy,
    triggers: Sequence[tuple[datetime, Trigger]],
    answers: Mapping[str, TriggerAnswer],
    *,
    at: datetime,
) -> BudgetUse:
    """What the triggers that fired in the calendar month of `at` have used; those of people are not limited.

    A retraining that has not ended yet counts as a run, and as no CPU time.
    """
    month = _month(at)
    fired = [t for when, t in triggers if t.outcome is TriggerOutcome.FIRED and _month(when) == month]
    seconds = sum(answers[trigger.run_key].cpu_seconds for trigger in fired if trigger.run_key in answers)
    return BudgetUse(
        month=month,
        runs=len(fired),
        max_runs=policy.max_runs_per_month,
        cpu_minutes=seconds / 60,
        max_cpu_minutes=policy.max_cpu_minutes_per_month,
    )


def _month(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m}"


def budget_sentence(budget: BudgetUse) -> str:
    """`budget of 1997-08: 8 of 8 runs, 0.4 of 60 CPU minutes`."""
    return (
        f"budget of {budget.month}: {budget.runs} of {budget.max_runs} runs, {budget.cpu_minutes:.3g} of "
        f"{budget.max_cpu_minutes:g} CPU minutes"
    )


def _decided(policy: RetrainingPolicy, facts: TriggerFacts, windows: WindowCount) -> _Said:
    """The first rule that applies."""
    said = (
        _busy(facts)
        or _outdated(facts)
        or _fired_already(facts)
        or _too_few_labels(policy, facts.report)
        or _nothing_to_learn(facts)
        or _first_model(facts)
        or _broken_input(policy, facts.report)
        or _cooling_down(policy, facts)
        or _asked_for(facts)
        or _drifted(policy, facts.report, windows)
        or _arrived(policy, facts)
    )
    return said or _nothing_asked(policy, facts.report, windows)


def _busy(facts: TriggerFacts) -> _Said | None:
    return (TriggerRule.BUSY, facts.busy) if facts.busy else None


def _outdated(facts: TriggerFacts) -> _Said | None:
    judged = _judged(facts.report)
    if judged == facts.production or facts.cause is not TriggerCause.DRIFT:
        return None
    reason = f"the report judged {version_text(judged)}, production is {version_text(facts.production)} now"
    return TriggerRule.OUTDATED, reason


def _fired_already(facts: TriggerFacts) -> _Said | None:
    """A window asks once for each production version, an incident once: what it asked for was promoted or refused."""
    fired = [trigger for trigger in facts.earlier if trigger.outcome is TriggerOutcome.FIRED]
    if facts.alert is not None:
        if any(trigger.alert == facts.alert.incident for trigger in fired):
            return (
                TriggerRule.FIRED_ALREADY,
                f"alert {facts.alert.name} of {facts.alert.starts_at:%Y-%m-%d %H:%M} fired already",
            )
        return None
    if facts.cause is TriggerCause.SCHEDULE:
        return None
    report = facts.report
    asked = (report.model, report.period, report.production_version)
    if not any((trigger.model, trigger.period, trigger.production_version) == asked for trigger in fired):
        return None
    reason = f"window {report.period} fired already with {version_text(report.production_version)} in production"
    return TriggerRule.FIRED_ALREADY, reason


def _too_few_labels(policy: RetrainingPolicy, report: DriftReport) -> _Said | None:
    if report.mature_periods >= policy.min_mature_periods:
        return None
    return TriggerRule.TOO_FEW_LABELS, (
        f"not enough labels: {report.mature_periods} as_of with mature labels, the policy asks for "
        f"{policy.min_mature_periods}"
    )


def _nothing_to_learn(facts: TriggerFacts) -> _Said | None:
    newest = facts.report.newest_mature_as_of
    trained = max(filter(None, (facts.report.trained_up_to, facts.trained_up_to)), default=None)
    if newest is None:
        return TriggerRule.NO_NEW_LABELS, "no label is mature"
    if trained is None or newest > trained:
        return None
    return TriggerRule.NO_NEW_LABELS, (
        f"no new labels: the newest mature as_of is {newest:%Y-%m-%d}, the last training used it already"
    )


def _first_model(facts: TriggerFacts) -> _Said | None:
    if facts.production is not None:
        return None
    return TriggerRule.NO_PRODUCTION, (
        f"no production model yet, and the labels of {facts.report.mature_periods} as_of are mature"
    )


def _broken_input(policy: RetrainingPolicy, report: DriftReport) -> _Said | None:
    broken = [gate for gate in _failed(report) if gate.name in policy.broken_input_gates]
    if not broken:
        return None
    figures = "; ".join(gate.sentence() for gate in broken)
    return TriggerRule.BROKEN_INPUT, f"the input is broken, mend its source, then land the period again: {figures}"


def _cooling_down(policy: RetrainingPolicy, facts: TriggerFacts) -> _Said | None:
    """Windows are counted by the triggers on record: each window is judged once. Period keys sort by time.

    The training of a first model starts no cool-down: it learnt from as few labels as the policy allows.
    """
    if facts.cause is TriggerCause.SCHEDULE:
        return None
    model, period = facts.report.model, facts.report.period
    before = [trigger for trigger in facts.earlier if trigger.model == model and trigger.period < period]
    again = (t for t in before if t.outcome is TriggerOutcome.FIRED and t.production_version is not None)
    fired = max((trigger.period for trigger in again), default=None)
    if fired is None:
        return None
    since = len({trigger.period for trigger in before if trigger.period > fired})
    if since >= policy.cool_down_periods:
        return None
    return TriggerRule.COOL_DOWN, (
        f"cooling down: window {fired} fired, {since} of {policy.cool_down_periods} windows have passed since"
    )


def _asked_for(facts: TriggerFacts) -> _Said | None:
    """What a schedule or an alert asks for, there being something new to learn."""
    news = "new labels are mature"
    if facts.new_mature_periods is not None:
        news = f"{facts.new_mature_periods} as_of became mature since the last training"
    if facts.alert is not None:
        return TriggerRule.ALERT, f"alert {facts.alert.name}: {facts.alert.summary or 'no summary'}; {news}"
    if facts.cause is TriggerCause.SCHEDULE:
        return TriggerRule.SCHEDULE, f"scheduled: {news}"
    return None


def _drifted(policy: RetrainingPolicy, report: DriftReport, windows: WindowCount) -> _Said | None:
    drifted = _drift(policy, report)
    if not drifted or windows.failed < windows.asked_failed:
        return None
    return TriggerRule.DRIFT, f"{_in_windows(windows)}: {_figures(drifted)}"


def _arrived(policy: RetrainingPolicy, facts: TriggerFacts) -> _Said | None:
    asked, found = policy.new_mature_periods, facts.new_mature_periods
    if asked is None or found is None or found < asked:
        return None
    return TriggerRule.ARRIVAL, f"{found} as_of became mature since the last training, {asked} ask for one"


def _nothing_asked(policy: RetrainingPolicy, report: DriftReport, windows: WindowCount) -> _Said:
    if drifted := _drift(policy, report):
        return TriggerRule.NOT_PERSISTENT, (
            f"{_in_windows(windows)}, {windows.asked_failed} of {windows.asked_of} are asked for: {_figures(drifted)}"
        )
    unclear = [gate.name for gate in report.gates if gate.verdict is Verdict.INCONCLUSIVE]
    if unclear or not report.gates:
        return TriggerRule.INCONCLUSIVE, f"inconclusive: {', '.join(unclear) or 'no drift gate was measured'}"
    return TriggerRule.WITHIN_LIMITS, f"within limits: {', '.join(gate.name for gate in report.gates)}"


def _count_windows(policy: RetrainingPolicy, facts: TriggerFacts) -> WindowCount:
    """Over the newest window and those right before it that judged the same version; of a window its newest report."""
    report = facts.report
    same = (r for r in facts.recent if r.production_version == report.production_version and r.period < report.period)
    before: dict[str, DriftReport] = {}
    for one in sorted(same, key=lambda r: (r.period, r.created_at)):
        before[one.period] = one
    newest_first = [report, *(before[period] for period in sorted(before, reverse=True))]
    looked_at = newest_first[: policy.of_windows]
    return WindowCount(
        failed=sum(bool(_drift(policy, one)) for one in looked_at),
        looked_at=len(looked_at),
        asked_failed=policy.failed_windows,
        asked_of=policy.of_windows,
    )


def _in_windows(windows: WindowCount) -> str:
    what = "the newest window" if windows.looked_at == 1 else f"the last {windows.looked_at} windows"
    return f"drift in {windows.failed} of {what}" if windows.looked_at > 1 else f"drift in {what}"


def _figures(gates: Sequence[Gate]) -> str:
    return "; ".join(gate.figures() for gate in gates)


def _failed(report: DriftReport) -> list[Gate]:
    return [gate for gate in report.gates if gate.verdict is Verdict.FAILED and gate.mode is GateMode.BLOCK]


def _drift(policy: RetrainingPolicy, report: DriftReport) -> list[Gate]:
    """Failed gates that say that the world changed; those of a broken source say nothing about it."""
    return [gate for gate in _failed(report) if gate.name not in policy.broken_input_gates]


def _judged(report: DriftReport) -> ModelVersion | None:
    return report.production_version
