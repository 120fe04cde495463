"""How sure we are: intervals that respect that rows of one entity resemble each other."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boucle.contracts.facts import Interval
from boucle.contracts.measuring import CostMatrix
from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector, auc, cost_rows, log_loss_rows

RESAMPLES = 1_000
MAX_GROUPS = 25_000
"""More entities than this are pooled into this many random groups: groups of whole entities are independent as well,
and the width of the interval changes by about 1 / sqrt(2 * MAX_GROUPS) = 0.4 per cent."""
_CHUNK = 40


def mean_interval(
    values: Vector, entities: ArrayLike, *, seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """The mean of `values` with a percentile bootstrap interval, resampling whole entities with replacement.

    Source: Efron and Tibshirani 1993, chapter 13 (percentile); Field and Welsh 2007 (cluster bootstrap).

    Args:
        values: One value a row, such as the paired difference of two losses.
        entities: Whom each row is about; rows of one entity are drawn together.
        seed: Same seed, same interval.
        resamples: Bootstrap samples.
        level: Coverage, in (0, 1).

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    sums, counts, total = _by_entity(values, entities)
    if total < 2:
        raise NotEnoughDataError(f"An interval needs at least two entities, there is {total}.")
    rng = np.random.default_rng(seed)
    sums, counts = _pooled(sums, counts, rng)
    means = np.concatenate(
        [_resampled_means(sums, counts, rng, min(_CHUNK, resamples - done)) for done in range(0, resamples, _CHUNK)]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        estimate=float(values.mean()), low=float(low), high=float(high), sample_size=len(values), entities=total
    )


def paired_gain(
    labels: Vector, *, reference: Vector, candidate: Vector, entities: ArrayLike, seed: int, level: float = 0.95
) -> Interval:
    """Log loss of `reference` minus that of `candidate` on the same rows, in nats: above 0 the candidate is better."""
    difference = log_loss_rows(labels, reference) - log_loss_rows(labels, candidate)
    return mean_interval(difference, entities, seed=seed, level=level)


def paired_cost_gain(
    labels: Vector,
    *,
    reference: Vector,
    candidate: Vector,
    costs: CostMatrix,
    entities: ArrayLike,
    seed: int,
    level: float = 0.95,
) -> Interval:
    """Cost of the decisions by `reference` minus that by `candidate`, a row: above 0 the candidate is cheaper."""
    difference = cost_rows(labels, reference, costs) - cost_rows(labels, candidate, costs)
    return mean_interval(difference, entities, seed=seed, level=level)


def calibration_interval(
    labels: Vector, scores: Vector, entities: ArrayLike, *, seed: int, level: float = 0.95
) -> Interval:
    """Mean score - positive rate with its interval."""
    return mean_interval(scores - labels, entities, seed=seed, level=level)


