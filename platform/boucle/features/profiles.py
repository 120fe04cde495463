"""Mergeable profiles of columns: counts on bins that a reference fixed once, and moments."""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import pairwise
from typing import TypeGuard

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boucle.contracts.profile import Categories, ColumnDetails, ColumnProfile, Histogram, Moments, ValueCount
from boucle.errors import NotEnoughDataError
from boucle.features.clusters import design_effect, heard

MAX_CATEGORIES = 20
"""A column with at most so many values in the reference is counted by value."""
LARGEST = 1e150
"""Beyond it a value counts as infinite: its square has no double."""
FREQUENT_SHARE = 0.1
_SAMPLE = 4_096
Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


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
    column = np.asarray(values, dtype=np.float64)
    present = _present(column)
    return _histogram(edges, _bins(present, edges), nulls=len(column) - len(present))


def profile_column(
    values: ArrayLike,
    edges: Sequence[float],
    categories: Sequence[float] = (),
    *,
    is_ordered: bool = True,
    entities: Codes | None = None,
) -> ColumnProfile:
    """The profile of a column on fixed bins.

    Args:
        values: NaN is counted as missing.
        edges: Of the histogram, strictly increasing.
        categories: Values to count one by one, ascending; none where the column has many.
        is_ordered: Whether those values are numbers, not places in a list of names.
        entities: Whom each row is about, numbered from 0; without them each row is about another one. Rows of an
            entity beyond its share are left out (`boucle.features.clusters.heard`).
    """
    column, entities = _heard(np.asarray(values, dtype=np.float64), entities)
    present = _present(column)
    bins = _bins(present, edges)
    below, above = present < -LARGEST, present > LARGEST
    infinite = int(np.count_nonzero(below)), int(np.count_nonzero(above))
    usable = ~(below | above) if any(infinite) else slice(None)
    finite, finite_bins = present[usable], bins[usable]
    sums = np.bincount(finite_bins, weights=finite, minlength=len(edges) + 1)
    return ColumnProfile(
        histogram=_histogram(edges, bins, nulls=len(column) - len(present)),
        details=ColumnDetails(
            sums=tuple(sums.tolist()),
            infinite=infinite,
            moments=_moments(finite),
            frequent=_frequent(finite, len(column)),
            categories=_categories(present, categories, is_ordered=is_ordered) if len(categories) else None,
            design_effect=design_effect(_places(column, edges, categories), entities) if _repeats(entities) else 1.0,
        ),
    )


def profile_reference(
    values: ArrayLike, bins: int, declared: Sequence[float] = (), *, entities: Codes | None = None
) -> ColumnProfile:
    """The profile that fixes the bins of a column: `bins` quantiles, and values where they are declared or few.

    A column that is missing altogether has one edge, so that any value it gets later is drift.
    """
    column, entities = _heard(np.asarray(values, dtype=np.float64), entities)
    finite = column[np.abs(column) <= LARGEST]
    found = np.unique(finite)
    few = tuple(float(value) for value in found) if len(found) <= MAX_CATEGORIES else ()
    edges = quantile_edges(finite, bins) if len(finite) else (0.0,)
    return profile_column(column, edges, tuple(declared) or few, is_ordered=not declared, entities=entities)


def profile_like(values: ArrayLike, reference: ColumnProfile, *, entities: Codes | None = None) -> ColumnProfile:
    """The profile of a column on the bins of its reference."""
    known = reference.categories
    return profile_column(
        values,
        reference.histogram.edges,
        known.values if known else (),
        is_ordered=known.is_ordered if known else True,
        entities=entities,
    )


def profile_columns(
    columns: Mapping[str, ArrayLike], reference: Mapping[str, ColumnProfile], *, entities: Codes | None = None
) -> dict[str, ColumnProfile]:
    """A profile of each column of `reference`, on its bins.

    Raises:
        ValueError: A column of the reference is not there; a column that vanished is not a column without drift.
    """
    missing = sorted(set(reference) - set(columns))
    if missing:
        raise ValueError(f"The window has no column {', '.join(missing)}, which the reference profile has.")
    return {name: profile_like(columns[name], profile, entities=entities) for name, profile in reference.items()}


def merge_histograms(first: Histogram, second: Histogram) -> Histogram:
    """The histogram of both windows together.

    Raises:
        ValueError: They are on different edges.
    """
    if first.edges != second.edges:
        raise ValueError("Only histograms on the same edges can be merged.")
    return Histogram(edges=first.edges, counts=_added(first.counts, second.counts), nulls=first.nulls + second.nulls)


def merge_moments(first: Moments | None, second: Moments | None) -> Moments | None:
    """The moments of both windows together (Chan, Golub and LeVeque 1979, Updating Formulae, eq. 2.1)."""
    if first is None or second is None:
        return first or second
    n, delta = first.n + second.n, second.mean - first.mean
    return Moments(
        n=n,
        mean=first.mean + delta * second.n / n,
        m2=first.m2 + second.m2 + delta**2 * first.n * second.n / n,
        minimum=min(first.minimum, second.minimum),
        maximum=max(first.maximum, second.maximum),
    )


