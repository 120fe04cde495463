"""Mergeable profiles of columns: histograms on edges that a reference fixed once."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.profile import Histogram
from boucle.errors import NotEnoughDataError


def quantile_edges(values: ArrayLike, bins: int) -> tuple[float, ...]:
    """Edges of `bins` bins with about equal counts, from the smallest finite value to the largest; duplicates collapse.

    Raises:
        NotEnoughDataError: There is no finite value.

    >>> quantile_edges([1, 2, 3, 4, 5], 2)
    (1.0, 3.0, 5.0)
    """
    if bins < 1:
        raise ValueError(f"A histogram needs at least one bin, not {bins}.")
    column = np.asarray(values, dtype=np.float64)
    finite = column[np.isfinite(column)]
    if len(finite) == 0:
        raise NotEnoughDataError("Edges need at least one value that is neither missing nor infinite.")
    return tuple(float(edge) for edge in np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1))))


def build_histogram(values: ArrayLike, edges: Sequence[float]) -> Histogram:
    """Counts of `values` on `edges`; NaN is counted as missing, infinite values fall into the outer bins.

    >>> build_histogram([0.5, 1.0, 2.5, float("nan")], (1.0, 2.0))
    Histogram(edges=(1.0, 2.0), counts=(1, 1, 1), nulls=1)
    """
    if len(edges) == 0 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("Edges must be given and increase strictly.")
    column = np.asarray(values, dtype=np.float64)
    present = column[~np.isnan(column)]
    place = np.searchsorted(np.asarray(edges, dtype=np.float64), present, side="right")
    counts = np.bincount(place, minlength=len(edges) + 1)
    return Histogram(
        edges=tuple(float(edge) for edge in edges),
        counts=tuple(int(count) for count in counts),
        nulls=len(column) - len(present),
    )


def merge_histograms(first: Histogram, second: Histogram) -> Histogram:
    """The histogram of both windows together.

    Raises:
        ValueError: They are on different edges.
    """
    if first.edges != second.edges:
        raise ValueError("Only histograms on the same edges can be merged.")
    return Histogram(
        edges=first.edges,
        counts=tuple(a + b for a, b in zip(first.counts, second.counts, strict=True)),
        nulls=first.nulls + second.nulls,
    )


def profile_columns(columns: Mapping[str, ArrayLike], reference: Mapping[str, Histogram]) -> dict[str, Histogram]:
    """A histogram of each column of `reference`, on its edges.

    Raises:
        ValueError: A column of the reference is not there; a column that vanished is not a column without drift.
    """
    missing = sorted(set(reference) - set(columns))
    if missing:
        raise ValueError(f"The window has no column {', '.join(missing)}, which the reference profile has.")
    return {name: build_histogram(columns[name], histogram.edges) for name, histogram in reference.items()}
