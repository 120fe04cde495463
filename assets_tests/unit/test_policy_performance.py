"""Whether performance is within tolerance, and whether calibrated scores may be asked for it."""

import pytest

from assets_tests.judging import MODEL, gate, interval
from boucle.contracts.ids import ModelVersion
from boucle.contracts.performance import Measured, Metric, Performance, PerformanceReference, Recalibration
from boucle.contracts.verdict import Verdict
from boucle.policy.monitoring import MonitoringPolicy
from boucle.policy.performance import (
    PerformancePolicy,
    calibration_of_probabilities,
    performance_gates,
    why_not_estimated,
)

LIMITS = MonitoringPolicy(max_log_loss_increase=0.02, max_calibration_gap=0.005, min_labels=500, min_positives=30)
LEARNT = Recalibration(intercept=0, slope=1, covariance=((0.01, 0), (0, 0.01)), rows=2_000, positives=200)
REFERENCE = PerformanceReference(
    model=MODEL,
    version=ModelVersion(1),
    log_loss=0.2,
    recalibration=LEARNT,
    feature_names=("recency",),
    sliced_by=(),
    slices=(),
)
CALM = calibration_of_probabilities(LIMITS, interval(0.0, -0.004, 0.004))
GONE = calibration_of_probabilities(LIMITS, interval(0.02, 0.006, 0.03))
UNSURE = calibration_of_probabilities(LIMITS, interval(0.006, -0.004, 0.016))
UNKNOWN = calibration_of_probabilities(LIMITS, None)


def row(loss: tuple[float, float, float], gap: tuple[float, float, float], **changes: int) -> Performance:
    counts = {"predictions": 1_000, "entities": 900, "positives": 80} | changes
    values = {Metric.LOG_LOSS: loss, Metric.CALIBRATION: gap}
    measured = {metric: Measured(estimate=one[0], low=one[1], high=one[2]) for metric, one in values.items()}
    return Performance(
        version=ModelVersion(1), fallbacks=0, mean_score=0.08, positive_rate=0.08, metrics=measured, **counts
    )


@pytest.mark.parametrize(
    ("loss", "gap", "expected"),
    [
        ((0.22, 0.2, 0.24), (0.005, 0.0, 0.01), ("passed", "passed")),  # the limits themselves
        ((0.23, 0.22, 0.24), (0.006, 0.005, 0.01), ("inconclusive", "inconclusive")),
        ((0.23, 0.2201, 0.24), (-0.02, -0.03, -0.0051), ("failed", "failed")),
    ],
)
def test_performance_fails_only_where_the_whole_interval_is_out(loss: tuple, gap: tuple, expected: tuple):
    assert tuple(str(found.verdict) for found in performance_gates(LIMITS, row(loss, gap), REFERENCE)) == expected


@pytest.mark.parametrize("changes", [{"predictions": 499}, {"positives": 29}])
def test_too_few_labels_are_inconclusive_however_good(changes: dict):
    found = performance_gates(LIMITS, row((0.1, 0.1, 0.1), (0, 0, 0), **changes), REFERENCE)
    assert {one.verdict for one in found} == {Verdict.INCONCLUSIVE}


def test_without_labels_or_reference_nothing_is_within_tolerance():
    nothing = performance_gates(LIMITS, None, REFERENCE)
    unknown = performance_gates(LIMITS, row((0.1, 0.1, 0.1), (0, 0, 0)), None)
    assert {one.verdict for one in nothing} == {Verdict.INCONCLUSIVE}
    assert [str(one.verdict) for one in unknown] == ["inconclusive", "passed"]


def refusal(**changes) -> str:
    asked = {"reference": REFERENCE, "judged": gate("calibration", Verdict.PASSED), "mature": CALM} | changes
    return why_not_estimated(PerformancePolicy(), **asked)


@pytest.mark.parametrize("mature", [CALM, UNSURE, UNKNOWN])
def test_calibrated_scores_are_asked_until_it_is_shown_that_they_are_not(mature):
    assert refusal(mature=mature) == ""
    assert refusal(judged=None, mature=mature) == ""


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"mature": GONE}, "Calibration does not hold on the newest mature predictions"),
        ({"judged": gate("calibration", Verdict.FAILED)}, "did not hold on the version's holdout"),
        ({"reference": None}, "holdout are not there"),
        ({"reference": REFERENCE.model_copy(update={"recalibration": None})}, "too few labels of either kind"),
        (
            {"reference": REFERENCE.model_copy(update={"recalibration": LEARNT.model_copy(update={"slope": 0.2})})},
            "higher scores are not surely likelier",
        ),
    ],
)
def test_an_estimate_is_refused_where_scores_do_not_mean_what_they_say(changes: dict, why: str):
    assert why in refusal(**changes)


def test_a_model_may_do_without_estimates():
    asked = {"reference": REFERENCE, "judged": None, "mature": CALM}
    assert "performance.estimate" in why_not_estimated(PerformancePolicy(estimate=False), **asked)
