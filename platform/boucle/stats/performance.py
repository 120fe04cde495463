"""Realised performance of scores whose labels are known, with intervals by entity."""

from collections.abc import Callable

from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.contracts.performance import Measured, Metric
from boucle.errors import NotEnoughDataError
from boucle.stats.intervals import auc_interval, clustered_interval
from boucle.stats.metrics import Vector, log_loss_rows


def realised_metrics(
    labels: Vector, scores: Vector, entities: ArrayLike, *, level: float
) -> dict[Metric, Measured | None]:
    """Every metric with its interval from whole entities; None where the rows do not allow one.

    Labels are 0 or 1, scores probabilities; `level` is the coverage of each interval.
    """
    measures: dict[Metric, Callable[[], Interval]] = {
        Metric.LOG_LOSS: lambda: clustered_interval(log_loss_rows(labels, scores), entities, level=level),
        Metric.BRIER: lambda: clustered_interval((scores - labels) ** 2, entities, level=level),
        Metric.AUC: lambda: auc_interval(labels, scores, entities, level=level),
        Metric.CALIBRATION: lambda: clustered_interval(scores - labels, entities, level=level),
    }
    return {metric: _measured(measure) for metric, measure in measures.items()}


def _measured(measure: Callable[[], Interval]) -> Measured | None:
    try:
        found = measure()
    except NotEnoughDataError:
        return None
    return Measured(estimate=found.estimate, low=found.low, high=found.high)
