"""What a model's column is made of: one input column, steps of arithmetic, and at the end perhaps a look-up.

Every supported transformer works column by column, so a whole pipeline comes down to such columns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from boucle.stats.metrics import Vector


@dataclass(frozen=True, kw_only=True)
class Fill:
    """A missing value becomes `value`."""

    value: float


@dataclass(frozen=True, kw_only=True)
class Standardise:
    """x becomes (x - mean) / scale, in two operations, each rounded."""

    mean: float
    scale: float


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """x becomes x * factor + offset, in two operations, each rounded."""

    factor: float
    offset: float


@dataclass(frozen=True, kw_only=True)
class Single:
    """x is rounded to single precision."""


Step = Fill | Standardise | Stretch | Single
"""None of them decreases where x grows; `limits` relies on it."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """x becomes the value beside the key that equals it; NaN becomes `missing`, and every other number `unknown`."""

    keys: tuple[float, ...]
    values: tuple[float, ...]
    missing: float
    unknown: float


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column that a model sees: input column `source` after the steps, in their order, and then the table."""

    source: int
    steps: tuple[Step, ...] = ()
    table: Table | None = None


def then(column: Column, step: Step | Table) -> Column:
    """The column after one more step. What follows a table is computed into the table: it holds few values."""
    if column.table is not None:
        return replace(column, table=_changed(column.table, step))
    if not isinstance(step, Table):
        return replace(column, steps=(*column.steps, step))
    missing = evaluate(column.steps, np.array([np.nan])).tolist()
    return Column(
        source=column.source,
        steps=tuple(before for before in column.steps if not isinstance(before, Fill)),
        table=replace(step, missing=_after(step, missing)[0]),
    )


def evaluate(steps: Sequence[Step], values: Vector) -> Vector:
    """The values after the steps, with the same operations on doubles as scikit-learn's."""
    with np.errstate(over="ignore"):
        for step in steps:
            match step:
                case Fill(value=value):
                    values = np.where(np.isnan(values), value, values)
                case Standardise(mean=mean, scale=scale):
                    values = (values - mean) / scale
                case Stretch(factor=factor, offset=offset):
                    values = values * factor + offset
                case Single():
                    values = values.astype(np.float32).astype(np.float64)
    return values


def limits(column: Column, thresholds: Vector) -> Vector:
    """Input values beside which the answer may change, where a model compares `column` with finite `thresholds`.

    For each threshold this is the largest input value that the steps send to at most the threshold; for a table its
    keys, and a value below and above them all.
    """
    if column.table is not None:
        keys = np.array(column.table.keys)
        return _largest_at_most(column.steps, np.concatenate([keys, keys[:1] - 1.0, keys[-1:] + 1.0]))
    found = _largest_at_most(column.steps, thresholds)
    if Single() in column.steps:
        # A model that forgets to round changes its answer at the threshold itself, and so do probes beside it.
        exact = tuple(step for step in column.steps if not isinstance(step, Single))
        found = np.concatenate([found, _largest_at_most(exact, thresholds)])
    return found


def _changed(table: Table, step: Step | Table) -> Table:
    *values, missing, unknown = _after(step, [*table.values, table.missing, table.unknown])
    return Table(keys=table.keys, values=tuple(values), missing=missing, unknown=unknown)


def _after(step: Step | Table, values: list[float]) -> list[float]:
    if not isinstance(step, Table):
        return [float(value) for value in evaluate([step], np.array(values))]
    beside = dict(zip(step.keys, step.values, strict=True))
    return [step.missing if math.isnan(value) else beside.get(value, step.unknown) for value in values]


def _largest_at_most(steps: Sequence[Step], bounds: Vector) -> Vector:
    """The largest finite double that `steps` send to at most each bound, where the largest of all exceeds it."""
    if all(isinstance(step, Fill) for step in steps):
        return bounds
    most = np.finfo(np.float64).max
    lowest, highest = evaluate(steps, np.array([-most, most]))
    bounds = bounds[(bounds >= lowest) & (bounds < highest)]
    # Bisection over doubles in their order: they have as many places as int64 has numbers, so 64 halvings find it.
    low = np.full(len(bounds), _place(-most), dtype=np.int64)
    high = np.full(len(bounds), _place(most), dtype=np.int64)
    for _ in range(64):
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, rounded down, without overflow
        fits = evaluate(steps, _double(middle)) <= bounds
        low, high = np.where(fits, middle, low), np.where(fits, high, middle)
    return _double(low)


def _place(value: float) -> int:
    """The place of a double among all doubles in their order."""
    bits = int(np.float64(value).view(np.int64))
    return bits if bits >= 0 else bits ^ np.iinfo(np.int64).max


def _double(places: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> Vector:
    """The inverse of `_place`: the bits below the sign are flipped for negative numbers."""
    return np.where(places >= 0, places, places ^ np.iinfo(np.int64).max).view(np.float64)
