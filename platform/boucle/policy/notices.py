"""What people are told of, outside the places where they look: decisions, drift that was not answered, failed runs."""

from dataclasses import dataclass
from enum import StrEnum

from boucle.contracts.decision import Decision, DecisionKind
from boucle.contracts.ids import version_text
from boucle.contracts.trigger import Trigger, TriggerCause, TriggerOutcome, TriggerRule


class Urgency(StrEnum):
    """How a notice is shown, where it is shown in colours."""

    INFO = "info"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, kw_only=True)
class Notice:
    """One message: a line that says what happened to which model, and why, as it is on record."""

    title: str
    text: str
    urgency: Urgency


_TOLD = {
    DecisionKind.REQUEST: ("approval is asked for {subject}", Urgency.WARNING),
    DecisionKind.PROMOTE: ("{to} is in production", Urgency.INFO),
    DecisionKind.REJECT: ("{subject} was refused", Urgency.WARNING),
    DecisionKind.ROLLBACK: ("rolled back from {origin} to {to}", Urgency.FAILURE),
    DecisionKind.ABORT: ("the rollout of {subject} was aborted", Urgency.WARNING),
    DecisionKind.RETRAIN: ("retraining begins", Urgency.INFO),
}


def notice_of(row: Decision) -> Notice | None:
    """What is told of a row of the ledger; None where nobody need be told.

    A rollback is told whoever made it: a person, or a guard after a breach; the text says which.
    """
    new = row.decision
    if new.kind not in _TOLD:
        return None
    said, urgency = _TOLD[new.kind]
    names = {"subject": new.subject_version, "to": new.to_version, "origin": new.from_version}
    words = {name: version_text(version) for name, version in names.items()}
    text = f"{new.reason}\n{new.actor}, {new.at:%Y-%m-%d %H:%M} UTC, decision {row.decision_id}."
    return Notice(title=f"{new.model}: {said.format(**words)}", text=text, urgency=urgency)


def notice_of_trigger(trigger: Trigger) -> Notice | None:
    """That a window drifted and no retraining follows from it; None of any other trigger.

    One that fired is told by the decision that it wrote.
    """
    if trigger.outcome is TriggerOutcome.FIRED or not trigger.failed_gates:
        return None
    # A schedule or an alert looks at a window that drift was judged on before, and which may have fired.
    if trigger.cause not in {TriggerCause.DRIFT, TriggerCause.ARRIVAL} or trigger.rule is TriggerRule.FIRED_ALREADY:
        return None
    beyond = ", ".join(trigger.failed_gates)
    return Notice(
        title=f"{trigger.model}: drift in {trigger.period}, and no retraining",
        text=f"Beyond the limit: {beyond}.\n{trigger.reason}",
        urgency=Urgency.WARNING,
    )
