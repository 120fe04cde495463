"""Performance without labels: what calibrated scores promise of themselves (confidence-based estimation, CBPE).

If a row with the calibrated score p is positive with probability p, the expectation of a metric over the unknown labels
is a sum over rows. That holds under covariate shift, where the rows change and what p means does not; it cannot see
that the same row has another outcome now (concept shift).

Sources: Kivimaki, Bialek, Kuberski and Nurminen 2025, Performance Estimation in Binary Classification Using Calibrated
Confidence (arXiv:2505.05295); Bialek, Kivimaki, Kuberski and Perrakis 2024, Estimating Model Performance Under
Covariate Shift Without Labels (arXiv:2401.08348).
"""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.contracts.performance import Confusion, Measured, Metric, Recalibration
from boucle.errors import NotEnoughDataError
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import CLIP, Vector, log_loss_rows
from boucle.stats.recalibration import PARAMETERS, fit_logistic, sigmoid

MIN_POSITIVES = 30
"""Positives, and negatives, that a recalibration with two parameters asks for: fifteen for each (Peduzzi 1996: ten)."""


@dataclass(frozen=True, kw_only=True)
class _Expected:
    """The expectation of a metric, and its derivative by the probability of each row."""

    value: float
    slope: Vector


def recalibrate(labels: Vector, scores: Vector, entities: ArrayLike) -> Recalibration:
    """The logistic recalibration of scores by labels (Cox 1958), with a covariance by entity (Liang and Zeger 1986).

    Raises:
        NotEnoughDataError: There are fewer than `MIN_POSITIVES` of either label, the scores do not
            differ, or they part the labels so that no fit is the best.
    """
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < MIN_POSITIVES or np.ptp(scores) == 0:
        raise NotEnoughDataError(
            f"A recalibration needs {MIN_POSITIVES} of either label and scores that differ; {positives} of "
            f"{len(labels)} labels are positive."
        )
    logits = _logit(scores)
    fit = fit_logistic(labels, logits)
    if not fit.converged:
        raise NotEnoughDataError(
            f"No recalibration fits these {len(labels)} labels best: the scores part them without an error, or hardly "
            "differ."
        )
    bread = np.linalg.inv(fit.information)
    design = np.column_stack([np.ones_like(logits), logits])
    _, place = np.unique(np.asarray(entities), return_inverse=True)
    pull = design * (labels - fit.probabilities)[:, None]
    by_entity = np.column_stack([np.bincount(place, weights=column) for column in pull.T])
    (a, b), (c, d) = bread @ (by_entity.T @ by_entity) @ bread
    return Recalibration(
        intercept=fit.intercept,
        slope=fit.slope,
        covariance=((float(a), float(b)), (float(c), float(d))),
        rows=len(labels),
        positives=positives,
    )


def calibrated(recalibration: Recalibration, scores: Vector) -> Vector:
    """The probability of each score."""
    return sigmoid(recalibration.intercept + recalibration.slope * _logit(scores))


def slope_interval(
    labels: Vector, scores: Vector, recalibration: Recalibration, entities: ArrayLike, *, level: float
) -> Interval:
    """What a logit of the recalibrated scores means in logits of their labels: 1 where they mean what they say.

    The interval is the extent of the Wald region of intercept and slope together (Scheffe 1953; chi-square, two degrees
    of freedom): where it leaves 1 out, that region leaves out that the probabilities are calibrated. It holds the
    uncertainty of the recalibration too: the slope found is one over the one learnt (delta method).

    Raises:
        NotEnoughDataError: There are too few labels of either kind or scores that allow no fit (`recalibrate`), or
            fewer than `MIN_POSITIVES` entities, of which a covariance by entity is too small.
    """
    from scipy.special import chdtri

    if (total := len(np.unique(np.asarray(entities)))) < MIN_POSITIVES:
        raise NotEnoughDataError(f"How sure a slope is takes {MIN_POSITIVES} entities to know; there are {total}.")
    found = recalibrate(labels, calibrated(recalibration, scores), entities)
    learnt = (found.slope / recalibration.slope) ** 2 * recalibration.covariance[1][1]
    half = math.sqrt(float(chdtri(PARAMETERS, 1 - level)) * (found.covariance[1][1] + learnt))
    return Interval(
        estimate=found.slope,
        low=found.slope - half,
        high=found.slope + half,
        sample_size=len(labels),
        entities=total,
    )


def gap_of_probabilities(
    labels: Vector, scores: Vector, recalibration: Recalibration, entities: ArrayLike, *, level: float
) -> Interval:
    """Mean recalibrated score - positive rate of rows whose labels have come, with its interval.

    It holds the chance of the labels, by entity, and the uncertainty of the recalibration.

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    p = calibrated(recalibration, scores)
    found = clustered_interval(p - labels, entities, level=level)
    return _as_learnt(found, np.full_like(p, 1 / len(p)), p, scores, recalibration, level=level)


def log_loss_error(
    labels: Vector, scores: Vector, recalibration: Recalibration, entities: ArrayLike, *, level: float
) -> Interval:
    """Estimated - realised log loss of rows whose labels have come, in nats, with its interval.

    As that of an estimate, it holds the chance of the labels, here by entity, and the uncertainty of the recalibration:
    what lies beyond it neither explains.

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    p = calibrated(recalibration, scores)
    if_positive, if_negative = (log_loss_rows(np.full_like(p, label), scores) for label in (1.0, 0.0))
    expected = p * if_positive + (1 - p) * if_negative
    found = clustered_interval(expected - log_loss_rows(labels, scores), entities, level=level)
    return _as_learnt(found, (if_positive - if_negative) / len(p), p, scores, recalibration, level=level)


