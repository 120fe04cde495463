"""A source of raw rows: its contract, how the text of its columns is read, and when a landing file is refused whole."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from statistics import median
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.ids import ModelName
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Cadence, Period, period_of
from boucle.errors import ConfigurationError, LandingError
from boucle.features.contract import REASON, apply_contract, worst_missing
from boucle.features.freshness import FreshnessPolicy

LINE = "line_number"
"""Line of a row in its landing file; the header is line 1."""
ACCEPTED = "landing_accepted"
"""The gate of a landing file."""


class Kind(StrEnum):
    """What the text of a column means. The value is the column's type in the warehouse."""

    TEXT = "VARCHAR"
    DATE = "DATE"
    INTEGER = "BIGINT"
    MONEY = "DECIMAL(12,2)"
    NUMBER = "DOUBLE"
    MOMENT = "TIMESTAMPTZ"


@dataclass(frozen=True, kw_only=True)
class RawColumn:
    """One column of a landing file. Empty text is a missing value, allowed where the column is nullable."""

    name: str
    kind: Kind
    nullable: bool = False


class LandingLimits(BaseModel):
    """When a landing file is refused whole. The period then stays as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rejected_share: float = Field(default=0.05, ge=0, le=1, description="ratio of rows set aside")
    min_volume_ratio: float = Field(default=0.15, ge=0, description="rows against the median of earlier periods")
    max_volume_ratio: float = Field(default=5.0, gt=0, description="rows against the median of earlier periods")


@dataclass(frozen=True)
class RawSource:
    """The data contract of what one model reads from one source system.

    `schema` gives the contract of a period's typed rows: columns in the order of the file, types, ranges, null rates
    (`max_missing` in a column's metadata). A period waits for the file of a source that is `required`, and is loaded
    without that of another.
    """

    model: ModelName
    name: str
    schema: Callable[[Period], pa.DataFrameSchema]
    limits: LandingLimits = field(default_factory=LandingLimits)
    freshness: FreshnessPolicy = field(default_factory=FreshnessPolicy)
    required: bool = True

    @cached_property
    def columns(self) -> tuple[RawColumn, ...]:
        """The columns of the schema, which are the same in every period.

        Raises:
            ConfigurationError: A column has a type that no landing file is read as.
        """
        return tuple(_column(str(name), column) for name, column in self.schema(_ANY_PERIOD).columns.items())

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in the order of the file."""
        return tuple(column.name for column in self.columns)


def _column(name: str, column: pa.Column) -> RawColumn:
    dtype = str(column.dtype)
    if dtype not in _KINDS:
        raise ConfigurationError(
            f"The raw column '{name}' has the type {dtype}; landing files are read as {', '.join(_KINDS)}."
        )
    return RawColumn(name=name, kind=_KINDS[dtype], nullable=bool(column.nullable))


class RowsRefusedError(LandingError):
    """A file was refused for what its rows measure; `gate` has the number. The period stays as it was.

    `rejected` are the rows that break the contract, as in `RawRows`, once whoever read the file has said which.
    """

    def __init__(self, message: str, gate: Gate) -> None:
        super().__init__(message)
        self.gate = gate
        self.rejected: pd.DataFrame | None = None


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """Typed rows that meet the contract, and the text of the others with `line_number` and `reason`."""

    valid: pd.DataFrame
    rejected: pd.DataFrame


_KINDS = {
    "str": Kind.TEXT,
    "datetime64[ns]": Kind.DATE,  # what pandera calls any datetime64 without a time zone
    "int64": Kind.INTEGER,
    "Int64": Kind.INTEGER,
    "object": Kind.MONEY,
    "float64": Kind.NUMBER,
    "datetime64[us, UTC]": Kind.MOMENT,
}
"""What text becomes a column of this type. Money is exact, a Python Decimal."""
_ANY_PERIOD = period_of("1970-01", Cadence.MONTHLY)
_PATTERNS = {
    Kind.TEXT: r".*",
    Kind.DATE: r"\d{4}-\d{2}-\d{2}",
    Kind.INTEGER: r"[+-]?\d{1,18}",
    Kind.MONEY: r"[+-]?\d{1,10}(\.\d{1,2})?",
    Kind.NUMBER: r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?",
    Kind.MOMENT: r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})",
}
_WORDS = {
    Kind.TEXT: "text",
    Kind.DATE: "a date (YYYY-MM-DD)",
    Kind.INTEGER: "a whole number",
    Kind.MONEY: "an amount with at most two decimals",
    Kind.NUMBER: "a number",
    Kind.MOMENT: "a moment with time zone (YYYY-MM-DDTHH:MM:SSZ)",
}


