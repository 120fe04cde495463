"""When a model is trained again; every suppressed trigger has its rule and its reason."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from assets_tests.judging import MODEL, day, drift_report, gate, trigger
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import (
    AlertRequest,
    AlertState,
    AnswerKind,
    BudgetUse,
    Gain,
    Trigger,
    TriggerAnswer,
    TriggerCause,
    TriggerOutcome,
    TriggerRule,
    WindowCount,
)
from boucle.contracts.verdict import GateMode, Verdict
from boucle.policy.retraining import (
    RetrainingPolicy,
    TriggerDecision,
    TriggerFacts,
    budget_used,
    decide_trigger,
    recorded,
    report_run_key,
)

FIRED, SUPPRESSED = TriggerOutcome.FIRED, TriggerOutcome.SUPPRESSED
ONE_WINDOW = RetrainingPolicy(failed_windows=1, of_windows=1)
TWO_OF_THREE = RetrainingPolicy()
PASSED = (gate("calibration_drift", Verdict.PASSED),)
DRIFTED = (gate("score_drift", Verdict.PASSED), gate("calibration_drift", Verdict.FAILED))
UNCLEAR = (gate("calibration_drift", Verdict.INCONCLUSIVE),)
FROZEN = (gate("input_frozen", Verdict.FAILED), *DRIFTED)
UNUSED = BudgetUse(month="1997-09", runs=0, max_runs=8, cpu_minutes=0, max_cpu_minutes=60)
CALIBRATION = "calibration_drift: failed (measured 0.03 probability, at most 0.005 probability, n=2000)"


def facts(report: DriftReport, **changes: Any) -> TriggerFacts:
    """What is known while the version that the report judged is production, and nothing was used of the budget."""
    known: dict[str, Any] = {"production": report.production_version, "trained_up_to": None, "budget": UNUSED}
    return TriggerFacts(report=report, **known | changes)


def decide(report: DriftReport, policy: RetrainingPolicy = ONE_WINDOW, **changes: Any) -> TriggerDecision:
    return decide_trigger(policy, facts(report, **changes))


def said(decision: TriggerDecision) -> tuple[TriggerOutcome, TriggerRule]:
    return decision.outcome, decision.rule


def alert(**changes: Any) -> AlertRequest:
    known: dict[str, Any] = {
        "model": MODEL,
        "fingerprint": "a1b2",
        "starts_at": day("1997-08-20"),
        "state": AlertState.FIRING,
        "name": "RefundsUp",
        "summary": "refunds doubled",
        "actor": "service:alertmanager",
        "received_at": day("1997-09-01"),
    }
    return AlertRequest(**known | changes)


def test_without_a_production_model_enough_labels_are_reason_enough():
    decision = decide(drift_report(production_version=None, mature_periods=3, gates=()))
    assert said(decision) == (FIRED, TriggerRule.NO_PRODUCTION)
    assert decision.reason == "no production model yet, and the labels of 3 as_of are mature"


def test_without_enough_labels_nothing_is_trained_not_even_the_first_model():
    decision = decide(drift_report(production_version=None, mature_periods=2, gates=()))
    assert said(decision) == (SUPPRESSED, TriggerRule.TOO_FEW_LABELS)
    assert decision.reason == "not enough labels: 2 as_of with mature labels, the policy asks for 3"


def test_where_one_window_is_enough_a_failed_gate_fires_and_the_reason_holds_its_numbers():
    decision = decide(drift_report(gates=DRIFTED))
    assert said(decision) == (FIRED, TriggerRule.DRIFT)
    assert decision.reason == f"drift in the newest window: {CALIBRATION}"
    assert decision.failed_gates == ("calibration_drift",)


def test_one_drifted_window_of_three_does_not_fire_and_its_numbers_are_on_record():
    decision = decide(drift_report(gates=DRIFTED), TWO_OF_THREE)
    assert said(decision) == (SUPPRESSED, TriggerRule.NOT_PERSISTENT)
    assert decision.reason == f"drift in the newest window, 2 of 3 are asked for: {CALIBRATION}"
    assert decision.windows == WindowCount(failed=1, looked_at=1, asked_failed=2, asked_of=3)


@pytest.mark.parametrize(
    ("june", "july", "august", "outcome"),
    [
        (PASSED, DRIFTED, DRIFTED, FIRED),
        (DRIFTED, PASSED, DRIFTED, FIRED),
        (DRIFTED, DRIFTED, PASSED, SUPPRESSED),
        (DRIFTED, DRIFTED, UNCLEAR, SUPPRESSED),
        (PASSED, PASSED, DRIFTED, SUPPRESSED),
        (PASSED, UNCLEAR, DRIFTED, SUPPRESSED),
    ],
)
def test_two_of_the_last_three_windows_fire_if_the_newest_is_one_of_them(june: Any, july: Any, august: Any, outcome):
    before = [drift_report(period="1997-06", gates=june), drift_report(period="1997-07", gates=july)]
    assert decide(drift_report(gates=august), TWO_OF_THREE, recent=before).outcome is outcome


def test_windows_before_the_last_three_do_not_count():
    before = [drift_report(period=f"1997-0{month}", gates=gates) for month, gates in ((5, DRIFTED), (6, ()), (7, ()))]
    assert decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=before).rule is TriggerRule.NOT_PERSISTENT


def test_a_window_whose_report_cannot_be_read_is_not_looked_at_and_the_reason_says_so():
    june, why = drift_report(period="1997-06", gates=DRIFTED), "07.json cannot be read."
    for before, outcome, windows in (([june], FIRED, "2 of the last 2 windows"), ([], SUPPRESSED, "the newest window")):
        decision = decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=before, unreadable=[why])
        assert decision.outcome is outcome
        assert decision.reason.startswith(f"drift in {windows}")
        assert decision.reason.endswith(f"; not looked at: {why}")
    assert why not in decide(drift_report(gates=PASSED), TWO_OF_THREE, unreadable=[why]).reason


def test_windows_of_another_production_version_do_not_count():
    before = [drift_report(period="1997-07", gates=DRIFTED, production_version=ModelVersion(1))]
    assert decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=before).rule is TriggerRule.NOT_PERSISTENT


def test_of_a_window_that_was_judged_twice_the_newest_report_counts():
    first = drift_report(period="1997-07", gates=DRIFTED)
    again = drift_report(period="1997-07", gates=PASSED, created_at=first.created_at + timedelta(days=1))
    assert decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=[again, first]).outcome is SUPPRESSED
    assert decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=[first]).outcome is FIRED


def test_more_windows_cannot_be_asked_to_fail_than_are_looked_at():
    with pytest.raises(ValidationError, match="failed_windows is 4, of_windows 3"):
        RetrainingPolicy(failed_windows=4)


def test_drift_without_new_labels_teaches_nothing():
    decision = decide(drift_report(gates=DRIFTED, trained_up_to=day("1997-07-01")))
    assert said(decision) == (SUPPRESSED, TriggerRule.NO_NEW_LABELS)
    assert decision.reason == "no new labels: the newest mature as_of is 1997-07-01, the last training used it already"


def test_a_training_since_the_report_was_written_counts():
    report = drift_report(gates=DRIFTED, trained_up_to=day("1997-06-01"))
    assert decide(report, trained_up_to=day("1997-07-01")).rule is TriggerRule.NO_NEW_LABELS
    assert decide(report, trained_up_to=day("1997-05-01")).outcome is FIRED


def test_a_production_model_of_unknown_training_is_retrained_when_it_drifts():
    assert decide(drift_report(gates=DRIFTED, trained_up_to=None)).outcome is FIRED


def test_within_limits_nothing_happens():
    decision = decide(drift_report())
    assert said(decision) == (SUPPRESSED, TriggerRule.WITHIN_LIMITS)
    assert decision.reason == "within limits: calibration_drift"


def test_an_inconclusive_gate_does_not_fire():
    decision = decide(drift_report(gates=UNCLEAR))
    assert said(decision) == (SUPPRESSED, TriggerRule.INCONCLUSIVE)
    assert decision.reason == "inconclusive: calibration_drift"


def test_a_report_without_gates_is_inconclusive_and_not_within_limits():
    assert decide(drift_report(gates=())).reason == "inconclusive: no drift gate was measured"


def test_a_failed_gate_that_only_warns_does_not_fire():
    warns = gate("feature_drift", Verdict.FAILED).model_copy(update={"mode": GateMode.WARN})
    assert decide(drift_report(gates=(warns,))).outcome is SUPPRESSED


def test_a_broken_input_is_mended_and_not_learnt_from():
    decision = decide(drift_report(gates=FROZEN))
    assert said(decision) == (SUPPRESSED, TriggerRule.BROKEN_INPUT)
    assert decision.reason.startswith("the input is broken, mend its source, then land the period again: input_frozen")
    assert decision.failed_gates == ("input_frozen", "calibration_drift")


def test_nor_does_a_schedule_or_an_alert_learn_from_a_broken_input():
    report = drift_report(gates=FROZEN)
    assert decide(report, cause=TriggerCause.SCHEDULE).rule is TriggerRule.BROKEN_INPUT
    assert decide(report, cause=TriggerCause.ALERT, alert=alert()).rule is TriggerRule.BROKEN_INPUT


def test_a_window_with_a_broken_input_alone_says_nothing_about_drift_in_the_next():
    broken = drift_report(period="1997-07", gates=(gate("input_frozen", Verdict.FAILED),))
    assert decide(drift_report(gates=DRIFTED), TWO_OF_THREE, recent=[broken]).rule is TriggerRule.NOT_PERSISTENT


def test_cooling_down_lasts_as_many_windows_as_the_policy_says():
    policy = RetrainingPolicy(failed_windows=1, cool_down_periods=2)
    report = drift_report(gates=DRIFTED)
    fresh = [trigger("1997-06", FIRED), trigger("1997-07", SUPPRESSED)]
    decision = decide(report, policy, earlier=fresh)
    assert said(decision) == (SUPPRESSED, TriggerRule.COOL_DOWN)
    assert decision.reason == "cooling down: window 1997-06 fired, 1 of 2 windows have passed since"
    over = [trigger("1997-05", FIRED), trigger("1997-06", SUPPRESSED), trigger("1997-07", SUPPRESSED)]
    assert decide(report, policy, earlier=over).outcome is FIRED


def test_the_training_of_the_first_model_starts_no_cool_down():
    policy = RetrainingPolicy(failed_windows=1, cool_down_periods=2)
    assert decide(drift_report(gates=DRIFTED), policy, earlier=[trigger("1997-07", FIRED, production=None)]).rule is (
        TriggerRule.DRIFT
    )


def test_a_window_judged_again_with_another_version_does_not_cool_itself_down():
    policy = RetrainingPolicy(failed_windows=1, cool_down_periods=1)
    assert decide(drift_report(gates=DRIFTED), policy, earlier=[trigger("1997-08", FIRED, production=1)]).outcome is (
        FIRED
    )


def test_a_window_fires_once_for_each_production_version():
    decision = decide(drift_report(gates=DRIFTED), earlier=[trigger("1997-08", FIRED, production=2)])
    assert said(decision) == (SUPPRESSED, TriggerRule.FIRED_ALREADY)
    assert decision.reason == "window 1997-08 fired already with version 2 in production"


def test_the_first_model_is_asked_for_once_a_window():
    report, earlier = drift_report(production_version=None, gates=()), [trigger("1997-08", FIRED, production=None)]
    assert decide(report, earlier=earlier).reason == "window 1997-08 fired already with no version in production"


def test_a_first_model_that_was_refused_is_not_trained_again_on_the_same_labels():
    report = drift_report(production_version=None, gates=(), trained_up_to=None)
    assert decide(report, trained_up_to=day("1997-07-01")).rule is TriggerRule.NO_NEW_LABELS
    assert decide(report, trained_up_to=day("1997-06-01")).outcome is FIRED


def test_a_window_that_was_suppressed_may_fire_when_it_is_judged_again():
    assert decide(drift_report(gates=DRIFTED), earlier=[trigger("1997-08", SUPPRESSED)]).outcome is FIRED


def test_a_report_on_a_version_that_is_no_longer_production_fires_nothing():
    decision = decide(drift_report(gates=DRIFTED), production=ModelVersion(3))
    assert said(decision) == (SUPPRESSED, TriggerRule.OUTDATED)
    assert decision.reason == "the report judged version 2, production is version 3 now"


def test_a_report_from_before_the_first_model_fires_nothing_once_there_is_one():
    decision = decide(drift_report(production_version=None, gates=()), production=ModelVersion(1))
    assert decision.reason == "the report judged no version, production is version 1 now"


@pytest.mark.parametrize(
    ("budget", "sentence"),
    [
        ({"runs": 8}, "budget of 1997-09: 8 of 8 runs, 0 of 60 CPU minutes; it would have fired: drift in"),
        ({"cpu_minutes": 60}, "budget of 1997-09: 0 of 8 runs, 60 of 60 CPU minutes; it would have fired: drift in"),
    ],
)
def test_a_spent_budget_has_the_last_word(budget: dict[str, float], sentence: str):
    decision = decide(drift_report(gates=DRIFTED), budget=UNUSED.model_copy(update=budget))
    assert said(decision) == (SUPPRESSED, TriggerRule.BUDGET)
    assert decision.reason.startswith(sentence)


def test_the_last_run_of_a_budget_is_allowed():
    left = UNUSED.model_copy(update={"runs": 7, "cpu_minutes": 59.9})
    assert decide(drift_report(gates=DRIFTED), budget=left).outcome is FIRED


def test_what_would_not_have_fired_is_not_called_a_matter_of_budget():
    assert decide(drift_report(), budget=UNUSED.model_copy(update={"runs": 8})).rule is TriggerRule.WITHIN_LIMITS


def test_the_budget_holds_for_the_first_model_too():
    report = drift_report(production_version=None, gates=())
    assert decide(report, budget=UNUSED.model_copy(update={"runs": 8})).rule is TriggerRule.BUDGET


def test_the_budget_counts_what_fired_in_the_month_and_the_cpu_time_of_what_has_ended():
    month, before = day("1997-09-01"), day("1997-08-31")
    triggers = [(before, trigger("a", FIRED)), (month, trigger("b", FIRED)), (month, trigger("c", SUPPRESSED))]
    triggers.append((day("1997-09-20"), trigger("d", FIRED)))
    answers = {key: answer(key, cpu_seconds=90) for key in ("a", "b", "c")}
    used = budget_used(RetrainingPolicy(max_runs_per_month=3), triggers, answers, at=day("1997-09-30"))
    assert used == BudgetUse(month="1997-09", runs=2, max_runs=3, cpu_minutes=1.5, max_cpu_minutes=60)
    assert (used.runs_left, used.cpu_minutes_left, used.is_spent) == (1, 58.5, False)


def test_the_month_of_a_budget_is_that_of_utc():
    """In Berlin it is September already."""
    berlin = timezone(timedelta(hours=2))
    late = datetime(1997, 9, 1, 0, 30, tzinfo=berlin)
    assert budget_used(RetrainingPolicy(), [(late, trigger("a", FIRED))], {}, at=day("1997-09-30")).runs == 0
    assert budget_used(RetrainingPolicy(), [(day("1997-08-02"), trigger("a", FIRED))], {}, at=late).runs == 1


def test_a_schedule_fires_without_any_drift_if_there_is_something_new_to_learn():
    decision = decide(drift_report(), cause=TriggerCause.SCHEDULE, new_mature_periods=2)
    assert said(decision) == (FIRED, TriggerRule.SCHEDULE)
    assert decision.reason == "scheduled: 2 as_of became mature since the last training"
    assert decide(drift_report(), cause=TriggerCause.SCHEDULE, trained_up_to=day("1997-07-01")).rule is (
        TriggerRule.NO_NEW_LABELS
    )


def test_a_schedule_asks_about_labels_and_not_about_the_version_of_the_newest_report():
    assert decide(drift_report(), cause=TriggerCause.SCHEDULE, production=ModelVersion(3)).outcome is FIRED


def test_a_schedule_knows_no_cool_down_its_cron_is_one():
    policy = RetrainingPolicy(cool_down_periods=5)
    fired = [trigger("1997-07", FIRED)]
    assert decide(drift_report(), policy, cause=TriggerCause.SCHEDULE, earlier=fired).outcome is FIRED


def test_an_alert_fires_without_any_drift_once_an_incident():
    decision = decide(drift_report(), cause=TriggerCause.ALERT, alert=alert())
    assert said(decision) == (FIRED, TriggerRule.ALERT)
    assert decision.reason == "alert RefundsUp: refunds doubled; new labels are mature"
    before = [trigger("1997-07", FIRED).model_copy(update={"alert": alert().incident})]
    assert decide(drift_report(), cause=TriggerCause.ALERT, alert=alert(), earlier=before).rule is (
        TriggerRule.FIRED_ALREADY
    )
    later = alert(starts_at=day("1997-08-25"))
    assert decide(drift_report(), cause=TriggerCause.ALERT, alert=later, earlier=before).outcome is FIRED


def test_an_alert_is_held_by_cool_down_labels_and_budget():
    asking: dict[str, Any] = {"cause": TriggerCause.ALERT, "alert": alert()}
    cooling = RetrainingPolicy(cool_down_periods=3)
    assert decide(drift_report(), cooling, earlier=[trigger("1997-07", FIRED)], **asking).rule is TriggerRule.COOL_DOWN
    assert decide(drift_report(), trained_up_to=day("1997-07-01"), **asking).rule is TriggerRule.NO_NEW_LABELS
    spent = UNUSED.model_copy(update={"runs": 8})
    assert decide(drift_report(), budget=spent, **asking).rule is TriggerRule.BUDGET


def test_new_labels_ask_by_themselves_only_where_the_policy_says_how_many():
    policy = RetrainingPolicy(new_mature_periods=2)
    assert decide(drift_report(), new_mature_periods=9).rule is TriggerRule.WITHIN_LIMITS
    assert decide(drift_report(), policy, new_mature_periods=1).rule is TriggerRule.WITHIN_LIMITS
    decision = decide(drift_report(), policy, new_mature_periods=2)
    assert (said(decision), decision.cause) == ((FIRED, TriggerRule.ARRIVAL), TriggerCause.ARRIVAL)
    assert decision.reason == "2 as_of became mature since the last training, 2 ask for one"
    assert decide(drift_report(gates=UNCLEAR), policy, new_mature_periods=2).outcome is FIRED


def test_a_trigger_is_keyed_by_what_was_judged():
    report = drift_report(gates=DRIFTED)
    assert report_run_key(report) == f"repurchase/1997-08/2/{report.digest()}"
    assert report_run_key(drift_report(gates=DRIFTED, labelled=2_001)) != report_run_key(report)
    assert report_run_key(drift_report(production_version=None)).startswith("repurchase/1997-08/first/")


def test_what_is_on_record_of_a_decision_are_its_numbers():
    known = facts(drift_report(gates=DRIFTED), new_mature_periods=1, expected_gain=Gain(nats=0.002, rows=2_000))
    record = recorded(known, decide_trigger(TWO_OF_THREE, known), run_key="key")
    assert (record.outcome, record.rule, record.run_key) == (SUPPRESSED, TriggerRule.NOT_PERSISTENT, "key")
    assert (record.production_version, record.report_digest) == (2, known.report.digest())
    assert (record.failed_gates, record.new_mature_periods) == (("calibration_drift",), 1)
    assert (record.budget, record.expected_gain) == (UNUSED, Gain(nats=0.002, rows=2_000))
    assert Trigger.model_validate_json(record.model_dump_json()) == record


@pytest.mark.parametrize(
    ("holdout", "realised", "helped"),
    [
        (None, None, None),
        (Gain(nats=0.01, rows=9, low=0.001, high=0.02), None, True),
        (Gain(nats=0.01, rows=9, low=0.0, high=0.02), None, None),
        (Gain(nats=-0.01, rows=9, low=-0.02, high=-0.001), None, False),
        (Gain(nats=0.01, rows=9, low=0.001, high=0.02), Gain(nats=-0.1, rows=9, low=-0.2, high=-0.01), False),
    ],
)
def test_a_retraining_helped_if_what_is_known_best_says_so(holdout: Gain, realised: Gain, helped: bool | None):
    assert answer("k", holdout_gain=holdout, realised_gain=realised).helped is helped


def answer(key: str, **changes: Any) -> TriggerAnswer:
    known: dict[str, Any] = {
        "run_key": key,
        "model": MODEL,
        "kind": AnswerKind.PROMOTED,
        "reason": "",
        "dagster_run_id": "r",
        "at": day("1997-09-02"),
    }
    return TriggerAnswer(**known | changes)
