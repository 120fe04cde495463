"""What became known of scores, as sums that merge: by score, and with intervals that respect entities."""

from collections.abc import Sequence
from functools import reduce
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.contracts.profile import CalibrationProfile, ClusterSums
from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector, log_loss_rows


def build_calibration(
    labels: Vector, scores: Vector, entities: ArrayLike, edges: Sequence[float]
) -> CalibrationProfile:
    """The profile of labelled scores on the score bins `edges` (as those of a histogram).

    Args:
        labels: 0 or 1.
        scores: Finite, in the same order.
        entities: Whom each row is about.
        edges: Strictly increasing.
    """
    if len(edges) == 0 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("Edges must be given and increase strictly.")
    codes = np.unique(np.asarray(entities), return_inverse=True)[1] if len(labels) else np.empty(0, dtype=np.intp)
    bins = np.searchsorted(np.asarray(edges, dtype=np.float64), scores, side="right")
    losses = log_loss_rows(labels, scores) if len(labels) else np.empty(0)
    sizes = np.bincount(codes).astype(np.float64)
    by_bin = [np.bincount(bins, weights=values, minlength=len(edges) + 1) for values in (labels, scores, losses)]
    return CalibrationProfile(
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(np.bincount(bins, minlength=len(edges) + 1).tolist()),
        positives=tuple(int(count) for count in by_bin[0]),
        score_sums=tuple(by_bin[1].tolist()),
        loss_sums=tuple(by_bin[2].tolist()),
        entities=len(sizes),
        sizes_squared=float(np.dot(sizes, sizes)),
        gap=_clusters(codes, scores - labels, sizes),
        loss=_clusters(codes, losses, sizes),
    )


def merge_calibration(profiles: Sequence[CalibrationProfile]) -> CalibrationProfile:
    """The profile of all windows together; counts are exact, sums but for rounding.

    Raises:
        ValueError: There is none, or they are on different score bins.
    """
    if not profiles or len({profile.edges for profile in profiles}) > 1:
        raise ValueError(f"Only profiles on the same score bins can be merged, at least one; {len(profiles)} given.")
    return reduce(_merged, profiles)


def calibration_gap(known: CalibrationProfile, *, level: float) -> Interval:
    """Mean score - positive rate with a normal interval from whole entities.

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    return _interval(known, known.gap, sum(known.score_sums) - sum(known.positives), level=level)


def mean_log_loss(known: CalibrationProfile, *, level: float) -> Interval:
    """The mean log loss in nats with a normal interval from whole entities.

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    return _interval(known, known.loss, sum(known.loss_sums), level=level)


def log_loss_increase(known: CalibrationProfile, reference: CalibrationProfile, *, level: float) -> Interval:
    """Mean log loss minus that of the reference in nats, with the interval of two independent samples.

    Raises:
        NotEnoughDataError: A side has fewer than two entities.
    """
    now, then = (mean_log_loss(profile, level=level) for profile in (known, reference))
    half = float(np.hypot(now.high - now.estimate, then.high - then.estimate))
    increase = now.estimate - then.estimate
    return Interval(
        estimate=increase,
        low=increase - half,
        high=increase + half,
        sample_size=now.sample_size,
        entities=now.entities,
    )


def _clusters(codes: ArrayLike, values: Vector, sizes: Vector) -> ClusterSums:
    sums = np.bincount(np.asarray(codes), weights=values, minlength=len(sizes))
    return ClusterSums(squares=float(np.dot(sums, sums)), by_size=float(np.dot(sums, sizes)))


def _interval(known: CalibrationProfile, clusters: ClusterSums, total: float, *, level: float) -> Interval:
    """Cochran 1977, Sampling Techniques, 6.3 (variance of a ratio of totals over clusters), written as sums."""
    if known.entities < 2:
        raise NotEnoughDataError(f"An interval needs at least two entities, there is {known.entities}.")
    n, mean = known.rows, total / known.rows
    squares = clusters.squares - 2 * mean * clusters.by_size + mean**2 * known.sizes_squared
    spread = float(np.sqrt(known.entities / (known.entities - 1) * max(squares, 0.0))) / n
    half = NormalDist().inv_cdf((1 + level) / 2) * spread
    return Interval(estimate=mean, low=mean - half, high=mean + half, sample_size=n, entities=known.entities)


def _merged(first: CalibrationProfile, second: CalibrationProfile) -> CalibrationProfile:
    return CalibrationProfile(
        edges=first.edges,
        counts=tuple(a + b for a, b in zip(first.counts, second.counts, strict=True)),
        positives=tuple(a + b for a, b in zip(first.positives, second.positives, strict=True)),
        score_sums=tuple(a + b for a, b in zip(first.score_sums, second.score_sums, strict=True)),
        loss_sums=tuple(a + b for a, b in zip(first.loss_sums, second.loss_sums, strict=True)),
        entities=first.entities + second.entities,
        sizes_squared=first.sizes_squared + second.sizes_squared,
        gap=_added(first.gap, second.gap),
        loss=_added(first.loss, second.loss),
    )


def _added(first: ClusterSums, second: ClusterSums) -> ClusterSums:
    return ClusterSums(squares=first.squares + second.squares, by_size=first.by_size + second.by_size)
