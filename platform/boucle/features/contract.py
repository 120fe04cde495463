"""The data contract of a table: a pandera schema applied row by row, and what a bundle takes from it."""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from boucle.contracts.bundle import FeatureSpec, KeySpec
from boucle.errors import ConfigurationError, DataContractError

REASON = "reason"
DUPLICATE = "duplicate row"
MAX_MISSING = "max_missing"
"""In the metadata of a column: the largest share of missing values in a period, ratio."""
_UNIT = "unit"
_CATEGORIES = "categories"
_UNIQUE = "multiple_fields_uniqueness"


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows that meet the contract, and the others with the column `reason`. Both keep their order and index."""

    valid: pd.DataFrame
    rejected: pd.DataFrame


def apply_contract(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> Split:
    """Split a table by its contract; the reason names each broken rule of a row with the value that broke it.

    Args:
        schema: Columns with checks; `unique` with `report_duplicates="exclude_first"` keeps the first of equal rows.
        frame: Rows with a unique index.

    Raises:
        DataContractError: The table as a whole breaks the contract (missing or unknown column, wrong type), or its
            index is not unique. No row can be told from another then.
    """
    if not frame.index.is_unique:
        raise DataContractError("The rows to check need a unique index: reset it first. Nothing was written.")
    reasons = _reasons(schema, frame)
    rejected = frame.loc[frame.index.isin(reasons.index)]
    return Split(
        valid=frame.loc[~frame.index.isin(reasons.index)],
        rejected=rejected.assign(**{REASON: reasons.reindex(rejected.index)}),
    )


def feature(
    dtype: Literal["float64", "int64"],
    description: str,
    *,
    unit: str,
    minimum: float | None = None,
    maximum: float | None = None,
    nullable: bool = False,
    max_missing: float | None = None,
) -> pa.Column:
    """A feature column of a schema, with its closed range and unit. For categories see `category`.

    Args:
        dtype: Its type.
        description: What it is.
        unit: Of its values.
        minimum: The smallest value that is possible.
        maximum: The largest.
        nullable: Whether a value may be missing.
        max_missing: The largest share of missing values in a period, ratio; any where None.
    """
    checks = []
    if minimum is not None:
        checks.append(pa.Check.greater_than_or_equal_to(minimum, error=f"at least {minimum:g}"))
    if maximum is not None:
        checks.append(pa.Check.less_than_or_equal_to(maximum, error=f"at most {maximum:g}"))
    return pa.Column(
        dtype, checks, nullable=nullable, description=description, metadata={_UNIT: unit, MAX_MISSING: max_missing}
    )


def category(
    names: Sequence[str], description: str, *, nullable: bool = False, max_missing: float | None = None
) -> pa.Column:
    """A feature column of a schema that holds the place of a name in `names`, from 0: models see numbers only.

    What is none of the names is missing where the feature may be missing, and refused where not: in rows that callers
    bring, and in SQL, which gives NULL to it.

    Args:
        names: What it may be, at least one, each once. A name that is added at the end leaves the others their place.
        description: What it is.
        nullable: Whether a value may be missing or unknown.
        max_missing: The largest share of missing values in a period, ratio; any where None.

    Raises:
        ConfigurationError: There is no name, or one is there twice.
    """
    if not names or len(set(names)) != len(names):
        raise ConfigurationError(f"A category needs names, each once, not {list(names)}.")
    check = pa.Check.isin(list(range(len(names))), error=f"a place of {', '.join(names)}, from 0")
    metadata = {_UNIT: "category", MAX_MISSING: max_missing, _CATEGORIES: tuple(names)}
    dtype = "float64" if nullable else "int64"
    return pa.Column(dtype, check, nullable=nullable, description=description, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Missing:
    """A column's share of missing values and the most that its contract allows, ratios."""

    column: str
    share: float
    limit: float


