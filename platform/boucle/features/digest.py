"""The digest of a table's content: the same rows give the same digest, in whatever order and from whatever engine."""

import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from boucle.contracts.document import canonical_json
from boucle.contracts.ids import Digest
from boucle.errors import DataContractError

NOT_CONTENT = frozenset({"loaded_at"})
"""Columns that say when a row was loaded, not what it holds."""

_OBJECT_KINDS = {
    "string": "text",
    "decimal": "decimal",
    "boolean": "boolean",
    "integer": "integer",
    "floating": "float",
    "date": "moment",
    "datetime": "moment",
    "empty": "text",
}


def content_digest(frame: pd.DataFrame, keys: Sequence[str]) -> Digest:
    """SHA-256 over the key-sorted canonical values of a table.

    It covers column names, kinds and values, and not the order of rows or columns, the index, the width of a number
    or `loaded_at`. Integers, decimals (by value: 12.3 is 12.30) and moments (microseconds UTC; naive is UTC) are exact;
    -0.0 is 0.0, and every NaN and null is the same missing value.

    Args:
        frame: Columns of text, integers, floats, decimals, booleans or moments.
        keys: Columns to sort by first. Rows that share a key are sorted by their other columns.

    Raises:
        DataContractError: A key column is missing, or a column holds values of several kinds.
    """
    missing = [key for key in keys if key not in frame.columns]
    if missing:
        raise DataContractError(f"The table has no key column {', '.join(missing)}; it has {', '.join(frame.columns)}.")
    names = sorted(set(frame.columns) - NOT_CONTENT)
    columns = {name: _canonical(frame[name]) for name in names}
    others = [name for name in names if name not in keys] if frame.duplicated(list(keys)).any() else []
    order = _row_order([columns[name] for name in [*keys, *others]], len(frame))
    digest = hashlib.sha256(
        canonical_json({"columns": [[name, columns[name].kind] for name in names], "rows": len(frame)})
    )
    for name in names:
        for part in columns[name].parts(order):
            digest.update(part)
    return Digest(digest.hexdigest())


class _Column:
    def __init__(self, kind: str, missing: "np.ndarray[tuple[int], np.dtype[np.bool_]]", values: pd.Series) -> None:
        self.kind, self.missing, self.values = kind, missing, values

    def ranks(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        if self.kind == "text" and "\0" in "".join(self.values):
            # pandas' table of strings ends each at its first NUL, and would take different keys for one.
            _, codes = np.unique(self.values.to_numpy(), return_inverse=True)
        else:
            codes, _ = pd.factorize(self.values, sort=True)
        return np.where(self.missing, -1, codes).astype(np.int64)

    def parts(self, order: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> Iterable[bytes]:
        yield self.missing[order].tobytes()
        ordered = self.values.to_numpy()[order]
        if self.kind in {"text", "decimal"}:
            encoded = [str(value).encode() for value in ordered]
            yield np.array([len(value) for value in encoded], dtype="<i8").tobytes()
            yield b"".join(encoded)
        else:
            yield ordered.astype("<f8" if self.kind == "float" else "<i8").tobytes()


def _row_order(columns: Sequence[_Column], rows: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    if rows == 0 or not columns:
        return np.arange(rows, dtype=np.int64)
    return np.lexsort([column.ranks() for column in reversed(columns)]).astype(np.int64)


def _canonical(series: "pd.Series[Any]") -> _Column:
    kind = _kind(series)
    missing = series.isna().to_numpy(dtype=bool)
    present = series.reset_index(drop=True)
    if kind == "text":
        values = present.astype(object).where(~missing, "")
    elif kind == "decimal":
        values = present.map(_plain, na_action="ignore").astype(object).where(~missing, "")
    elif kind == "float":
        values = pd.to_numeric(present).astype("float64").where(~missing, 0.0) + 0.0
    elif kind == "moment":
        # Without pandas' cache, which looks for repeated values one by one: ten times as long as the conversion.
        moments = pd.to_datetime(present, utc=True, cache=False).astype("datetime64[us, UTC]")
        values = moments.where(~missing, pd.Timestamp(0, tz="UTC")).astype("int64")
    else:
        whole = present.astype("Int64") if kind == "integer" else present.astype("boolean").astype("Int64")
        values = whole.fillna(0).astype("int64")
    return _Column(kind, missing, values)


def _plain(value: Decimal) -> str:
    # normalize() would round to the context's precision: zeros are cut from the text instead.
    text = format(value, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in {"-0", ""} else text


def _kind(series: "pd.Series[Any]") -> str:
    dtype = series.dtype
    tests = {
        "boolean": pd.api.types.is_bool_dtype,
        "integer": pd.api.types.is_integer_dtype,
        "float": pd.api.types.is_float_dtype,
        "moment": pd.api.types.is_datetime64_any_dtype,
    }
    if not pd.api.types.is_object_dtype(dtype):
        for kind, test in tests.items():
            if test(dtype):
                return kind
    found = pd.api.types.infer_dtype(series, skipna=True)
    if found not in _OBJECT_KINDS:
        raise DataContractError(
            f"Column '{series.name}' holds {found} values, which have no canonical form. "
            "Give the column one type (text, integer, float, decimal, boolean, moment). Nothing was written."
        )
    return _OBJECT_KINDS[found]
