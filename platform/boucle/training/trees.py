"""What an exportable estimator is made of: the order of its columns, a baseline and trees, as plain arrays."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.errors import ExportError
from boucle.training.fit import Matrix

SUPPORTED = (
    "a scikit-learn Pipeline of an optional 'passthrough' or ColumnTransformer with passthrough columns, and a binary "
    "HistGradientBoostingClassifier without categorical features"
)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree as parallel arrays. Node 0 is the root; a row goes left when `value <= threshold`, and NaN as told."""

    feature: NDArray[np.int64]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    is_leaf: NDArray[np.bool_]
    value: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BoostedTrees:
    """proba = sigmoid(baseline + sum of the trees) of the input columns taken in `order`."""

    feature_count: int
    order: tuple[int, ...]
    baseline: float
    trees: tuple[Tree, ...]


def describe(estimator: object, feature_count: int) -> BoostedTrees:
    """Read a fitted estimator.

    Raises:
        ExportError: It is something that boucle cannot export exactly; the error names it and says what to change.
    """
    transformers, model = _steps(estimator)
    order = tuple(range(feature_count))
    for transformer in transformers:
        order = tuple(order[column] for column in _columns(transformer, len(order)))
    boosting: Any = _boosting(model)
    if boosting.n_features_in_ != len(order):
        raise ExportError(
            f"The estimator was fitted on {boosting.n_features_in_} columns, but {len(order)} reach it. Fit it on the "
            "features of the contract, in their order. Nothing was exported."
        )
    return BoostedTrees(
        feature_count=feature_count,
        order=order,
        baseline=float(np.asarray(boosting._baseline_prediction).item()),
        trees=tuple(_tree(predictor.nodes) for (predictor,) in boosting._predictors),
    )


def thresholds(trees: BoostedTrees) -> dict[int, NDArray[np.float64]]:
    """Every finite threshold that an input column is compared with, sorted, by input column."""
    found: dict[int, list[float]] = {}
    for tree in trees.trees:
        for feature, threshold in zip(tree.feature[~tree.is_leaf], tree.threshold[~tree.is_leaf], strict=True):
            if np.isfinite(threshold):
                found.setdefault(trees.order[feature], []).append(float(threshold))
    return {column: np.unique(values) for column, values in sorted(found.items())}


def _refuse(what: object, change: str) -> ExportError:
    return ExportError(
        f"{type(what).__name__} cannot be exported exactly. {change} Supported is {SUPPORTED}. Nothing was exported."
    )


def _steps(estimator: object) -> tuple[list[object], object]:
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [], estimator
    steps = [step for _, step in estimator.steps]
    return [step for step in steps[:-1] if step is not None and step != "passthrough"], steps[-1]


def _columns(transformer: object, width: int) -> tuple[int, ...]:
    """Which input column each output column is, found by sending the column numbers through."""
    from sklearn.compose import ColumnTransformer

    if not isinstance(transformer, ColumnTransformer):
        raise _refuse(transformer, "Remove the step, or compute it as a feature in SQL.")
    for name, part, _ in transformer.transformers_:
        if part not in ("passthrough", "drop") and not _is_identity(part):
            raise _refuse(part, f"It is the part '{name}' of the ColumnTransformer; compute it as a feature in SQL.")
    numbers: Any = np.arange(width, dtype=np.float64)[None, :]
    if hasattr(transformer, "feature_names_in_"):
        import pandas as pd

        numbers = pd.DataFrame(numbers, columns=transformer.feature_names_in_)
    through: Matrix = np.asarray(transformer.transform(numbers), dtype=np.float64)
    return tuple(int(column) for column in through[0])


def _is_identity(part: object) -> bool:
    """scikit-learn replaces 'passthrough' by a FunctionTransformer without function when it fits."""
    from sklearn.preprocessing import FunctionTransformer

    return isinstance(part, FunctionTransformer) and part.func is None


def _boosting(model: object) -> object:
    from sklearn.ensemble import HistGradientBoostingClassifier

    if not isinstance(model, HistGradientBoostingClassifier):
        raise _refuse(model, "Use a HistGradientBoostingClassifier as the last step.")
    if not hasattr(model, "_predictors"):
        raise _refuse(model, "It is not fitted: fit it first.")
    if list(model.classes_) != [0, 1]:
        raise _refuse(model, f"Its classes are {list(model.classes_)}: fit it on labels 0 and 1.")
    if model.is_categorical_ is not None:
        raise _refuse(model, "It has categorical features: encode them as numbers in SQL.")
    return model


def _tree(nodes: Any) -> Tree:
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        is_leaf=nodes["is_leaf"].astype(np.bool_),
        value=nodes["value"].astype(np.float64),
    )
