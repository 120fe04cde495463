"""What scores lose for want of calibration: the part of the log loss that a new intercept and slope would mend."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boucle.contracts.facts import Interval
from boucle.errors import NotEnoughDataError
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import Vector, log_loss_rows

PARAMETERS = 2
"""Intercept and slope."""
ITERATIONS = 50
TOLERANCE = 1e-9
"""A step of intercept and slope below which the fit is done."""
NARROW = 1e-6
"""Scores are clipped to [NARROW, 1 - NARROW] before their logit is taken."""


@dataclass(frozen=True, kw_only=True)
class LogisticFit:
    """What a fit found: probabilities of the rows it was made of, and the information matrix at that place."""

    intercept: float
    slope: float
    probabilities: Vector
    information: NDArray[np.float64]
    converged: bool


def recalibrated(labels: Vector, scores: Vector) -> Vector:
    """Scores after logistic recalibration, logit p' = a + b logit p, with the a and b most likely for these labels.

    Source: Cox 1958, Two Further Applications of a Model for Binary Regression, Biometrika 45; by Newton's method.

    Raises:
        NotEnoughDataError: All labels are equal: no slope fits them best.
    """
    if len(set(labels.tolist())) < 2:
        raise NotEnoughDataError(f"Recalibration needs both outcomes; the {len(labels)} labels are all equal.")
    clipped = np.clip(scores, NARROW, 1 - NARROW)
    logits = np.log(clipped) - np.log1p(-clipped)
    if np.ptp(logits) == 0:
        return np.full_like(scores, labels.mean())
    return fit_logistic(labels, logits).probabilities


def fit_logistic(labels: Vector, logits: Vector) -> LogisticFit:
    """The most likely intercept and slope of labels by logits, by Newton's method from where every row is even.

    A step that would make the labels less likely is halved until it does not. Where logits part the labels without an
    error there is no best slope: the fit goes on to the last iteration and has not `converged`.
    """
    design = np.column_stack([np.ones_like(logits), logits])
    weights, loss, has_converged = np.zeros(PARAMETERS), np.inf, False
    step: NDArray[np.float64] = np.zeros(PARAMETERS)
    for _ in range(ITERATIONS):
        while (new := _loss(labels, design @ (weights + step))) > loss and np.abs(step).max() > TOLERANCE:
            step = step / 2
        weights, loss = weights + step, min(new, loss)
        fitted = sigmoid(design @ weights)
        information = design.T @ (design * (fitted * (1 - fitted))[:, None])
        step = np.asarray(np.linalg.lstsq(information, design.T @ (labels - fitted), rcond=None)[0], dtype=np.float64)
        if has_converged := bool(np.abs(step).max() < TOLERANCE):
            break
    return LogisticFit(
        intercept=float(weights[0]),
        slope=float(weights[1]),
        probabilities=fitted,
        information=information,
        converged=has_converged and bool(np.linalg.matrix_rank(information) == PARAMETERS),
    )


def recalibration_gain(labels: Vector, scores: Vector, entities: ArrayLike, *, level: float = 0.95) -> Interval:
    """Log loss in nats a row that recalibration saves on rows it has not seen; below 0 where there is nothing to save.

    That is the saving on the rows themselves less `PARAMETERS / n`, by which a fit of two parameters flatters itself
    (Akaike 1974: half of it in the fit, half on new rows). The interval is by entity, around that.

    Args:
        labels: 0 or 1.
        scores: Probabilities of 1, in the same order.
        entities: Whom each row is about.
        level: Coverage of the interval.

    Raises:
        NotEnoughDataError: All labels are equal, or there are fewer than two entities.
    """
    saved = log_loss_rows(labels, scores) - log_loss_rows(labels, recalibrated(labels, scores))
    return clustered_interval(saved - PARAMETERS / len(labels), entities, level=level)


def sigmoid(values: Vector) -> Vector:
    """1 / (1 + exp(-values)), without overflow."""
    small = np.exp(-np.abs(values))
    found: Vector = np.where(values >= 0, 1 / (1 + small), small / (1 + small))
    return found


def _loss(labels: Vector, logits: Vector) -> float:
    return float(np.sum(np.logaddexp(0, logits) - labels * logits))
