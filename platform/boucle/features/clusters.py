"""How much less rows say that come several from one entity."""

import numpy as np
from numpy.typing import NDArray


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
