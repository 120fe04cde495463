"""What scores lose for want of calibration: the part of the log loss that a new intercept and slope would mend."""

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.errors import NotEnoughDataError
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import Vector, log_loss_rows

PARAMETERS = 2
"""Intercept and slope."""
ITERATIONS = 25
NARROW = 1e-6
"""Scores are clipped to [NARROW, 1 - NARROW] before their logit is taken."""


def recalibrated(labels: Vector, scores: Vector) -> Vector:
    """Scores after logistic recalibration, logit p' = a + b logit p, with the a and b most likely for these labels.

    Source: Cox 1958, Two Further Applications of a Model for Binary Regression, Biometrika 45; by Newton's method.

    Raises:
        NotEnoughDataError: All labels are equal: no slope fits them best.
    """
    if len(set(labels.tolist())) < 2:
        raise NotEnoughDataError(f"Recalibration needs both outcomes; the {len(labels)} labels are all equal.")
    clipped = np.clip(scores, NARROW, 1 - NARROW)
    design = np.column_stack([np.ones_like(clipped), np.log(clipped) - np.log1p(-clipped)])
    if np.ptp(design[:, 1]) == 0:
        return np.full_like(scores, labels.mean())
    weights = np.array([0.0, 1.0])
    for _ in range(ITERATIONS):
        fitted = _sigmoid(design @ weights)
        curvature = design.T @ (design * (fitted * (1 - fitted))[:, None])
        step = np.linalg.lstsq(curvature, design.T @ (labels - fitted), rcond=None)[0]
        weights = weights + np.clip(step, -2.0, 2.0)
        if np.abs(step).max() < 1e-9:
            break
    return _sigmoid(design @ weights)


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


def _sigmoid(values: Vector) -> Vector:
    return 1 / (1 + np.exp(-np.clip(values, -500, 500)))