def worst_missing(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> Missing | None:
    """The column whose share of missing values is farthest beyond, or least below, its `max_missing`.

    None where no column of the schema has a limit, or there is no row.
    """
    limits = {str(name): (column.metadata or {}).get(MAX_MISSING) for name, column in schema.columns.items()}
    if frame.empty:
        return None
    found = [
        Missing(column=name, share=float(frame[name].isna().mean()), limit=float(limit))
        for name, limit in limits.items()
        if limit is not None
    ]
    return max(found, key=lambda missing: missing.share - missing.limit, default=None)


def feature_specs(schema: pa.DataFrameSchema) -> tuple[FeatureSpec, ...]:
    """The features of a schema as a bundle declares them: its columns made with `feature`, in their order."""
    return tuple(
        FeatureSpec(
            name=str(name),
            dtype="int64" if str(column.dtype) == "int64" else "float64",
            nullable=bool(column.nullable),
            minimum=_limit(column, "min_value"),
            maximum=_limit(column, "max_value"),
            unit=str(column.metadata[_UNIT]),
            description=str(column.description or ""),
            categories=tuple(column.metadata.get(_CATEGORIES, ())),
        )
        for name, column in schema.columns.items()
        if _UNIT in (column.metadata or {})
    )


def key_spec(schema: pa.DataFrameSchema, name: str) -> KeySpec:
    """What requests may send as the entity key: the checks `str_length` and `str_matches` of the schema's column.

    Raises:
        ConfigurationError: The column is missing or does not hold text.
    """
    column = schema.columns.get(name)
    if column is None or str(column.dtype) != "str":
        wrong = "is missing" if column is None else f"has the type {column.dtype}"
        raise ConfigurationError(
            f"The entity key '{name}' {wrong} in the contract '{schema.name}': it must be a column of text (str)."
        )
    arguments = {"min_length": "min_value", "max_length": "max_value", "pattern": "pattern"}
    found = {word: _statistic(column, argument) for word, argument in arguments.items()}
    said = {word: value for word, value in found.items() if value is not None}
    return KeySpec(description=str(column.description or ""), **said)


def keys_are_text(keys: "pd.Series[Any]", *, column: str) -> None:
    """Raise DataContractError unless the entity keys in a column are text, as in features and prediction log."""
    said = keys.dropna()
    if pd.api.types.is_string_dtype(said):
        return
    example = f", for example {said.iloc[0]}" if len(said) else ""
    raise DataContractError(
        f"The entity keys in {column} are {keys.dtype}{example}; features and prediction log hold them as text, and "
        "'007' is not 7. Keep the text of the source in its dbt model, or cast(… as varchar). Nothing was written."
    )


def _limit(column: pa.Column, name: str) -> float | None:
    limit = _statistic(column, name)
    return None if limit is None else float(limit)


def _statistic(column: pa.Column, name: str) -> Any:
    """What the first check of a column that has this argument was given for it; None where there is none."""
    found = [check.statistics[name] for check in column.checks if name in (check.statistics or {})]
    return found[0] if found else None


def _reasons(schema: pa.DataFrameSchema, frame: pd.DataFrame) -> "pd.Series[str]":
    try:
        with warnings.catch_warnings():
            # pandera concatenates failure cases of different types, which pandas 2.3 warns about.
            warnings.simplefilter("ignore", FutureWarning)
            schema.validate(frame, lazy=True)
    except SchemaErrors as error:
        failures = pd.DataFrame(error.failure_cases)
    else:
        return pd.Series(dtype=object)
    whole = failures.loc[failures["index"].isna()]
    if len(whole):
        raise DataContractError(f"{_whole_table(schema, whole)} Nothing was written; the last good data stays.")
    named = {check: _columns_in(str(check), frame) for check in failures["check"].unique()}
    texts = failures.assign(text=[_sentence(row, frame, named[row["check"]]) for row in failures.to_dict("records")])
    by_row = texts.drop_duplicates(["index", "text"]).groupby("index", sort=False)["text"]
    return by_row.agg("; ".join)


def _whole_table(schema: pa.DataFrameSchema, failures: pd.DataFrame) -> str:
    words = {
        "column_in_dataframe": "column '{}' is missing",
        "column_in_schema": "column '{}' is unknown",
    }
    found = [
        words[row["check"]].format(row["failure_case"])
        if row["check"] in words
        else f"{row['column'] or 'the table'}: {row['check']} (found {row['failure_case']})"
        for row in failures.to_dict("records")
    ]
    return f"The table breaks the contract '{schema.name}': {'; '.join(found)}."


def _columns_in(check: str, frame: pd.DataFrame) -> list[str]:
    """The columns that the text of a rule names."""
    return [name for name in frame.columns if re.search(rf"\b{re.escape(str(name))}\b", check)]


def _sentence(failure: dict[Any, Any], frame: pd.DataFrame, named: list[str]) -> str:
    check, column = str(failure["check"]), failure["column"]
    if check == _UNIQUE:
        return DUPLICATE
    if failure["schema_context"] == "DataFrameSchema":
        values = ", ".join(f"{name} {frame.at[failure['index'], name]!s}" for name in named)
        return f"breaks the rule '{check}'" + (f" (values: {values})" if values else "")
    if check == "not_nullable":
        return f"{column}: missing"
    return f"{column}: not {check} (value {frame.at[failure['index'], column]!s})"
