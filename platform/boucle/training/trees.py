"""What an exportable estimator is made of, as plain values: the columns that its model sees, and trees or weights."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.stats.metrics import Vector
from boucle.training.columns import Column, Single, Table, limits, then
from boucle.training.steps import Columns, through_all
from boucle.training.supported import check_width, refuse


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
class Boosted:
    """proba = sigmoid(baseline + sum of the trees)."""

    baseline: float
    trees: tuple[Tree, ...]


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """proba = mean of the trees."""

    trees: tuple[Tree, ...]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """proba = sigmoid(intercept + sum of the columns times their weights)."""

    intercept: float
    weights: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Description:
    """An estimator of `feature_count` input columns: its model, and the columns that the model sees."""

    feature_count: int
    columns: Columns
    model: Boosted | Averaged | Weighted


def describe(estimator: object, feature_count: int) -> Description:
    """Read a fitted estimator.

    Raises:
        ExportError: It is something that boucle cannot export exactly; the error names it and says what to change.
    """
    steps, last = _steps(estimator)
    _check_model(last)
    columns = through_all(steps, tuple(Column(source=number) for number in range(feature_count)))
    check_width(last, len(columns))
    columns, model = _read(last, columns)
    return Description(feature_count=feature_count, columns=columns, model=model)


def thresholds(description: Description) -> dict[int, Vector]:
    """Finite input values beside which the answer may change: thresholds and categories, sorted, by input column."""
    trees = () if isinstance(description.model, Weighted) else description.model.trees
    compared = _compared(trees, len(description.columns))
    found: dict[int, list[Vector]] = {}
    for column, values in zip(description.columns, compared, strict=True):
        found.setdefault(column.source, []).append(limits(column, values))
    merged = {source: np.unique(np.concatenate(parts)) for source, parts in sorted(found.items())}
    return {source: values for source, values in merged.items() if len(values)}


def _compared(trees: tuple[Tree, ...], column_count: int) -> list[Vector]:
    """The finite thresholds of each column."""
    inner = [(tree.feature[~tree.is_leaf], tree.threshold[~tree.is_leaf]) for tree in trees]
    feature = np.concatenate([np.empty(0, dtype=np.int64), *(features for features, _ in inner)])
    threshold = np.concatenate([np.empty(0), *(values for _, values in inner)])
    finite = np.isfinite(threshold)
    return [np.unique(threshold[finite & (feature == column)]) for column in range(column_count)]


def _steps(estimator: object) -> tuple[list[object], object]:
    from sklearn.pipeline import Pipeline

    if not isinstance(estimator, Pipeline):
        return [], estimator
    steps = [step for _, step in estimator.steps]
    before, last = _steps(steps[-1])
    return [*steps[:-1], *before], last


def _check_model(model: Any) -> None:
    from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.tree import DecisionTreeClassifier

    if not isinstance(
        model,
        HistGradientBoostingClassifier
        | RandomForestClassifier
        | ExtraTreesClassifier
        | DecisionTreeClassifier
        | LogisticRegression,
    ):
        raise refuse(model, "Use a HistGradientBoostingClassifier as the last step.")
    if not hasattr(model, "classes_"):
        raise refuse(model, "It is not fitted: fit it first.")
    if list(model.classes_) != [0, 1]:
        raise refuse(model, f"Its classes are {list(model.classes_)}: fit it on labels 0 and 1.")


def _read(model: Any, columns: Columns) -> tuple[Columns, Boosted | Averaged | Weighted]:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression

    if isinstance(model, HistGradientBoostingClassifier):
        return _boosted(model, columns)
    if isinstance(model, LogisticRegression):
        weights = tuple(float(weight) for weight in model.coef_[0])
        return columns, Weighted(intercept=float(np.ravel(model.intercept_)[0]), weights=weights)
    trees = tuple(_averaged_tree(tree.tree_) for tree in getattr(model, "estimators_", [model]))
    # scikit-learn rounds a row to single precision before it walks through these trees, whose thresholds are double.
    return tuple(then(column, Single()) for column in columns), Averaged(trees=trees)


def _averaged_tree(tree: Any) -> Tree:
    return Tree(
        feature=tree.feature.astype(np.int64),
        threshold=tree.threshold.astype(np.float64),
        missing_left=tree.missing_go_to_left.astype(np.bool_),
        left=tree.children_left.astype(np.int64),
        right=tree.children_right.astype(np.int64),
        is_leaf=tree.children_left == -1,
        value=tree.value[:, 0, 1].astype(np.float64),
    )


def _boosted(boosting: Any, columns: Columns) -> tuple[Columns, Boosted]:
    trees = tuple(_boosted_tree(predictor.nodes) for (predictor,) in boosting._predictors)
    if boosting.is_categorical_ is not None:
        columns, trees = _with_categories(boosting, columns, trees)
    return columns, Boosted(baseline=float(np.asarray(boosting._baseline_prediction).item()), trees=trees)


def _boosted_tree(nodes: Any) -> Tree:
    return Tree(
        feature=nodes["feature_idx"].astype(np.int64),
        threshold=nodes["num_threshold"].astype(np.float64),
        missing_left=nodes["missing_go_to_left"].astype(np.bool_),
        left=nodes["left"].astype(np.int64),
        right=nodes["right"].astype(np.int64),
        is_leaf=nodes["is_leaf"].astype(np.bool_),
        value=nodes["value"].astype(np.float64),
    )


def _with_categories(boosting: Any, columns: Columns, trees: tuple[Tree, ...]) -> tuple[Columns, tuple[Tree, ...]]:
    """Columns and trees in which a split by categories is a column of its own, 0 for left and 1 for right.

    scikit-learn puts the categorical columns first, and replaces each category by its place among the sorted ones.
    `BRANCH_MEMBER` of `TreeEnsemble` is no way: onnxruntime 1.32 cuts values to integers before it looks for them.
    """
    categorical = np.flatnonzero(boosting.is_categorical_)
    numeric = tuple(columns[number] for number in np.flatnonzero(~boosting.is_categorical_))
    categories = boosting._preprocessor.named_transformers_["encoder"].categories_
    known_bits, place = boosting._bin_mapper.make_known_categories_bitsets()
    splits: dict[Column, int] = {}
    changed = []
    for tree, (predictor,) in zip(trees, boosting._predictors, strict=True):
        feature, threshold = tree.feature - len(categorical), tree.threshold.copy()
        for node in np.flatnonzero(predictor.nodes["is_categorical"] & ~tree.is_leaf):
            number = int(tree.feature[node])
            table = _split_table(
                categories[number],
                left=_members(predictor.raw_left_cat_bitsets[predictor.nodes["bitset_idx"][node]]),
                known=_members(known_bits[place[number]]),
                missing_left=bool(tree.missing_left[node]),
            )
            column = then(columns[categorical[number]], table)
            feature[node] = len(numeric) + splits.setdefault(column, len(splits))
            threshold[node] = 0.5
        changed.append(replace(tree, feature=feature, threshold=threshold))
    # A matrix needs a column, also where no tree splits.
    return (*numeric, *splits) or columns[:1], tuple(changed)


def _members(bits: Any) -> NDArray[np.bool_]:
    """For each of the codes from 0 to 255, whether its bit is set."""
    return np.unpackbits(np.asarray(bits, dtype="<u4").view(np.uint8), bitorder="little").astype(np.bool_)


def _split_table(categories: Any, *, left: NDArray[np.bool_], known: NDArray[np.bool_], missing_left: bool) -> Table:
    """The side of each category: 0 is left. A missing, an unknown and a forgotten category take the same side."""
    keys = tuple(float(category) for category in categories if not np.isnan(category))
    missing = float(not missing_left)
    sides = tuple(0.0 if left[code] else 1.0 if known[code] else missing for code in range(len(keys)))
    return Table(keys=keys, values=sides, missing=missing, unknown=missing)
