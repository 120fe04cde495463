"""Rows by the values of their features: where a better mean may hide that some became worse."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from boucle.contracts.facts import SliceFacts, SlicesFacts
from boucle.contracts.measuring import Slicing
from boucle.contracts.performance import SliceBins
from boucle.errors import ConfigurationError
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import Vector
from boucle.training.fit import Matrix

FEW_VALUES = 8
"""A feature with at most so many different values has a slice for each of them; others are cut into quarters."""
Mask = NDArray[np.bool_]


def slices_of(features: Matrix, names: Sequence[str], by: Sequence[str]) -> Iterator[tuple[str, Mask]]:
    """The slices by each of the features `by` (all when empty), as sentences and masks over the rows.

    Raises:
        ConfigurationError: There is no such feature.
    """
    if strange := [name for name in by if name not in names]:
        raise ConfigurationError(
            f"`slicing.by` names {', '.join(strange)}; the features are {', '.join(names)}. Nothing was measured."
        )
    for name in by or names:
        column = features[:, list(names).index(name)]
        yield from cut(slice_bins(column, name), column)


def slice_gains(
    gain: Vector, features: Matrix, names: Sequence[str], entities: ArrayLike, slicing: Slicing, *, level: float
) -> SlicesFacts:
    """The mean of `gain` in each slice of enough rows, with intervals that hold all together at `level`.

    Each of m intervals covers 1 - (1 - level) / m (Bonferroni): all are right together at `level`.
    """
    found = list(slices_of(features, names, slicing.by))
    judged = [(name, mask) for name, mask in found if int(mask.sum()) >= slicing.min_rows]
    each = 1 - (1 - level) / max(len(judged), 1)
    keys = np.asarray(entities)
    return SlicesFacts(
        judged=tuple(
            SliceFacts(name=name, gain=clustered_interval(gain[mask], keys[mask], level=each)) for name, mask in judged
        ),
        small=len(found) - len(judged),
        level=each,
    )


def slice_bins(column: Vector, name: str) -> SliceBins:
    """How the values of a feature are cut: each of few values is a slice, more are cut into quarters."""
    present = column[~np.isnan(column)]
    values = np.unique(present)
    if len(values) <= FEW_VALUES:
        return SliceBins(feature=name, values=tuple(values.tolist()))
    cuts = np.unique(np.quantile(present, [0.25, 0.5, 0.75]))
    return SliceBins(feature=name, cuts=tuple(cuts.tolist()))


def cut(bins: SliceBins, column: Vector) -> Iterator[tuple[str, Mask]]:
    """The slices of these rows by bins that may be of others; a value that was not among theirs is a slice too."""
    name, missing = bins.feature, np.isnan(column)
    if missing.any():
        yield f"{name} missing", missing
    if not bins.cuts:
        yield from ((f"{name} = {value:g}", column == value) for value in bins.values)
        if (other := ~missing & ~np.isin(column, bins.values)).any():
            yield f"{name} of another value", other
        return
    cuts = bins.cuts
    place = np.searchsorted(np.asarray(cuts), column, side="left")
    bounds = [f"up to {cuts[0]:.4g}", *(f"{a:.4g} to {b:.4g}" for a, b in pairwise(cuts))]
    for index, text in enumerate([*bounds, f"above {cuts[-1]:.4g}"]):
        yield f"{name} {text}", ~missing & (place == index)