def merge_columns(first: ColumnProfile, second: ColumnProfile) -> ColumnProfile:
    """The profile of both windows together; details only where both have them.

    Counts are exact. Sums and moments are exact but for rounding. Of `frequent` see `ColumnDetails`.

    Raises:
        ValueError: They are on different bins.
    """
    one, other = first.details, second.details
    if one is None or other is None:
        return ColumnProfile(histogram=merge_histograms(first.histogram, second.histogram))
    rows = first.total + second.total
    effect = (first.total * one.design_effect + second.total * other.design_effect) / rows if rows else 1.0
    return ColumnProfile(
        histogram=merge_histograms(first.histogram, second.histogram),
        details=_merged_details(one, other).model_copy(update={"design_effect": effect}),
    )


def merge_profiles(profiles: Sequence[Mapping[str, ColumnProfile]]) -> dict[str, ColumnProfile]:
    """The profiles of all windows together, by column.

    Raises:
        ValueError: There is none, or they are of different columns or bins.
    """
    if not profiles or len({frozenset(profile) for profile in profiles}) > 1:
        raise ValueError(f"Profiles to merge must be of the same columns, at least one of them; {len(profiles)} given.")
    return {name: reduce(merge_columns, (profile[name] for profile in profiles)) for name in profiles[0]}


def _present(column: Floats) -> Floats:
    missing = np.isnan(column)
    return column[~missing] if missing.any() else column


def _bins(present: Floats, edges: Sequence[float]) -> NDArray[np.intp]:
    if len(edges) == 0 or any(low >= high for low, high in pairwise(edges)):
        raise ValueError("Edges must be given and increase strictly.")
    return np.searchsorted(np.asarray(edges, dtype=np.float64), present, side="right")


def _heard(column: Floats, entities: Codes | None) -> tuple[Floats, Codes | None]:
    """The rows that count, and whom they are about."""
    places = heard(entities) if _repeats(entities) else None
    return (column, entities) if places is None or entities is None else (column[places], entities[places])


def _repeats(entities: Codes | None) -> TypeGuard[Codes]:
    """Whether any entity has more than one row: numbered from 0 without a gap, they are then fewer than the rows."""
    return entities is not None and len(entities) > 0 and int(entities.max()) + 1 < len(entities)


def _places(column: Floats, edges: Sequence[float], categories: Sequence[float]) -> Codes:
    """The bin of each row as tests count them: by value where there are few, else by edges; missing values have one."""
    missing = np.isnan(column)
    if len(categories):
        known = np.asarray(categories, dtype=np.float64)
        place = np.minimum(np.searchsorted(known, column), len(known) - 1)
        place[known[place] != column] = len(known)
        return np.where(missing, len(known) + 1, place)
    return np.where(missing, len(edges) + 1, np.searchsorted(np.asarray(edges, dtype=np.float64), column, side="right"))


def _histogram(edges: Sequence[float], bins: NDArray[np.intp], *, nulls: int) -> Histogram:
    counts = np.bincount(bins, minlength=len(edges) + 1)
    return Histogram(edges=tuple(float(edge) for edge in edges), counts=tuple(counts.tolist()), nulls=nulls)


def _moments(finite: Floats) -> Moments | None:
    if len(finite) == 0:
        return None
    mean = float(finite.mean())
    centred = finite - mean
    return Moments(
        n=len(finite),
        mean=mean,
        m2=float(np.dot(centred, centred)),
        minimum=float(finite.min()),
        maximum=float(finite.max()),
    )


def _frequent(finite: Floats, rows: int) -> tuple[ValueCount, ...]:
    """Exact counts of the values that a tenth of the rows have; of many rows, candidates come from evenly spaced ones.

    A value of a tenth of the rows is less than a twentieth of 4,096 of them with a probability below 1e-25.
    """
    sample = finite[:: max(1, len(finite) // _SAMPLE)]
    values, counts = np.unique(sample, return_counts=True)
    candidates = values[counts >= FREQUENT_SHARE / 2 * len(sample)]
    found = [(float(value), int(np.count_nonzero(finite == value))) for value in candidates]
    return tuple(ValueCount(value=value, count=n) for value, n in found if n >= FREQUENT_SHARE * rows)


def _categories(present: Floats, values: Sequence[float], *, is_ordered: bool) -> Categories:
    known = np.asarray(values, dtype=np.float64)
    place = np.minimum(np.searchsorted(known, present), len(known) - 1)
    counts = np.bincount(place[known[place] == present], minlength=len(known))
    return Categories(
        values=tuple(known.tolist()),
        counts=tuple(counts.tolist()),
        other=len(present) - int(counts.sum()),
        is_ordered=is_ordered,
    )


def _merged_details(first: ColumnDetails, second: ColumnDetails) -> ColumnDetails:
    counts: dict[float, int] = {}
    for known in (*first.frequent, *second.frequent):
        counts[known.value] = counts.get(known.value, 0) + known.count
    return ColumnDetails(
        sums=tuple(a + b for a, b in zip(first.sums, second.sums, strict=True)),
        infinite=(first.infinite[0] + second.infinite[0], first.infinite[1] + second.infinite[1]),
        moments=merge_moments(first.moments, second.moments),
        frequent=tuple(ValueCount(value=value, count=n) for value, n in sorted(counts.items())),
        categories=_merged_categories(first.categories, second.categories),
    )


def _merged_categories(first: Categories | None, second: Categories | None) -> Categories | None:
    if first is None and second is None:
        return None
    if first is None or second is None or first.values != second.values:
        raise ValueError("Only categories of the same values can be merged.")
    return Categories(
        values=first.values,
        counts=_added(first.counts, second.counts),
        other=first.other + second.other,
        is_ordered=first.is_ordered,
    )


def _added(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))
