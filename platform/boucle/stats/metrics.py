"""How good scores are: proper losses, ranking and calibration. Labels are 0 or 1, scores probabilities of 1."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from boucle.contracts.evidence import ModelMetrics
from boucle.contracts.measuring import CostMatrix
from boucle.errors import NotEnoughDataError

Vector = NDArray[np.float64]

CLIP = 1e-15
"""Scores are clipped to [CLIP, 1 - CLIP] before a logarithm is taken: a certain and wrong answer costs 34.5 nats."""


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Rows with neighbouring scores: what they were given and what came of them."""

    mean_score: float
    positive_rate: float
    count: int


def log_loss_rows(labels: Vector, scores: Vector) -> Vector:
    """The log loss of each row, in nats: -log of the probability given to what happened, clipped by `CLIP`."""
    _check(labels, scores)
    clipped = np.clip(scores, CLIP, 1 - CLIP)
    return -np.where(labels == 1, np.log(clipped), np.log1p(-clipped))


def log_loss(labels: Vector, scores: Vector) -> float:
    """The mean log loss in nats.

    >>> round(log_loss(np.array([1.0, 0.0]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    return float(log_loss_rows(labels, scores).mean())


def brier(labels: Vector, scores: Vector) -> float:
    """The mean squared difference between score and label (Brier 1950)."""
    _check(labels, scores)
    return float(np.mean((scores - labels) ** 2))


def calibration_error(labels: Vector, scores: Vector) -> float:
    """Mean score - positive rate: above 0 the model promises too much."""
    _check(labels, scores)
    return float(scores.mean() - labels.mean())


def cost_rows(labels: Vector, scores: Vector, costs: CostMatrix) -> Vector:
    """What each row costs when one acts wherever acting is expected to cost less, in the unit of the matrix.

    >>> costs = CostMatrix(false_positive=1, false_negative=4, unit="EUR")
    >>> cost_rows(np.array([1.0, 1.0, 0.0]), np.array([0.19, 0.2, 0.2]), costs).tolist()
    [4.0, 0.0, 1.0]
    """
    _check(labels, scores)
    acted = scores >= costs.threshold
    missed = np.where(~acted & (labels == 1), costs.false_negative, 0.0)
    return missed + np.where(acted & (labels == 0), costs.false_positive, 0.0)


def auc(labels: Vector, scores: Vector) -> float:
    """The chance that a positive row scores above a negative one, ties counting half (Mann and Whitney 1947).

    Raises:
        NotEnoughDataError: All labels are equal.
    """
    _check(labels, scores)
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        raise NotEnoughDataError(f"AUC needs both outcomes; {positives} of {len(labels)} rows are positive.")
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2
    rank_sum = float(mean_rank[place][labels == 1].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def model_metrics(labels: Vector, scores: Vector) -> ModelMetrics:
    """All metrics of one set of scores."""
    return ModelMetrics(
        log_loss=log_loss(labels, scores),
        auc=auc(labels, scores),
        brier=brier(labels, scores),
        calibration_error=calibration_error(labels, scores),
        mean_score=float(scores.mean()),
    )


def reliability_curve(labels: Vector, scores: Vector, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Score bins of about equal size, lowest first; rows with equal scores share a bin, so there may be fewer."""
    _check(labels, scores)
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, bins + 1)))[1:-1]
    place = np.searchsorted(edges, scores, side="left")
    return tuple(
        ReliabilityBin(
            mean_score=float(scores[place == index].mean()),
            positive_rate=float(labels[place == index].mean()),
            count=int((place == index).sum()),
        )
        for index in np.unique(place)
    )


def _check(labels: Vector, scores: Vector) -> None:
    if len(labels) != len(scores):
        raise ValueError(f"{len(labels)} labels and {len(scores)} scores: give one score for each label.")
    if len(labels) == 0:
        raise NotEnoughDataError("There is no labelled row to measure anything on.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError("Labels must be 0 or 1, none missing.")
