"""A source of raw rows: its columns, how their text is read, and when a landing file is refused whole."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from statistics import median
from typing import Any

import pandas as pd
import pandera.pandas as pa
from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.ids import ModelName
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Period
from boucle.errors import LandingError
from boucle.features.contract import REASON, apply_contract

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


@dataclass(frozen=True, kw_only=True)
class RawSource:
    """What one model reads from one source system. `schema` gives the contract of a period's typed rows."""

    model: ModelName
    name: str
    columns: tuple[RawColumn, ...]
    schema: Callable[[Period], pa.DataFrameSchema]

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names in the order of the file."""
        return tuple(column.name for column in self.columns)


class LandingLimits(BaseModel):
    """When a landing file is refused whole. The period then stays as it was."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_rejected_share: float = Field(default=0.05, ge=0, le=1, description="ratio of rows set aside")
    min_volume_ratio: float = Field(default=0.15, ge=0, description="rows against the median of earlier periods")
    max_volume_ratio: float = Field(default=5.0, gt=0, description="rows against the median of earlier periods")


class RowsRefusedError(LandingError):
    """A file was refused for what its rows measure; `gate` has the number. The period stays as it was."""

    def __init__(self, message: str, gate: Gate) -> None:
        super().__init__(message)
        self.gate = gate


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """Typed rows that meet the contract, and the text of the others with `line_number` and `reason`."""

    valid: pd.DataFrame
    rejected: pd.DataFrame


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
        "real, widen the limits in defs.yaml and land it again. The period stays as it was.",
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