def estimate_metrics(
    scores: Vector, recalibration: Recalibration, entities: ArrayLike, *, level: float
) -> dict[Metric, Measured | None]:
    """The expected metrics of rows without labels, each with an interval that the realised value lies in.

    Two things make the interval: that the labels of these rows are drawn, and that the recalibration was learnt from a
    holdout. Rows of one entity count as if they all went the same way, so with repeated questions it is rather wide.
    The AUC is the ratio of expected pairs; None where no row may be positive, or none negative.

    Raises:
        NotEnoughDataError: There is no row.
    """
    if len(scores) == 0:
        raise NotEnoughDataError("Without a prediction there is nothing to estimate.")
    p = calibrated(recalibration, scores)
    z = NormalDist().inv_cdf((1 + level) / 2)
    found: dict[Metric, Measured | None] = {}
    for metric, expected in _expectations(scores, p).items():
        if expected is None:
            found[metric] = None
            continue
        half = z * _standard_error(expected.slope, p, scores, recalibration, entities)
        low, high = _bounds(metric)
        value = expected.value
        found[metric] = Measured(estimate=value, low=max(low, value - half), high=min(high, value + half))
    return found


def expected_confusion(scores: Vector, recalibration: Recalibration, *, threshold: float) -> Confusion:
    """Expected counts of right and wrong decisions where one acts at scores of at least the threshold.

    >>> exact = Recalibration(intercept=0, slope=1, covariance=((0, 0), (0, 0)), rows=1, positives=1)
    >>> found = expected_confusion(np.array([0.2, 0.8]), exact, threshold=0.5)
    >>> [round(n, 6) for n in (found.true_positives, found.false_positives, found.false_negatives)]
    [0.8, 0.2, 0.2]
    """
    p, acts = calibrated(recalibration, scores), scores >= threshold
    return Confusion(
        threshold=threshold,
        true_positives=float(p[acts].sum()),
        false_positives=float((1 - p)[acts].sum()),
        false_negatives=float(p[~acts].sum()),
        true_negatives=float((1 - p)[~acts].sum()),
    )


def _expectations(scores: Vector, p: Vector) -> dict[Metric, _Expected | None]:
    n, clipped = len(scores), np.clip(scores, CLIP, 1 - CLIP)
    if_positive, if_negative = -np.log(clipped), -np.log1p(-clipped)
    return {
        Metric.LOG_LOSS: _Expected(
            value=float(np.mean(p * if_positive + (1 - p) * if_negative)), slope=(if_positive - if_negative) / n
        ),
        Metric.BRIER: _Expected(
            value=float(np.mean(p * (1 - scores) ** 2 + (1 - p) * scores**2)), slope=(1 - 2 * scores) / n
        ),
        Metric.CALIBRATION: _Expected(value=float(np.mean(scores - p)), slope=np.full(n, -1 / n)),
        Metric.AUC: _expected_auc(scores, p),
    }


def _expected_auc(scores: Vector, p: Vector) -> _Expected | None:
    """Expected pairs ranked right over expected pairs; a row is in no pair with itself."""
    q = 1 - p
    _, place = np.unique(scores, return_inverse=True)
    with_p, with_q = np.bincount(place, weights=p), np.bincount(place, weights=q)
    q_below = (np.cumsum(with_q) - with_q)[place]
    p_above = (with_p.sum() - np.cumsum(with_p))[place]
    beaten = q_below + (with_q[place] - q) / 2
    beating = p_above + (with_p[place] - p) / 2
    pairs = p.sum() * q.sum() - float(p @ q)
    if pairs <= 0:
        return None
    value = float(p @ beaten) / pairs
    slope = (beaten - beating - value * ((q.sum() - q) - (p.sum() - p))) / pairs
    return _Expected(value=value, slope=slope)


def _standard_error(
    slope: Vector, p: Vector, scores: Vector, recalibration: Recalibration, entities: ArrayLike
) -> float:
    spread = p * (1 - p)
    _, place = np.unique(np.asarray(entities), return_inverse=True)
    of_labels = float(np.sum(np.bincount(place, weights=np.abs(slope) * np.sqrt(spread)) ** 2))
    return math.sqrt(of_labels + _variance_of_learning(slope, p, scores, recalibration))


def _as_learnt(
    found: Interval, slope: Vector, p: Vector, scores: Vector, recalibration: Recalibration, *, level: float
) -> Interval:
    """The interval of a mean of rows, wider by the uncertainty of what the probabilities were learnt from."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    learnt = _variance_of_learning(slope, p, scores, recalibration)
    half = math.hypot(found.high - found.estimate, z * math.sqrt(learnt))
    return replace(found, low=found.estimate - half, high=found.estimate + half)


def _variance_of_learning(slope: Vector, p: Vector, scores: Vector, recalibration: Recalibration) -> float:
    """Of an expected metric, for its recalibration was learnt from a holdout (delta method)."""
    pull = np.array([np.sum(slope * p * (1 - p)), np.sum(slope * p * (1 - p) * _logit(scores))])
    return float(pull @ np.array(recalibration.covariance) @ pull)


def _bounds(metric: Metric) -> tuple[float, float]:
    return {
        Metric.LOG_LOSS: (0.0, np.inf),
        Metric.BRIER: (0.0, 1.0),
        Metric.AUC: (0.0, 1.0),
        Metric.CALIBRATION: (-1.0, 1.0),
    }[metric]


def _logit(scores: Vector) -> Vector:
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    found: Vector = np.log(clipped) - np.log1p(-clipped)
    return found