def log_loss_interval(
    labels: Vector, scores: Vector, entities: ArrayLike, *, seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> Interval:
    """The mean log loss in nats with its interval."""
    return mean_interval(log_loss_rows(labels, scores), entities, seed=seed, resamples=resamples, level=level)


def clustered_interval(values: Vector, entities: ArrayLike, *, level: float) -> Interval:
    """The mean of `values` with a normal interval from whole entities: for levels so high that a bootstrap has no tail.

    Source: Cochran 1977, Sampling Techniques, 6.3 (variance of a ratio of totals over clusters, linearised).

    Raises:
        NotEnoughDataError: There are fewer than two entities.
    """
    sums, counts, total = _by_entity(values, entities)
    if total < 2:
        raise NotEnoughDataError(f"An interval needs at least two entities, there is {total}.")
    mean = float(values.mean())
    spread = float(np.sqrt(total / (total - 1) * np.sum((sums - mean * counts) ** 2)) / len(values))
    half = NormalDist().inv_cdf((1 + level) / 2) * spread
    return Interval(estimate=mean, low=mean - half, high=mean + half, sample_size=len(values), entities=total)


def normal_interval(values: Vector, *, level: float) -> Interval:
    """The mean of values that are independent of each other, with its normal interval.

    Raises:
        NotEnoughDataError: There are fewer than two values.

    >>> interval = normal_interval(np.array([0.0, 1.0, 0.0, 1.0]), level=0.95)
    >>> (interval.estimate, round(interval.low, 3), round(interval.high, 3))
    (0.5, -0.066, 1.066)
    """
    if len(values) < 2:
        raise NotEnoughDataError(f"An interval needs at least two values, there is {len(values)}.")
    mean = float(values.mean())
    half = NormalDist().inv_cdf((1 + level) / 2) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return Interval(estimate=mean, low=mean - half, high=mean + half, sample_size=len(values), entities=len(values))


def auc_interval(labels: Vector, scores: Vector, entities: ArrayLike, *, level: float) -> Interval:
    """The AUC with a normal interval from whole entities.

    Source: Obuchowski 1997, Nonparametric analysis of clustered ROC curve data (DeLong's components, by cluster).

    Raises:
        NotEnoughDataError: Fewer than two entities have a positive row, or a negative one.
    """
    estimate = auc(labels, scores)
    positive = labels == 1
    codes = np.unique(np.asarray(entities), return_inverse=True)[1]
    # Of each positive row the share of negative ones that score below it, and the other way round; ties count half.
    beats = _share_below(scores[~positive], scores[positive])
    beaten = 1 - _share_below(scores[positive], scores[~positive])
    of_positive, of_negative = np.zeros(len(labels)), np.zeros(len(labels))
    of_positive[positive], of_negative[~positive] = beats - estimate, beaten - estimate
    sums = _sum_by(codes, of_positive), _sum_by(codes, of_negative)
    counts = [len(np.unique(codes[rows])) for rows in (positive, ~positive)]
    if min(counts) < 2:
        raise NotEnoughDataError(f"The interval of an AUC needs two entities of either label; there are {counts}.")
    m, n, total = int(positive.sum()), int((~positive).sum()), int(codes.max()) + 1
    variance = (
        counts[0] / (counts[0] - 1) * float(sums[0] @ sums[0]) / m**2
        + counts[1] / (counts[1] - 1) * float(sums[1] @ sums[1]) / n**2
        + 2 * total / (total - 1) * float(sums[0] @ sums[1]) / (m * n)
    )
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(max(variance, 0.0))
    return Interval(
        estimate=estimate,
        low=max(0.0, estimate - half),
        high=min(1.0, estimate + half),
        sample_size=len(labels),
        entities=total,
    )


def wilson_interval(successes: int, trials: int, *, level: float = 0.95) -> Interval:
    """A proportion with its score interval (Wilson 1927): sensible for few trials, and at 0 and 1.

    Raises:
        NotEnoughDataError: There was no trial.

    >>> interval = wilson_interval(0, 10)
    >>> (round(interval.low, 4), round(interval.high, 4))
    (0.0, 0.2775)
    """
    if trials < 1:
        raise NotEnoughDataError("A proportion needs at least one trial.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / trials
    scale = 1 + z**2 / trials
    centre = (share + z**2 / (2 * trials)) / scale
    half = z * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)) / scale
    return Interval(
        estimate=share,
        low=0.0 if successes == 0 else centre - half,
        high=1.0 if successes == trials else centre + half,
        sample_size=trials,
        entities=trials,
    )


def _by_entity(values: Vector, entities: ArrayLike) -> tuple[Vector, Vector, int]:
    import pandas as pd

    keys = np.asarray(entities)
    if len(keys) != len(values):
        raise ValueError(f"{len(values)} values and {len(keys)} entities: give one entity for each value.")
    if not np.isfinite(values).all():
        raise ValueError("Values must be finite: a missing value is not a result.")
    codes, found = pd.factorize(keys)
    return _sum_by(codes, values), _sum_by(codes, np.ones_like(values)), len(found)


def _sum_by(codes: NDArray[np.intp], values: Vector) -> Vector:
    return np.bincount(codes, weights=values).astype(np.float64)


def _share_below(others: Vector, values: Vector) -> Vector:
    """Of each value the share of the others below it; an equal one counts half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return below / (2 * len(ordered))


def _pooled(sums: Vector, counts: Vector, rng: np.random.Generator) -> tuple[Vector, Vector]:
    if len(sums) <= MAX_GROUPS:
        return sums, counts
    group = rng.permutation(len(sums)) % MAX_GROUPS
    return _sum_by(group, sums), _sum_by(group, counts)


def _resampled_means(sums: Vector, counts: Vector, rng: np.random.Generator, resamples: int) -> Vector:
    drawn = rng.integers(0, len(sums), size=(resamples, len(sums)), dtype=np.int32)
    # Looking values up at random is what costs: with as many rows for each entity, the rows drawn need no counting.
    same = counts[0] if (counts == counts[0]).all() else None
    rows = counts[drawn].sum(axis=1) if same is None else same * len(sums)
    means: Vector = sums[drawn].sum(axis=1) / rows
    return means
