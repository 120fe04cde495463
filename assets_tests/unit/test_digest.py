"""The digest of a table is about its content and nothing else."""

import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from boucle.errors import DataContractError
from boucle.features.digest import content_digest

MONEY = st.decimals(min_value=-1000, max_value=1000, places=2)
ROWS = st.lists(
    st.tuples(
        st.text(max_size=4), st.integers(-(2**60), 2**60), st.floats(allow_infinity=False), MONEY, st.none() | st.text()
    ),
    min_size=1,
    max_size=12,
)
COLUMNS = ["key", "count", "score", "usd", "note"]


def table(rows: list[tuple[object, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS).astype({"note": object})


@settings(max_examples=80)
@given(rows=ROWS, seed=st.integers(0, 1000))
@example(rows=[("", number, 0.0, Decimal(0), None) for number in range(7)] + [("\0", 0, 0.0, Decimal(0), None)], seed=0)
def test_the_order_of_rows_and_columns_does_not_change_the_digest(rows, seed):
    shuffled = table(rows).sample(frac=1, random_state=seed)[COLUMNS[::-1]]
    assert content_digest(shuffled, ["key"]) == content_digest(table(rows), ["key"])


@settings(max_examples=80)
@given(rows=ROWS, column=st.sampled_from(COLUMNS), data=st.data())
def test_any_changed_value_changes_the_digest(rows, column, data):
    frame = table(rows)
    changed = frame.copy()
    row = data.draw(st.integers(0, len(rows) - 1))
    replacement = {
        "key": "another key",
        "count": 2**61,
        "score": 0.125,
        "usd": Decimal("5000.01"),
        "note": "another note",
    }
    old = frame.at[row, column]
    if old == replacement[column]:
        return
    changed.at[row, column] = replacement[column]
    assert content_digest(changed, ["key"]) != content_digest(frame, ["key"])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.Series([1, 2], dtype="int32"), pd.Series([1, 2], dtype="Int64")),
        (pd.Series([0.0, math.nan]), pd.Series([-0.0, math.nan])),
        (pd.Series([math.nan]), pd.Series(np.array([0x7FF8000000000001], dtype="uint64").view("float64"))),
        (pd.Series([Decimal("12.30")]), pd.Series([Decimal("12.3")])),
        (pd.Series([Decimal("100")]), pd.Series([Decimal("1E+2")])),
        (pd.to_datetime(pd.Series(["1997-01-01"])), pd.to_datetime(pd.Series(["1997-01-01"]), utc=True)),
        (pd.Series(["a", None], dtype=object), pd.Series(["a", None], dtype="string")),
    ],
    ids=["width", "minus zero", "nan payload", "trailing zero", "exponent", "naive is utc", "string dtype"],
)
def test_equal_values_in_other_clothes_have_one_digest(left, right):
    keys = pd.Series(range(len(left)))
    one, other = (pd.DataFrame({"k": keys, "v": values}) for values in (left, right))
    assert content_digest(one, ["k"]) == content_digest(other, ["k"])


@pytest.mark.parametrize(
    ("left", "right"),
    [([1], [1.0]), ([1], ["1"]), (["", "a"], [None, "a"]), ([0.1 + 0.2], [0.3]), ([True], [1])],
    ids=["integer or float", "number or text", "empty or missing", "last bit", "boolean or number"],
)
def test_different_values_have_different_digests(left, right):
    one, other = (pd.DataFrame({"k": range(len(values)), "v": values}) for values in (left, right))
    assert content_digest(one, ["k"]) != content_digest(other, ["k"])


def test_text_is_not_glued_across_rows():
    one, other = (pd.DataFrame({"k": [1, 2], "v": values}) for values in (["ab", "c"], ["a", "bc"]))
    assert content_digest(one, ["k"]) != content_digest(other, ["k"])


def test_decimals_beyond_the_precision_of_the_context_stay_exact():
    one, other = (
        pd.DataFrame({"k": [1], "v": [Decimal(f"1234567890123456789012345678901.0{last}")]}) for last in (1, 2)
    )
    assert content_digest(one, ["k"]) != content_digest(other, ["k"])


def test_the_moment_of_loading_is_not_content():
    frame = pd.DataFrame({"k": ["a"]})
    assert content_digest(frame.assign(loaded_at=pd.Timestamp("1997-01-01")), ["k"]) == content_digest(frame, ["k"])


def test_an_empty_table_has_a_digest_that_depends_on_its_columns():
    assert content_digest(pd.DataFrame({"k": []}), ["k"]) != content_digest(pd.DataFrame({"k": [], "v": []}), ["k"])


def test_a_column_of_several_kinds_is_refused_by_name():
    with pytest.raises(DataContractError, match="'v' holds mixed-integer"):
        content_digest(pd.DataFrame({"k": [1, 2], "v": ["a", 1]}), ["k"])


def test_a_missing_key_column_is_refused_by_name():
    with pytest.raises(DataContractError, match="no key column user_id"):
        content_digest(pd.DataFrame({"k": [1]}), ["user_id"])


def test_a_yes_or_no_that_is_missing_is_neither():
    def digest(label: object) -> str:
        labels = pd.Series([True, label], dtype="boolean")
        return content_digest(pd.DataFrame({"key": ["a", "b"], "label": labels}), ["key"])

    assert len({digest(True), digest(False), digest(None)}) == 3
    assert digest(None) == digest(pd.NA)
