"""Drift gates: they fail when the data shows drift, and only then."""

import pytest

from assets_tests.judging import MOVED, SAME, histogram, interval, live
from boucle.contracts.verdict import Verdict
from boucle.policy.monitoring import MonitoringPolicy, drift_gates, feature_psi
from boucle.stats.drift import psi

POLICY = MonitoringPolicy()


def verdicts(policy: MonitoringPolicy = POLICY, **changes) -> dict[str, Verdict]:
    return {gate.name: gate.verdict for gate in drift_gates(policy, live(**changes))}


CALM = dict.fromkeys(("calibration_drift", "score_drift", "feature_drift", "log_loss_drift"), Verdict.PASSED)


def test_a_window_like_the_reference_is_within_limits():
    assert verdicts() == CALM


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("score_drift", {"scores": MOVED}),
        ("feature_drift", {"features": {"recency": MOVED, "freq": MOVED}}),
        ("calibration_drift", {"calibration": interval(0.02, 0.0051, 0.03, n=1_000)}),
        ("calibration_drift", {"calibration": interval(-0.02, -0.03, -0.0051, n=1_000)}),
        ("log_loss_drift", {"log_loss": interval(0.26, 0.2401, 0.28, n=1_000)}),
    ],
)
def test_each_gate_fails_on_its_own_drift_and_the_others_do_not_mind(name: str, changes: dict):
    assert verdicts(**changes) == CALM | {name: Verdict.FAILED}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("calibration_drift", {"calibration": interval(0.02, 0.005, 0.03, n=1_000)}),
        ("calibration_drift", {"calibration": interval(-0.02, -0.03, -0.005, n=1_000)}),
        ("log_loss_drift", {"log_loss": interval(0.26, 0.2399, 0.28, n=1_000)}),
    ],
)
def test_a_gap_that_may_be_chance_is_inconclusive(name: str, changes: dict):
    assert verdicts(**changes) == CALM | {name: Verdict.INCONCLUSIVE}


def test_a_column_that_does_not_matter_may_drift_alone():
    # PSI of MOVED is about 1.8: with a quarter of the importance it counts 0.45.
    assert psi(SAME, MOVED) == pytest.approx(1.8, abs=0.3)
    assert verdicts(features={"recency": SAME, "freq": MOVED})["feature_drift"] is Verdict.PASSED
    assert verdicts(features={"recency": MOVED, "freq": SAME})["feature_drift"] is Verdict.FAILED


def test_the_report_shows_the_drift_of_every_feature():
    found = feature_psi(live(features={"recency": SAME, "freq": MOVED}))
    assert found["recency"] == 0
    assert found["freq"] == psi(SAME, MOVED)


def test_nothing_served_and_nothing_labelled_is_inconclusive_everywhere():
    empty = histogram(0, 0, 0, 0, 0)
    found = drift_gates(
        POLICY,
        live(predictions=0, scores=empty, features={"recency": empty, "freq": empty}, calibration=None, log_loss=None),
    )
    assert {gate.verdict for gate in found} == {Verdict.INCONCLUSIVE}
    assert {gate.measured for gate in found} == {None}


def test_a_window_of_few_predictions_says_nothing_about_distributions():
    found = verdicts(predictions=499, scores=MOVED, features={"recency": MOVED, "freq": MOVED})
    assert found["score_drift"] is found["feature_drift"] is Verdict.INCONCLUSIVE


def test_a_window_too_small_for_its_bins_cannot_show_drift():
    policy = MonitoringPolicy(min_predictions=10)
    small = histogram(0, 1, 1, 4, 14)
    assert verdicts(policy, predictions=20, scores=small)["score_drift"] is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "changes",
    [{"calibration": interval(0.1, 0.09, 0.11, n=499)}, {"calibration": interval(0.1, 0.09, 0.11), "positives": 29}],
)
def test_few_labels_say_nothing_about_calibration(changes: dict):
    assert verdicts(**changes)["calibration_drift"] is Verdict.INCONCLUSIVE


def test_exactly_as_many_labels_and_positives_as_asked_are_enough():
    changes = {"calibration": interval(0.1, 0.09, 0.11, n=500), "positives": 30}
    assert verdicts(**changes)["calibration_drift"] is Verdict.FAILED