def read_rows(source: RawSource, period: Period, text: pd.DataFrame) -> RawRows:
    """Give a landing file's text its types; set aside, with reason, what cannot be read or breaks the contract.

    Args:
        source: Columns and contract.
        period: The period that the file is of.
        text: The file's columns as text, and `line_number`.

    Returns:
        Every row of `text` is in exactly one of the two tables.
    """
    reasons = pd.Series("", index=text.index, dtype=object)
    for column in source.columns:
        reasons += _problems(column, text[column.name])
    reasons = reasons.str.removesuffix("; ")
    readable = text.loc[reasons == ""]
    typed = pd.DataFrame({column.name: _typed(column, readable[column.name]) for column in source.columns})
    split = apply_contract(source.schema(period), typed)
    unreadable = text.loc[reasons != ""].assign(**{REASON: reasons.loc[reasons != ""]})
    broken = text.loc[split.rejected.index].assign(**{REASON: split.rejected[REASON]})
    rejected = pd.concat([unreadable, broken]).sort_index().reset_index(drop=True)
    return RawRows(valid=split.valid.reset_index(drop=True), rejected=rejected)


def check_rejected_share(rows: RawRows, limits: LandingLimits, *, file: str) -> None:
    """Refuse a file of which too many rows were set aside, or all of them.

    Raises:
        RowsRefusedError: With the first reasons.
    """
    total = len(rows.valid) + len(rows.rejected)
    share = len(rows.rejected) / total if total else 1.0
    if len(rows.valid) and share <= limits.max_rejected_share:
        return
    examples = "; ".join(f"line {row[LINE]}: {row[REASON]}" for row in rows.rejected.head(3).to_dict("records"))
    raise RowsRefusedError(
        f"{file}: {len(rows.rejected)} of {total} rows break the raw contract ({share:.1%}, limit "
        f"{limits.max_rejected_share:.1%}). First: {examples}. Have the source system send the file again. "
        "The period stays as it was.",
        Gate(
            name=ACCEPTED,
            verdict=Verdict.FAILED,
            measured=share,
            bound=Bound.AT_MOST,
            limit=limits.max_rejected_share,
            unit="ratio of rows set aside",
            sample_size=total,
        ),
    )


def check_missing(rows: RawRows, source: RawSource, period: Period, *, file: str) -> None:
    """Refuse a file in which a column has more missing values than its contract allows.

    Raises:
        RowsRefusedError: With the column that is farthest beyond its limit.
    """
    found = worst_missing(source.schema(period), rows.valid)
    if found is None or found.share <= found.limit:
        return
    raise RowsRefusedError(
        f"{file}: {found.column} is missing in {found.share:.1%} of the rows (limit {found.limit:.1%}). Have the "
        "source system send the file again; if the change is real, raise max_missing in schema.py. The period stays as "
        "it was.",
        Gate(
            name=ACCEPTED,
            verdict=Verdict.FAILED,
            measured=found.share,
            bound=Bound.AT_MOST,
            limit=found.limit,
            unit=f"ratio of rows without {found.column}",
            sample_size=len(rows.valid),
        ),
    )


def check_volume(rows: int, earlier_rows: Sequence[int], limits: LandingLimits, *, file: str) -> float | None:
    """The period's rows over the median of earlier periods (ratio), or None for the first period, which has no measure.

    Raises:
        RowsRefusedError: The ratio lies outside the limits.
    """
    if not earlier_rows:
        return None
    typical = median(earlier_rows)
    ratio = rows / typical
    if limits.min_volume_ratio <= ratio <= limits.max_volume_ratio:
        return ratio
    few = ratio < limits.min_volume_ratio
    raise RowsRefusedError(
        f"{file}: {rows} rows, {ratio:.2f} of the median {typical:g} of {len(earlier_rows)} earlier periods (limits "
        f"{limits.min_volume_ratio:g} to {limits.max_volume_ratio:g}). Check that the file is whole; if the change is "
        "real, widen the limits in schema.py and land it again. The period stays as it was.",
        Gate(
            name=ACCEPTED,
            verdict=Verdict.FAILED,
            measured=ratio,
            bound=Bound.AT_LEAST if few else Bound.AT_MOST,
            limit=limits.min_volume_ratio if few else limits.max_volume_ratio,
            unit="ratio of the median rows of earlier periods",
            sample_size=rows,
        ),
    )


def _problems(column: RawColumn, text: "pd.Series[str]") -> "pd.Series[Any]":
    missing = text == ""
    readable = text.str.fullmatch(re.compile(_PATTERNS[column.kind], re.DOTALL))
    if column.kind in {Kind.DATE, Kind.MOMENT}:
        parsed = pd.to_datetime(text.where(readable & ~missing), utc=True, errors="coerce", format="ISO8601")
        readable &= parsed.notna()
    problems = pd.Series("", index=text.index, dtype=object)
    problems[~readable] = f"{column.name}: not {_WORDS[column.kind]} (value " + text[~readable] + "); "
    problems[missing] = "" if column.nullable else f"{column.name}: missing; "
    return problems


def _typed(column: RawColumn, text: "pd.Series[str]") -> "pd.Series[Any]":
    missing = text == ""
    present = text.astype(object).where(~missing, None)
    if column.kind is Kind.DATE:
        return pd.to_datetime(present, format="%Y-%m-%d").astype("datetime64[s]")
    if column.kind is Kind.MOMENT:
        return pd.to_datetime(present, utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    if column.kind is Kind.MONEY:
        return present.map(Decimal, na_action="ignore").astype(object)
    if column.kind is Kind.NUMBER:
        return present.astype("float64")
    if column.kind is Kind.INTEGER:
        return present.map(int, na_action="ignore").astype("Int64" if column.nullable else "int64")
    return present
