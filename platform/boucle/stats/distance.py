"""How far two distributions are apart along the axis, from their profiles: for columns whose values have an order."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import math

import numpy as np

from boucle.contracts.monitoring import DriftStatistic, StatisticName
from boucle.contracts.profile import ColumnDetails, ColumnProfile, Histogram
from boucle.stats.metrics import Vector

WASSERSTEIN_LIMIT = 0.1
"""Standard deviations of the reference; Evidently's default for its normed Wasserstein distance."""


def kolmogorov_smirnov(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> DriftStatistic | None:
    """The largest difference of the distribution functions at the edges, of values that are not missing.

    None when either side has no value. At the edges it is at most the exact one, which lies between them by less than
    the fullest bin of the reference has; so limit and p-value (Smirnov 1939, asymptotic) err on the quiet side.
    """
    from scipy.special import kolmogi, kolmogorov

    first, second = (np.array(profile.histogram.counts, dtype=np.float64) for profile in (reference, current))
    n, m = int(first.sum()), int(second.sum())
    if n == 0 or m == 0:
        return None
    value = float(np.abs(np.cumsum(first) / n - np.cumsum(second) / m).max())
    scale = math.sqrt(reference.design_effect / n + current.design_effect / m)
    return DriftStatistic(
        name=StatisticName.KOLMOGOROV_SMIRNOV,
        value=value,
        unit="share of rows",
        limit=float(kolmogi(1 - level)) * scale,
        p_value=float(kolmogorov(value / scale)),
        reference_n=n,
        current_n=m,
    )


def wasserstein(reference: ColumnProfile, current: ColumnProfile) -> DriftStatistic | None:
    """How far, on average, finite values must be moved to turn one side into the other, in SD of the reference.

    The distance of order 1 (Villani 2003, 2.2) of the two distributions that have each bin's rows at that bin's mean,
    each side at its own: exact for a shift that moves bins as a whole, and in the outer bins, however far they reach.
    None when a side has no finite value, the reference no spread, or profiles of earlier releases have no means.
    """
    first, second = reference.details, current.details
    if first is None or second is None or first.moments is None or second.moments is None:
        return None
    deviation = first.moments.deviation
    if deviation == 0:
        return None
    return DriftStatistic(
        name=StatisticName.WASSERSTEIN,
        value=_between(_atoms(reference.histogram, first), _atoms(current.histogram, second)) / deviation,
        unit="SD of the reference",
        limit=WASSERSTEIN_LIMIT,
        p_value=None,
        reference_n=first.moments.n,
        current_n=second.moments.n,
    )


def _atoms(histogram: Histogram, details: ColumnDetails) -> tuple[Vector, Vector]:
    """Where the finite rows of each bin are, and their share."""
    counts, sums = np.array(histogram.counts, dtype=np.float64), np.array(details.sums)
    counts[0] -= details.infinite[0]
    counts[-1] -= details.infinite[1]
    used = counts > 0
    return sums[used] / counts[used], counts[used] / counts[used].sum()


def _between(first: tuple[Vector, Vector], second: tuple[Vector, Vector]) -> float:
    places = np.concatenate([first[0], second[0]])
    order = np.argsort(places, kind="stable")
    difference = np.cumsum(np.concatenate([first[1], -second[1]])[order])
    return float(np.sum(np.abs(difference[:-1]) * np.diff(places[order])))
