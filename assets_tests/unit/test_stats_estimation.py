"""Estimated performance: right where scores mean what they meant, wrong where they do not, and it is seen."""

import numpy as np
import pytest

from boucle.contracts.performance import Measured, Metric, Recalibration
from boucle.errors import NotEnoughDataError
from boucle.stats.estimation import (
    _expectations,
    calibrated,
    estimate_metrics,
    expected_confusion,
    log_loss_error,
    recalibrate,
)
from boucle.stats.metrics import auc, brier, log_loss

EXACT = Recalibration(intercept=0, slope=1, covariance=((0, 0), (0, 0)), rows=1_000, positives=500)
REALISED = {
    Metric.LOG_LOSS: log_loss,
    Metric.BRIER: brier,
    Metric.AUC: auc,
    Metric.CALIBRATION: lambda labels, scores: float((scores - labels).mean()),
}


def estimated(scores: np.ndarray, recalibration: Recalibration = EXACT) -> dict[Metric, Measured | None]:
    return estimate_metrics(scores, recalibration, np.arange(len(scores)), level=0.95)


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def test_two_calibrated_scores_promise_what_one_works_out_by_hand():
    """Scores .2 and .8: entropy of .2 in nats; .2 * .8 ** 2 + .8 * .2 ** 2; .8 * .8 of .8 * .8 + .2 * .2 pairs."""
    found = estimated(np.array([0.2, 0.8]))
    values = {metric: None if one is None else round(one.estimate, 6) for metric, one in found.items()}
    assert values == {Metric.LOG_LOSS: 0.500402, Metric.BRIER: 0.16, Metric.AUC: 0.941176, Metric.CALIBRATION: 0}


def test_the_interval_of_two_rows_is_that_of_two_draws():
    """Calibration of scores .2 and .8: variance (.16 + .16) / 4, so 1.96 * .2828 around 0."""
    found = estimated(np.array([0.2, 0.8]))[Metric.CALIBRATION]
    assert found is not None
    assert (round(found.low, 4), round(found.high, 4)) == (-0.5544, 0.5544)


def test_the_error_of_an_estimate_is_what_it_promised_less_what_came():
    """Scores .2 and .8 promise .500402 nats; labels 0 and 1 cost -log .8 = .223144."""
    found = log_loss_error(np.array([0.0, 1.0]), np.array([0.2, 0.8]), EXACT, np.arange(2), level=0.95)
    assert found.estimate == pytest.approx(0.500402 - 0.223144, abs=1e-6)


def test_the_error_of_an_estimate_is_as_unsure_as_its_recalibration():
    """Intercept unsure by .1: it pulls by (if positive - if negative) * p (1 - p), 1.386294 * .16 for scores of .2."""
    labels, scores = np.repeat([1.0, 0.0], [200, 800]), np.full(1_000, 0.2)
    unsure = EXACT.model_copy(update={"covariance": ((0.01, 0), (0, 0))})
    exact, found = (log_loss_error(labels, scores, one, np.arange(1_000), level=0.95) for one in (EXACT, unsure))
    assert found.estimate == pytest.approx(0)
    of_learning = (found.high**2 - exact.high**2) ** 0.5
    assert of_learning == pytest.approx(1.959964 * 0.1 * 1.386294 * 0.16, rel=1e-5)


def test_equal_scores_rank_half_of_the_pairs():
    found = estimated(np.full(10, 0.3))[Metric.AUC]
    assert found is not None
    assert found.estimate == pytest.approx(0.5)


def test_where_no_row_can_be_positive_there_is_no_auc():
    assert estimated(np.zeros(1))[Metric.AUC] is None


def test_expected_counts_at_a_threshold():
    found = expected_confusion(np.array([0.1, 0.4, 0.9]), EXACT, threshold=0.4)
    counts = (found.true_positives, found.false_positives, found.false_negatives, found.true_negatives)
    assert counts == pytest.approx((1.3, 0.7, 0.1, 0.9))


@pytest.mark.parametrize("metric", list(Metric))
def test_the_slope_that_the_interval_rests_on_is_the_derivative(metric: Metric):
    rng, step = np.random.default_rng(3), 1e-6
    scores = np.round(rng.random(12), 1).clip(0.05, 0.95)  # with ties
    p = rng.random(12)
    for row in range(12):
        there, back = (p + sign * step * (np.arange(12) == row) for sign in (1, -1))
        by_difference = (_expectations(scores, there)[metric].value - _expectations(scores, back)[metric].value) / 2e-6
        assert _expectations(scores, p)[metric].slope[row] == pytest.approx(by_difference, abs=1e-7)


