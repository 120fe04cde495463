"""The steps before a model, read from fitted scikit-learn transformers into the columns that come out of them."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from boucle.training.columns import Column, Fill, Standardise, Stretch, Table, then
from boucle.training.supported import check_width, refuse

Columns = tuple[Column, ...]


def through(step: object, columns: Columns, part: str = "") -> Columns:
    """The columns that come out of a fitted step when `columns` go in.

    Args:
        part: The part of a ColumnTransformer that `step` is in; empty outside of one.

    Raises:
        ExportError: The step cannot be exported exactly; the error names it and says what to change.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline

    if _is_identity(step):
        return columns
    if isinstance(step, Pipeline):
        return through_all([inner for _, inner in step.steps], columns, part)
    check_width(step, len(columns))
    if isinstance(step, ColumnTransformer):
        return _parts(step, columns)
    for kind, read in _readers():
        if isinstance(step, kind):
            return read(step, columns)
    raise refuse(
        step,
        f"It is the part '{part}' of the ColumnTransformer; compute it as a feature in SQL."
        if part
        else "Remove the step, or compute it as a feature in SQL.",
    )


def through_all(steps: Iterable[object], columns: Columns, part: str = "") -> Columns:
    """The columns that come out of the last of the steps.

    Raises:
        ExportError: A step cannot be exported exactly.
    """
    from sklearn.preprocessing import StandardScaler

    sparse = False
    for step in steps:
        if sparse and isinstance(step, StandardScaler):
            # scikit-learn multiplies a sparse matrix by the reciprocal: the last bit differs from a division.
            raise refuse(step, "It scales a sparse matrix: set sparse_threshold=0 in the ColumnTransformer before it.")
        columns = through(step, columns, part)
        sparse = getattr(step, "sparse_output_", sparse)
    return columns


def _is_identity(step: object) -> bool:
    """scikit-learn replaces 'passthrough' by a FunctionTransformer without function when it fits."""
    from sklearn.preprocessing import FunctionTransformer

    if isinstance(step, FunctionTransformer):
        return step.func is None
    return step is None or (isinstance(step, str) and step == "passthrough")


def _readers() -> list[tuple[type, Callable[[Any, Columns], Columns]]]:
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, OrdinalEncoder, StandardScaler

    return [
        (SimpleImputer, _imputed),
        (StandardScaler, _standardised),
        (MinMaxScaler, _stretched),
        (OneHotEncoder, _one_hot),
        (OrdinalEncoder, _ordinal),
    ]


def _parts(transformer: Any, columns: Columns) -> Columns:
    if transformer.transformer_weights:
        raise refuse(transformer, "It has transformer_weights: remove them, or scale the features in SQL.")
    found: list[Column] = []
    for name, part, _ in transformer.transformers_:
        # `transformers_` has the columns as they were given: numbers, slices, masks or names.
        chosen = tuple(columns[number] for number in transformer._transformer_to_input_indices[name])
        if chosen and not (isinstance(part, str) and part == "drop"):
            found += through(part, chosen, name)
    return tuple(found)


def _imputed(imputer: Any, columns: Columns) -> Columns:
    if not (isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values)):
        raise refuse(imputer, f"It replaces {imputer.missing_values!r}: make that NULL in SQL, and impute NaN.")
    filled = [
        then(column, Fill(value=float(value)))
        for column, value in zip(columns, imputer.statistics_, strict=True)
        if imputer.keep_empty_features or not np.isnan(value)
    ]
    if imputer.add_indicator:
        missing = Table(keys=(), values=(), missing=1.0, unknown=0.0)
        filled += [then(columns[number], missing) for number in imputer.indicator_.features_]
    return tuple(filled)


def _standardised(scaler: Any, columns: Columns) -> Columns:
    means = scaler.mean_ if scaler.with_mean else np.zeros(len(columns))
    scales = scaler.scale_ if scaler.with_std else np.ones(len(columns))
    return tuple(
        then(column, Standardise(mean=float(mean), scale=float(scale)))
        for column, mean, scale in zip(columns, means, scales, strict=True)
    )


def _stretched(scaler: Any, columns: Columns) -> Columns:
    if scaler.clip:
        raise refuse(scaler, "It clips: set clip=False, or clip the features in SQL.")
    return tuple(
        then(column, Stretch(factor=float(factor), offset=float(offset)))
        for column, factor, offset in zip(columns, scaler.scale_, scaler.min_, strict=True)
    )


def _one_hot(encoder: Any, columns: Columns) -> Columns:
    if encoder.handle_unknown != "ignore":
        raise refuse(encoder, f"Its handle_unknown is '{encoder.handle_unknown}': set handle_unknown='ignore'.")
    _check_encoder(encoder)
    dropped = [None] * len(columns) if encoder.drop_idx_ is None else encoder.drop_idx_
    return tuple(
        then(column, table)
        for column, categories, drop in zip(columns, encoder.categories_, dropped, strict=True)
        for number, table in enumerate(_indicators(categories))
        if number != drop
    )


def _indicators(categories: Any) -> Iterable[Table]:
    """One table for each category, of 1 where it is met and 0 elsewhere; NaN is a category if it is among them."""
    keys = tuple(float(category) for category in categories if not np.isnan(category))
    for category in categories:
        yield Table(
            keys=keys,
            values=tuple(float(key == category) for key in keys),
            missing=float(np.isnan(category)),
            unknown=0.0,
        )


def _ordinal(encoder: Any, columns: Columns) -> Columns:
    if encoder.handle_unknown != "use_encoded_value":
        raise refuse(
            encoder,
            f"Its handle_unknown is '{encoder.handle_unknown}': set handle_unknown='use_encoded_value' and an "
            "unknown_value.",
        )
    _check_encoder(encoder)
    unknown = float(encoder.unknown_value)
    encoded = []
    for column, categories in zip(columns, encoder.categories_, strict=True):
        keys = tuple(float(category) for category in categories if not np.isnan(category))
        # A missing value that no row had when fitting is an unknown one; one that was met comes last.
        missing = float(encoder.encoded_missing_value) if len(keys) < len(categories) else unknown
        codes = tuple(float(code) for code in range(len(keys)))
        encoded.append(then(column, Table(keys=keys, values=codes, missing=missing, unknown=unknown)))
    return tuple(encoded)


def _check_encoder(encoder: Any) -> None:
    if encoder.min_frequency is not None or encoder.max_categories is not None:
        raise refuse(encoder, "It groups rare categories: remove min_frequency and max_categories, group in SQL.")
    if np.dtype(encoder.dtype) != np.float64:
        raise refuse(encoder, f"Its dtype is {np.dtype(encoder.dtype)}: leave dtype at float64.")
