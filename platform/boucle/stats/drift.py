"""How far two distributions are apart, from their histograms alone."""

import math
from collections.abc import Mapping
from statistics import NormalDist

import numpy as np

from boucle.contracts.profile import Histogram
from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector

PRIOR_COUNT = 0.5
"""Added to every bin (Jeffreys' prior): an empty bin must not make the index infinite."""


def psi(reference: Histogram, current: Histogram) -> float:
    """The population stability index, sum over bins of (p - q) * log(p / q): Kullback and Leibler's J divergence.

    Missing values are a bin of their own when either side has any; each bin gets `PRIOR_COUNT` more. Bins that are
    empty on both sides do not count. Rules of thumb for large samples: below 0.1 little, above 0.25 a lot.

    Raises:
        ValueError: The histograms are on different edges.
        NotEnoughDataError: One of them is empty.
    """
    expected, seen = _shared_bins(reference, current)
    p = (expected + PRIOR_COUNT) / (expected + PRIOR_COUNT).sum()
    q = (seen + PRIOR_COUNT) / (seen + PRIOR_COUNT).sum()
    return float(np.sum((p - q) * np.log(p / q)))


def psi_null_mean(reference: Histogram, current: Histogram) -> float:
    """The index to expect when nothing drifted: (bins - 1) * (1 / n + 1 / m).

    Source: Yurdakul 2018, Statistical Properties of Population Stability Index (Western Michigan University): under
    the null hypothesis the index is about (1 / n + 1 / m) times a chi-square with bins - 1 degrees of freedom.
    """
    expected, seen = _shared_bins(reference, current)
    return (len(expected) - 1) * (1 / float(expected.sum()) + 1 / float(seen.sum()))


def psi_null_quantile(reference: Histogram, current: Histogram, *, level: float = 0.99) -> float:
    """The index that is exceeded with probability 1 - level when nothing drifted; 0 with a single bin.

    The chi-square quantile is approximated by Wilson and Hilferty 1931 (within 1 per cent from 3 degrees of freedom).
    """
    expected, seen = _shared_bins(reference, current)
    freedom = len(expected) - 1
    if freedom == 0:
        return 0.0
    z = NormalDist().inv_cdf(level)
    chi_square = freedom * (1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom))) ** 3
    return chi_square * (1 / float(expected.sum()) + 1 / float(seen.sum()))


def weighted_mean(values: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    """The mean of `values` weighted by `weights` of the same names; None when the weights sum to nothing.

    Raises:
        ValueError: A value has no weight.

    >>> weighted_mean({"a": 1.0, "b": 3.0}, {"a": 3.0, "b": 1.0})
    1.5
    """
    missing = sorted(set(values) - set(weights))
    if missing:
        raise ValueError(f"No weight for {', '.join(missing)}: give every value one.")
    total = sum(weights[name] for name in values)
    if total <= 0:
        return None
    return sum(value * weights[name] for name, value in values.items()) / total


def _shared_bins(reference: Histogram, current: Histogram) -> tuple[Vector, Vector]:
    if reference.edges != current.edges:
        raise ValueError("The histograms are on different edges: build the current one on the edges of the reference.")
    if reference.total == 0 or current.total == 0:
        raise NotEnoughDataError(
            f"Drift needs values on both sides: reference has {reference.total}, current has {current.total}."
        )
    expected = np.array([*reference.counts, reference.nulls], dtype=np.float64)
    seen = np.array([*current.counts, current.nulls], dtype=np.float64)
    used = (expected + seen) > 0
    return expected[used], seen[used]
