"""How predictions did whose outcome is known by now."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.stats.intervals import calibration_interval, log_loss_interval
from boucle.stats.metrics import Vector


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What is known of the served predictions of one window; None where there are fewer than two labelled entities."""

    labelled: int
    positives: int
    calibration: Interval | None
    log_loss: Interval | None


def measure_outcomes(
    labels: Vector, scores: Vector, entities: ArrayLike, *, seed: int, level: float = 0.95
) -> Outcomes:
    """Calibration and log loss of served predictions with intervals by entity.

    Args:
        labels: 0 or 1, of the predictions whose label is mature.
        scores: What was answered, in the same order.
        entities: Whom each prediction is about.
        seed: Same seed, same intervals.
        level: Coverage of the intervals.
    """
    if len(np.unique(np.asarray(entities))) < 2:
        return Outcomes(labelled=len(labels), positives=int(labels.sum()), calibration=None, log_loss=None)
    return Outcomes(
        labelled=len(labels),
        positives=int(labels.sum()),
        calibration=calibration_interval(labels, scores, entities, seed=seed, level=level),
        log_loss=log_loss_interval(labels, scores, entities, seed=seed, level=level),
    )
