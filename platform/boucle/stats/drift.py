"""How far two distributions are apart, from their profiles alone: bins of the reference, counts on both sides.

Values of a category are its bins, else the histogram's; missing values are a bin of their own. Counts are those of so
many independent rows as the rows of each side are worth (`ColumnProfile.design_effect`). Every statistic grows with
drift. `level` is the probability with which its limit holds where nothing drifted. For distances along the axis see
`boucle.stats.distance`.
"""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import math
from collections.abc import Mapping

import numpy as np

from boucle.contracts.monitoring import DriftStatistic, StatisticName
from boucle.contracts.profile import ColumnProfile
from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector

PRIOR_COUNT = 0.5
"""Added to every bin (Jeffreys' prior): an empty bin must not make the index infinite."""
LEAST_EXPECTED = 5.0
"""Counts to expect in each bin of a chi-square test (Cochran 1954, Some Methods for Strengthening the Common Tests)."""


def psi(reference: ColumnProfile, current: ColumnProfile) -> float:
    """The population stability index, sum over bins of (p - q) * log(p / q): Kullback and Leibler's J divergence.

    Each bin gets `PRIOR_COUNT` more. Bins that are empty on both sides do not count. Rules of thumb for large samples:
    below 0.1 little, above 0.25 a lot.

    Raises:
        ValueError: The profiles are on different bins.
        NotEnoughDataError: One of them is empty.
    """
    p, q = _shares(*shared_bins(reference, current))
    return float(np.sum((p - q) * np.log(p / q)))


def psi_null_mean(reference: ColumnProfile, current: ColumnProfile) -> float:
    """The index to expect when nothing drifted: (bins - 1) * (1 / n + 1 / m).

    Source: Yurdakul 2018, Statistical Properties of Population Stability Index (Western Michigan University): under
    the null hypothesis the index is about (1 / n + 1 / m) times a chi-square with bins - 1 degrees of freedom.
    """
    expected, seen = shared_bins(reference, current)
    return (len(expected) - 1) * _scale(expected, seen)


def psi_statistic(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> DriftStatistic:
    """`psi` with the quantile and the p-value of its null law (Yurdakul 2018)."""
    expected, seen = shared_bins(reference, current)
    value, scale, freedom = psi(reference, current), _scale(expected, seen), len(expected) - 1
    return DriftStatistic(
        name=StatisticName.PSI,
        value=value,
        unit="PSI",
        limit=_chi_square_quantile(freedom, level) * scale,
        p_value=_chi_square_tail(freedom, value / scale),
        reference_n=reference.total,
        current_n=current.total,
    )


def jensen_shannon(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> DriftStatistic:
    """The Jensen-Shannon distance in [0, 1]: the root of the divergence of both sides from their mean, in bits.

    Source: Lin 1991, Divergence Measures Based on the Shannon Entropy; Endres and Schindelin 2003 (its root is a
    metric). Near 0 the divergence in nats is an eighth of the J divergence (both are chi-square to second order), hence
    its null law.
    """
    expected, seen = shared_bins(reference, current)
    p, q = expected / expected.sum(), seen / seen.sum()
    middle = (p + q) / 2
    divergence = max(0.0, (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2)
    scale, freedom = _scale(expected, seen), len(expected) - 1
    return DriftStatistic(
        name=StatisticName.JENSEN_SHANNON,
        value=math.sqrt(divergence / math.log(2)),
        unit="distance from 0 to 1",
        limit=math.sqrt(_chi_square_quantile(freedom, level) * scale / 8 / math.log(2)),
        p_value=_chi_square_tail(freedom, 8 * divergence / scale),
        reference_n=reference.total,
        current_n=current.total,
    )


def chi_square(reference: ColumnProfile, current: ColumnProfile, *, level: float) -> DriftStatistic:
    """Pearson's test of homogeneity of two samples over the bins; bins with few rows are taken together.

    Source: Pearson 1900; two samples as in Cramér 1946, Mathematical Methods of Statistics, 30.6. Which bins are taken
    together follows from the sums of both samples, so it does not favour either.
    """
    expected, seen = _pooled(*shared_bins(reference, current))
    n, m = expected.sum(), seen.sum()
    value = float(np.sum((math.sqrt(m / n) * expected - math.sqrt(n / m) * seen) ** 2 / (expected + seen)))
    freedom = len(expected) - 1
    return DriftStatistic(
        name=StatisticName.CHI_SQUARE,
        value=value,
        unit=f"chi-square, {freedom} degrees of freedom",
        limit=_chi_square_quantile(freedom, level),
        p_value=_chi_square_tail(freedom, value),
        reference_n=reference.total,
        current_n=current.total,
    )


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


def shared_bins(reference: ColumnProfile, current: ColumnProfile) -> tuple[Vector, Vector]:
    """Counts of both sides in the bins that either uses, as independent rows.

    Raises:
        ValueError: The profiles are on different bins.
        NotEnoughDataError: One of them is empty.
    """
    if reference.places != current.places or len(reference.counts) != len(current.counts):
        raise ValueError("The profiles are on different bins: build the current one on those of the reference.")
    if reference.total == 0 or current.total == 0:
        raise NotEnoughDataError(
            f"Drift needs values on both sides: reference has {reference.total}, current has {current.total}."
        )
    expected = np.array(reference.counts, dtype=np.float64) / reference.design_effect
    seen = np.array(current.counts, dtype=np.float64) / current.design_effect
    used = (expected + seen) > 0
    return expected[used], seen[used]


def _shares(expected: Vector, seen: Vector) -> tuple[Vector, Vector]:
    return (
        (expected + PRIOR_COUNT) / (expected + PRIOR_COUNT).sum(),
        (seen + PRIOR_COUNT) / (seen + PRIOR_COUNT).sum(),
    )


def _scale(expected: Vector, seen: Vector) -> float:
    return 1 / float(expected.sum()) + 1 / float(seen.sum())


def _relative_entropy(p: Vector, q: Vector) -> float:
    used = p > 0
    return float(np.sum(p[used] * np.log(p[used] / q[used])))


def _pooled(expected: Vector, seen: Vector) -> tuple[Vector, Vector]:
    """Bins where the smaller sample has to expect fewer than `LEAST_EXPECTED` rows become one, with more if needed."""
    both = expected + seen
    least = both * min(expected.sum(), seen.sum()) / both.sum()
    order = np.argsort(least, kind="stable")
    sums = np.cumsum(least[order])
    few = int(np.count_nonzero(least < LEAST_EXPECTED))
    if few == 0:
        return expected, seen
    together = max(few, int(np.searchsorted(sums, LEAST_EXPECTED)) + 1)
    rare, kept = order[:together], order[together:]
    return np.append(expected[kept], expected[rare].sum()), np.append(seen[kept], seen[rare].sum())


def _chi_square_quantile(freedom: int, level: float) -> float:
    from scipy.special import chdtri

    return float(chdtri(freedom, 1 - level)) if freedom > 0 else 0.0


def _chi_square_tail(freedom: int, value: float) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(freedom, value)) if freedom > 0 else 1.0
