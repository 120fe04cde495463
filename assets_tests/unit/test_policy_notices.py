"""What people are told of the ledger and of triggers, and what they are not."""

import pytest

from assets_tests.judging import trigger
from assets_tests.scenarios import version
from assets_tests.watched_home import decided
from boucle.contracts.decision import Decision, DecisionKind
from boucle.contracts.ids import Digest
from boucle.contracts.trigger import TriggerCause, TriggerOutcome, TriggerRule
from boucle.policy.notices import Urgency, notice_of, notice_of_trigger


def row(kind: DecisionKind, **changes: object) -> Decision:
    new = decided(kind, about=3).model_copy(update={"reason": "because of it", **changes})
    return Decision(decision_id=7, previous_hash=Digest("0" * 64), row_hash=Digest("1" * 64), decision=new)


@pytest.mark.parametrize(
    ("kind", "title", "urgency"),
    [
        (DecisionKind.REQUEST, "repurchase: approval is asked for version 3", Urgency.WARNING),
        (DecisionKind.PROMOTE, "repurchase: version 1 is in production", Urgency.INFO),
        (DecisionKind.REJECT, "repurchase: version 3 was refused", Urgency.WARNING),
        (DecisionKind.ABORT, "repurchase: the rollout of version 3 was aborted", Urgency.WARNING),
        (DecisionKind.RETRAIN, "repurchase: retraining begins", Urgency.INFO),
    ],
)
def test_a_decision_is_told_in_a_line(kind: DecisionKind, title: str, urgency: Urgency):
    notice = notice_of(row(kind))
    assert notice is not None
    assert (notice.title, notice.urgency) == (title, urgency)
    assert notice.text == "because of it\nuser:ada, 1997-11-01 12:00 UTC, decision 7."


def test_a_rollback_says_from_where_to_where_and_who_did_it():
    notice = notice_of(row(DecisionKind.ROLLBACK, from_version=version(2), actor="sensor:repurchase_guard"))
    assert notice is not None
    assert notice.title == "repurchase: rolled back from version 2 to version 1"
    assert "sensor:repurchase_guard" in notice.text
    assert notice.urgency is Urgency.FAILURE


@pytest.mark.parametrize("kind", [DecisionKind.SERVED, DecisionKind.APPROVE, DecisionKind.ROLLOUT, DecisionKind.PIN])
def test_steps_on_the_way_are_not_told(kind: DecisionKind):
    assert notice_of(row(kind)) is None


def test_drift_that_leads_to_no_retraining_is_told_with_the_reason_why_not():
    held = trigger("1997-08", TriggerOutcome.SUPPRESSED).model_copy(
        update={"failed_gates": ("score_drift",), "reason": "The month's budget is spent."}
    )
    notice = notice_of_trigger(held)
    assert notice is not None
    assert notice.title == "repurchase: drift in 1997-08, and no retraining"
    assert notice.text == "Beyond the limit: score_drift.\nThe month's budget is spent."


@pytest.mark.parametrize(
    "looked_again",
    [
        {"cause": TriggerCause.SCHEDULE, "rule": TriggerRule.NO_NEW_LABELS},
        {"cause": TriggerCause.ALERT, "rule": TriggerRule.COOL_DOWN},
        {"cause": TriggerCause.DRIFT, "rule": TriggerRule.FIRED_ALREADY},
    ],
)
def test_a_second_look_at_a_drifted_window_does_not_say_that_nothing_was_retrained(looked_again: dict[str, object]):
    held = trigger("1997-08", TriggerOutcome.SUPPRESSED).model_copy(update={"failed_gates": ("score_drift",)})
    assert notice_of_trigger(held) is not None
    assert notice_of_trigger(held.model_copy(update=looked_again)) is None


def test_a_quiet_window_and_one_that_fired_are_not_told_again():
    quiet, fired = trigger("1997-08", TriggerOutcome.SUPPRESSED), trigger("1997-08", TriggerOutcome.FIRED)
    assert notice_of_trigger(quiet) is None
    assert notice_of_trigger(fired.model_copy(update={"failed_gates": ("score_drift",)})) is None
