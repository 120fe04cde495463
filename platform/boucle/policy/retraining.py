"""Should the model be trained again now? Every answer has a reason that can be put on record."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.ids import ModelVersion, version_text
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import Trigger, TriggerOutcome
from boucle.contracts.verdict import Verdict


class RetrainingPolicy(BaseModel):
    """When drift leads to retraining."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_mature_periods: int = Field(
        default=3,
        ge=2,
        description="as_of with mature labels; the split needs a holdout and, purged, something before it",
    )
    cool_down_periods: int = Field(
        default=0,
        ge=0,
        description="windows without retraining after one that fired; new labels are awaited in any case",
    )


def decide_trigger(
    policy: RetrainingPolicy,
    report: DriftReport,
    earlier: Sequence[Trigger] = (),
    *,
    production: ModelVersion | None,
    trained_up_to: datetime | None,
) -> tuple[TriggerOutcome, str]:
    """Fired or suppressed, and why; the first rule that applies decides.

    Args:
        policy: When drift leads to retraining.
        report: One window against the reference of the version that was production when it was written.
        earlier: Triggers on record, in any order.
        production: The version that is production now.
        trained_up_to: The newest as_of that the last training looked at until now, promoted or not. Reports of days
            that were loaded together were all written before the training that the first of them asked for.
    """
    reason = _outdated(report, production) or _fired_already(report, earlier)
    if reason:
        return TriggerOutcome.SUPPRESSED, reason
    if report.mature_periods < policy.min_mature_periods:
        return TriggerOutcome.SUPPRESSED, (
            f"not enough labels: {report.mature_periods} as_of with mature labels, the policy asks for "
            f"{policy.min_mature_periods}"
        )
    if report.production_version is None and not _nothing_to_learn(report, trained_up_to):
        return TriggerOutcome.FIRED, (
            f"no production model yet, and the labels of {report.mature_periods} as_of are mature"
        )
    reason = _nothing_to_learn(report, trained_up_to) or _cooling_down(policy, report, earlier)
    if reason:
        return TriggerOutcome.SUPPRESSED, reason
    return _by_gates(report)


def _outdated(report: DriftReport, production: ModelVersion | None) -> str:
    if report.production_version == production:
        return ""
    return f"the report judged {version_text(report.production_version)}, production is {version_text(production)} now"


def _fired_already(report: DriftReport, earlier: Sequence[Trigger]) -> str:
    """A window asks once for each production version: what it asked for was promoted or refused since."""
    asked = (report.model, report.period, report.production_version)
    fired = [trigger for trigger in earlier if trigger.outcome is TriggerOutcome.FIRED]
    if not any((trigger.model, trigger.period, trigger.production_version) == asked for trigger in fired):
        return ""
    return f"window {report.period} fired already with {version_text(report.production_version)} in production"


def _nothing_to_learn(report: DriftReport, trained_up_to: datetime | None) -> str:
    newest = report.newest_mature_as_of
    trained = max(filter(None, (report.trained_up_to, trained_up_to)), default=None)
    if newest is None:
        return "no label is mature"
    if trained is not None and newest <= trained:
        return f"no new labels: the newest mature as_of is {newest:%Y-%m-%d}, the last training used it already"
    return ""


def _cooling_down(policy: RetrainingPolicy, report: DriftReport, earlier: Sequence[Trigger]) -> str:
    """Windows are counted by the triggers on record: each window is judged once. Period keys sort by time."""
    before = [trigger for trigger in earlier if trigger.model == report.model and trigger.period < report.period]
    fired = max((trigger.period for trigger in before if trigger.outcome is TriggerOutcome.FIRED), default=None)
    if fired is None:
        return ""
    since = len({trigger.period for trigger in before if trigger.period > fired})
    if since >= policy.cool_down_periods:
        return ""
    return f"cooling down: window {fired} fired, {since} of {policy.cool_down_periods} windows have passed since"


def _by_gates(report: DriftReport) -> tuple[TriggerOutcome, str]:
    failed = [gate.figures() for gate in report.gates if gate.verdict is Verdict.FAILED]
    if failed:
        return TriggerOutcome.FIRED, "; ".join(failed)
    unclear = [gate.name for gate in report.gates if gate.verdict is Verdict.INCONCLUSIVE]
    if unclear or not report.gates:
        return TriggerOutcome.SUPPRESSED, f"inconclusive: {', '.join(unclear) or 'no drift gate was measured'}"
    return TriggerOutcome.SUPPRESSED, f"within limits: {', '.join(gate.name for gate in report.gates)}"
