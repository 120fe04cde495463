"""Fitting an estimator on exactly the rows and columns that the manifest names."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector

Matrix = NDArray[np.float64]


class Classifier(Protocol):
    """What boucle asks of an estimator: scikit-learn's interface of a classifier."""

    def fit(self, X: Matrix, y: Vector) -> Self:  # noqa: N803
        """Learn from rows."""

    def predict_proba(self, X: Matrix) -> Matrix:  # noqa: N803
        """Probabilities, one column per class."""


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A fitted estimator and what fitting it cost: seconds of CPU time of this process, and of the wall clock."""

    estimator: Classifier
    cpu_seconds: float
    wall_seconds: float


def feature_matrix(rows: pd.DataFrame, feature_names: Sequence[str]) -> Matrix:
    """The features as float64 [rows, features], in the order of `feature_names`; missing values are NaN.

    Raises:
        ValueError: A feature is not a column of `rows`.
    """
    missing = [name for name in feature_names if name not in rows.columns]
    if missing:
        raise ValueError(
            f"The rows have no column {', '.join(missing)}; they have {', '.join(map(str, rows.columns))}."
        )
    return np.ascontiguousarray(rows[list(feature_names)].to_numpy(dtype=np.float64, na_value=np.nan))


def label_vector(rows: pd.DataFrame, label: str = "label") -> Vector:
    """The labels as float64, 0 or 1."""
    return rows[label].to_numpy(dtype=np.float64)


def fit(build: Callable[[int], Classifier], features: Matrix, labels: Vector, *, seed: int) -> Fitted:
    """Build the estimator with `seed` and fit it on one thread, so that the same rows give the same model everywhere.

    Raises:
        NotEnoughDataError: There is no row, or all labels are equal.
    """
    # Two threads on two busy cores took 85 s where one took 2, and sums over threads differ in the last bit.
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped, unused-ignore]

    if len(np.unique(labels)) < 2:
        raise NotEnoughDataError(
            f"Fitting needs both outcomes; {int(labels.sum())} of {len(labels)} labels are positive."
        )
    estimator = build(seed)
    cpu, wall = time.process_time(), time.perf_counter()
    with threadpool_limits(limits=1):
        estimator.fit(features, labels)
    return Fitted(estimator=estimator, cpu_seconds=time.process_time() - cpu, wall_seconds=time.perf_counter() - wall)


def predict(estimator: Classifier, features: Matrix) -> Vector:
    """The probability of label 1 for each row."""
    return np.asarray(estimator.predict_proba(features)[:, 1], dtype=np.float64)