def test_a_recalibration_finds_what_the_scores_were_distorted_by():
    """Scores expit(x) of events with probability expit(-1 + 0.5 x)."""
    rng = np.random.default_rng(1)
    x = rng.normal(0, 2, 40_000)
    labels = (rng.random(len(x)) < expit(-1 + 0.5 * x)).astype(float)
    found = recalibrate(labels, expit(x), np.arange(len(x)))
    assert (found.intercept, found.slope) == pytest.approx((-1, 0.5), abs=0.05)
    assert calibrated(found, np.array([0.5]))[0] == pytest.approx(0.269, abs=0.01)


def test_scores_that_are_twice_too_sure_are_mended():
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, 4_000)
    labels = (rng.random(len(x)) < expit(x - 2)).astype(float)
    found = recalibrate(labels, expit(2 * (x - 2)), np.arange(len(x)))
    assert (found.intercept, found.slope) == pytest.approx((0, 0.5), abs=0.15)


def test_scores_of_0_and_1_that_err_mean_their_rates():
    labels, scores = np.repeat([0.0, 1, 0, 1], [90, 10, 40, 60]), np.repeat([0.0, 0, 1, 1], [90, 10, 40, 60])
    found = recalibrate(labels, scores, np.arange(200))
    assert calibrated(found, np.array([0.0, 1.0])) == pytest.approx([0.1, 0.6])


@pytest.mark.parametrize("sure", [0.7, 0.9999, 1.0])
def test_scores_that_part_the_labels_without_an_error_are_no_basis(sure: float):
    labels = np.repeat([0.0, 1.0], 100)
    with pytest.raises(NotEnoughDataError, match="part them without an error"):
        recalibrate(labels, np.where(labels, sure, 1 - sure), np.arange(200))


def test_scores_that_hardly_differ_are_no_basis():
    scores = np.full(200, 0.5)
    scores[0] = np.nextafter(0.5, 1)
    with pytest.raises(NotEnoughDataError):
        recalibrate(np.tile([0.0, 1.0], 100), scores, np.arange(200))


def test_rows_that_are_asked_about_twice_are_no_more_certain():
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, 2_000)
    labels = (rng.random(len(x)) < expit(x)).astype(float)
    once = recalibrate(labels, expit(x), np.arange(len(x)))
    twice = recalibrate(np.tile(labels, 2), np.tile(expit(x), 2), np.tile(np.arange(len(x)), 2))
    assert np.array(twice.covariance) == pytest.approx(np.array(once.covariance))


@pytest.mark.parametrize("positives", [0, 29, 971])
def test_too_few_of_either_label_are_no_basis(positives: int):
    labels = (np.arange(1_000) < positives).astype(float)
    with pytest.raises(NotEnoughDataError, match="30 of either label"):
        recalibrate(labels, np.linspace(0.1, 0.9, 1_000), np.arange(1_000))


def coverage(shift: float, concept: float, *, worlds: int = 150, n: int = 1_500) -> tuple[dict[Metric, float], float]:
    """Share of worlds in which the realised value lies in the interval, and the mean absolute error of the log loss.

    The model says expit(x - 2), a bit too sure of itself; x moves by `shift`, and by `concept` what x means.
    """
    rng, hits, errors = np.random.default_rng(5), dict.fromkeys(Metric, 0), []

    def world(rows: int, shift: float, concept: float) -> tuple[np.ndarray, np.ndarray]:
        x = rng.normal(shift, 1, rows)
        return (rng.random(rows) < expit(0.8 * x - 1.8 + concept)).astype(float), expit(x - 2)

    for _ in range(worlds):
        learnt = recalibrate(*world(4_000, 0, 0), np.arange(4_000))
        labels, scores = world(n, shift, concept)
        found = estimate_metrics(scores, learnt, np.arange(n), level=0.95)
        for metric, one in found.items():
            assert one is not None
            hits[metric] += one.low <= REALISED[metric](labels, scores) <= one.high
        loss = found[Metric.LOG_LOSS]
        assert loss is not None
        errors.append(abs(loss.estimate - log_loss(labels, scores)))
    return {metric: n / worlds for metric, n in hits.items()}, float(np.mean(errors))


def test_under_covariate_shift_the_interval_holds_the_realised_value_as_often_as_it_says():
    held, error = coverage(shift=0.7, concept=0)
    assert all(share >= 0.9 for share in held.values()), held
    assert error < 0.02


def test_under_concept_shift_the_estimate_is_wrong_and_its_tracked_error_shows_it():
    held, error = coverage(shift=0, concept=1)
    assert held[Metric.LOG_LOSS] == 0
    assert held[Metric.CALIBRATION] == 0
    assert error > 0.1
