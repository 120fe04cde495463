"""When drift leads to retraining; every suppressed trigger has its reason."""

from collections.abc import Sequence
from datetime import datetime

from assets_tests.judging import day, drift_report, gate, trigger
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import Trigger, TriggerOutcome, judged_report
from boucle.contracts.verdict import Verdict
from boucle.policy.retraining import RetrainingPolicy
from boucle.policy.retraining import decide_trigger as decide

FIRED, SUPPRESSED = TriggerOutcome.FIRED, TriggerOutcome.SUPPRESSED
POLICY = RetrainingPolicy()
DRIFTED = (gate("score_drift", Verdict.PASSED), gate("calibration_drift", Verdict.FAILED))


def decide_trigger(
    policy: RetrainingPolicy,
    report: DriftReport,
    earlier: Sequence[Trigger] = (),
    *,
    trained_up_to: datetime | None = None,
) -> tuple[TriggerOutcome, str]:
    """Decide while the version that the report judged is production."""
    return decide(policy, report, earlier, production=report.production_version, trained_up_to=trained_up_to)


def test_without_a_production_model_enough_labels_are_reason_enough():
    outcome, reason = decide_trigger(POLICY, drift_report(production_version=None, mature_periods=3, gates=()))
    assert outcome is FIRED
    assert reason == "no production model yet, and the labels of 3 as_of are mature"


def test_without_enough_labels_nothing_is_trained_not_even_the_first_model():
    outcome, reason = decide_trigger(POLICY, drift_report(production_version=None, mature_periods=2, gates=()))
    assert outcome is SUPPRESSED
    assert reason == "not enough labels: 2 as_of with mature labels, the policy asks for 3"


def test_a_failed_gate_fires_and_the_reason_holds_its_numbers():
    outcome, reason = decide_trigger(POLICY, drift_report(gates=DRIFTED))
    assert outcome is FIRED
    assert reason == "calibration_drift: failed (measured 0.03 probability, at most 0.005 probability, n=2000)"


def test_drift_without_new_labels_teaches_nothing():
    report = drift_report(gates=DRIFTED, trained_up_to=day("1997-07-01"))
    outcome, reason = decide_trigger(POLICY, report)
    assert outcome is SUPPRESSED
    assert reason == "no new labels: the newest mature as_of is 1997-07-01, the last training used it already"


def test_a_training_since_the_report_was_written_counts():
    report = drift_report(gates=DRIFTED, trained_up_to=day("1997-06-01"))
    outcome, reason = decide_trigger(POLICY, report, trained_up_to=day("1997-07-01"))
    assert outcome is SUPPRESSED
    assert reason.startswith("no new labels")
    assert decide_trigger(POLICY, report, trained_up_to=day("1997-05-01"))[0] is FIRED


def test_a_production_model_of_unknown_training_is_retrained_when_it_drifts():
    assert decide_trigger(POLICY, drift_report(gates=DRIFTED, trained_up_to=None))[0] is FIRED


def test_within_limits_nothing_happens():
    assert decide_trigger(POLICY, drift_report()) == (SUPPRESSED, "within limits: calibration_drift")


def test_an_inconclusive_gate_does_not_fire():
    report = drift_report(gates=(gate("calibration_drift", Verdict.INCONCLUSIVE),))
    assert decide_trigger(POLICY, report) == (SUPPRESSED, "inconclusive: calibration_drift")


def test_a_report_without_gates_is_inconclusive_and_not_within_limits():
    outcome, reason = decide_trigger(POLICY, drift_report(gates=()))
    assert (outcome, reason) == (SUPPRESSED, "inconclusive: no drift gate was measured")


def test_cooling_down_lasts_as_many_windows_as_the_policy_says():
    policy = RetrainingPolicy(cool_down_periods=2)
    report = drift_report(gates=DRIFTED)
    fresh = [trigger("1997-06", FIRED), trigger("1997-07", SUPPRESSED)]
    outcome, reason = decide_trigger(policy, report, fresh)
    assert outcome is SUPPRESSED
    assert reason == "cooling down: window 1997-06 fired, 1 of 2 windows have passed since"
    over = [trigger("1997-05", FIRED), trigger("1997-06", SUPPRESSED), trigger("1997-07", SUPPRESSED)]
    assert decide_trigger(policy, report, over)[0] is FIRED


def test_a_window_judged_again_with_another_version_does_not_cool_itself_down():
    policy, earlier = RetrainingPolicy(cool_down_periods=1), [trigger("1997-08", FIRED, production=1)]
    assert decide_trigger(policy, drift_report(gates=DRIFTED), earlier)[0] is FIRED


def test_a_window_fires_once_for_each_production_version():
    outcome, reason = decide_trigger(POLICY, drift_report(gates=DRIFTED), [trigger("1997-08", FIRED, production=2)])
    assert outcome is SUPPRESSED
    assert reason == "window 1997-08 fired already with version 2 in production"


def test_the_first_model_is_asked_for_once_a_window():
    report, earlier = drift_report(production_version=None, gates=()), [trigger("1997-08", FIRED, production=None)]
    outcome, reason = decide_trigger(POLICY, report, earlier)
    assert outcome is SUPPRESSED
    assert reason == "window 1997-08 fired already with no version in production"


def test_a_first_model_that_was_refused_is_not_trained_again_on_the_same_labels():
    report = drift_report(production_version=None, gates=(), trained_up_to=None)
    outcome, reason = decide_trigger(POLICY, report, trained_up_to=day("1997-07-01"))
    assert outcome is SUPPRESSED
    assert reason == "no new labels: the newest mature as_of is 1997-07-01, the last training used it already"
    assert decide_trigger(POLICY, report, trained_up_to=day("1997-06-01"))[0] is FIRED


def test_a_window_that_was_suppressed_may_fire_when_it_is_judged_again():
    assert decide_trigger(POLICY, drift_report(gates=DRIFTED), [trigger("1997-08", SUPPRESSED)])[0] is FIRED


def test_a_report_on_a_version_that_is_no_longer_production_fires_nothing():
    outcome, reason = decide(POLICY, drift_report(gates=DRIFTED), production=ModelVersion(3), trained_up_to=None)
    assert outcome is SUPPRESSED
    assert reason == "the report judged version 2, production is version 3 now"


def test_a_report_from_before_the_first_model_fires_nothing_once_there_is_one():
    outcome, reason = decide(
        POLICY, drift_report(production_version=None, gates=()), production=ModelVersion(1), trained_up_to=None
    )
    assert outcome is SUPPRESSED
    assert reason == "the report judged no version, production is version 1 now"


def test_a_trigger_is_keyed_by_what_was_judged():
    report = drift_report(gates=DRIFTED)
    judged = judged_report(report, FIRED, "drift")
    assert judged.run_key == f"repurchase/1997-08/2/{report.digest()}"
    assert (judged.production_version, judged.report_digest) == (2, report.digest())
    rewritten = judged_report(drift_report(gates=DRIFTED, labelled=2_001), FIRED, "drift")
    assert rewritten.run_key != judged.run_key
    first = judged_report(drift_report(production_version=None), FIRED, "first")
    assert first.run_key.startswith("repurchase/1997-08/first/")
