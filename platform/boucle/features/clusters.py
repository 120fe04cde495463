"""How much less rows say that come several from one entity, and how many rows of one are heard at all."""

import numpy as np
from numpy.typing import NDArray

MOST_SHARE, MOST_TIMES = 1 / 500, 10
"""Of the rows that count, one entity has at most this share, or so many times its even share where that is more. They
are then worth at least 500 of different entities, or a tenth of as many as there are where that is less (Kish's effect
is at most the rows of the largest). A share is the same in a day and in a year, unlike a number of rows."""


def heard(entities: NDArray[np.intp]) -> NDArray[np.intp] | None:
    """The places of the rows that count, in their order; None where all do.

    Of an entity with more than its share evenly spaced ones count; every entity keeps at least one.

    Args:
        entities: Whom each row is about, as numbers from 0 without a gap, [rows].
    """
    sizes = np.bincount(entities)
    share = max(MOST_SHARE, MOST_TIMES / max(len(sizes), 1))
    if len(entities) == 0 or sizes.max() <= share * len(entities):
        return None
    most = _most_rows(sizes, share)
    chatty = np.flatnonzero(sizes[entities] > most)
    chatty = chatty[np.argsort(entities[chatty], kind="stable")]
    of, begins = np.unique(entities[chatty], return_index=True)
    asked = sizes[of].repeat(sizes[of])
    rank = np.arange(len(chatty)) - begins.repeat(sizes[of])
    counts = np.ones(len(entities), dtype=np.bool_)
    counts[chatty] = (rank + 1) * most // asked > rank * most // asked
    return np.flatnonzero(counts)


def _most_rows(sizes: NDArray[np.intp], share: float) -> int:
    """The most rows of an entity that are no more than its share of the rows that are left with it."""
    rest, most = float(sizes.sum()), 1.0
    for cut, size in enumerate(np.sort(sizes)[::-1]):
        most = share * rest / (1 - share * cut)
        if size <= most:
            break
        rest -= float(size)
    return max(1, int(most))


def design_effect(bins: NDArray[np.intp], entities: NDArray[np.intp]) -> float:
    """How many times as much the shares of bins vary as those of as many independent rows; at least 1.

    The largest effect of any bin, by the spread of whole entities (Rao and Scott 1981, The Analysis of Categorical
    Data from Complex Sample Surveys), but no more than if all rows of an entity were alike (Kish 1965, Survey
    Sampling, 8.2): in a bin with few rows one entity alone would say more. With k equal rows of each entity it is k,
    and about 1 where the rows of an entity are no more alike than those of others.

    Args:
        bins: The bin of each row, [rows].
        entities: Whom each row is about, as numbers from 0 without a gap, [rows].
    """
    rows = len(bins)
    sizes = np.bincount(entities, minlength=1).astype(np.float64)
    clusters = len(sizes)
    if rows in {0, clusters}:
        return 1.0
    if clusters == 1:
        return float(rows)
    alike = float(np.dot(sizes, sizes)) / rows
    used, place = np.unique(bins, return_inverse=True)
    if len(used) == 1:
        return alike
    pairs, counts = np.unique(entities * len(used) + place, return_counts=True)
    entity, bin_of = np.divmod(pairs, len(used))
    shares = np.bincount(place) / rows
    squares = np.bincount(bin_of, weights=counts.astype(np.float64) ** 2)
    by_size = np.bincount(bin_of, weights=counts * sizes[entity])
    spread = squares - 2 * shares * by_size + shares**2 * (alike * rows)
    effects = clusters / (clusters - 1) * spread / (rows * shares * (1 - shares))
    return max(1.0, min(alike, float(effects.max())))
