"""A contract splits a table row by row, and says why."""

from typing import Any
from uuid import UUID

import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boucle.contracts.bundle import FeatureSpec, KeySpec
from boucle.errors import ConfigurationError, DataContractError
from boucle.features.contract import apply_contract, category, feature, feature_specs, key_spec, keys_are_text

SCHEMA = pa.DataFrameSchema(
    {
        "user_id": pa.Column(str),
        "orders_30d": feature("int64", "Days with an order", unit="count", minimum=0, maximum=30),
        "mean_gap": feature("float64", "Days between orders", unit="days", minimum=1, nullable=True),
    },
    checks=[pa.Check(lambda rows: rows["orders_30d"] != 13, error="never thirteen")],
    name="test",
    strict=True,
    unique=["user_id"],
    report_duplicates="exclude_first",
)


def rows(*values: tuple[str | None, int, float | None]) -> pd.DataFrame:
    frame = pd.DataFrame(values, columns=["user_id", "orders_30d", "mean_gap"])
    return frame.astype({"user_id": object, "mean_gap": "float64"})


def reason(*values: tuple[str | None, int, float | None]) -> str:
    return str(apply_contract(SCHEMA, rows(*values)).rejected["reason"].iloc[0])


def test_rows_that_meet_the_contract_pass_unchanged():
    frame = rows(("a", 0, None), ("b", 30, 1.0))
    split = apply_contract(SCHEMA, frame)
    pd.testing.assert_frame_equal(split.valid, frame)
    assert split.rejected.empty
    assert "reason" in split.rejected


def test_the_reason_names_the_rule_and_the_value():
    assert reason(("a", 31, 2.0)) == "orders_30d: not at most 30 (value 31)"


def test_a_row_that_breaks_two_rules_has_both_reasons():
    assert reason(("a", -1, 0.5)) == "orders_30d: not at least 0 (value -1); mean_gap: not at least 1 (value 0.5)"


def test_a_missing_value_is_named():
    assert reason((None, 1, 2.0)) == "user_id: missing"


def test_a_rule_over_several_columns_is_named():
    assert reason(("a", 13, 2.0)) == "breaks the rule 'never thirteen'"


def test_a_rule_over_several_columns_has_the_values_of_the_columns_it_names():
    rule = pa.Check(lambda frame: frame["sold"] <= frame["made"], error="sold is at most made")
    schema = pa.DataFrameSchema({name: pa.Column("int64") for name in ("made", "sold", "old")}, checks=[rule])
    (found,) = apply_contract(schema, pd.DataFrame({"made": [3, 1], "sold": [3, 2], "old": [7, 8]})).rejected["reason"]
    assert found == "breaks the rule 'sold is at most made' (values: made 1, sold 2)"


def test_of_equal_keys_the_first_row_stays():
    split = apply_contract(SCHEMA, rows(("a", 1, None), ("b", 1, None), ("a", 2, None)))
    assert list(split.valid["orders_30d"]) == [1, 1]
    assert list(split.rejected["reason"]) == ["duplicate row"]
    assert list(split.rejected.index) == [2]


@settings(max_examples=40)
@given(
    values=st.lists(
        st.tuples(st.sampled_from("abcdef"), st.integers(-2, 33), st.none() | st.floats(0, 10)), min_size=1, max_size=10
    )
)
def test_every_row_is_in_exactly_one_part_and_the_valid_part_is_valid(values):
    frame = rows(*values)
    split = apply_contract(SCHEMA, frame)
    assert sorted([*split.valid.index, *split.rejected.index]) == list(frame.index)
    assert apply_contract(SCHEMA, split.valid).rejected.empty
    assert split.rejected["reason"].str.len().gt(0).all()


def test_a_missing_column_breaks_the_whole_table():
    with pytest.raises(DataContractError, match="column 'mean_gap' is missing"):
        apply_contract(SCHEMA, rows(("a", 1, None)).drop(columns="mean_gap"))


def test_an_unknown_column_breaks_the_whole_table():
    with pytest.raises(DataContractError, match="column 'extra' is unknown"):
        apply_contract(SCHEMA, rows(("a", 1, None)).assign(extra=1))


def test_a_column_of_another_type_breaks_the_whole_table():
    with pytest.raises(DataContractError, match="orders_30d: dtype"):
        apply_contract(SCHEMA, rows(("a", 1, None)).astype({"orders_30d": "float64"}))


def test_rows_that_cannot_be_told_apart_are_refused():
    with pytest.raises(DataContractError, match="unique index"):
        apply_contract(SCHEMA, pd.concat([rows(("a", 1, None))] * 2))


def test_an_empty_table_meets_the_contract():
    assert apply_contract(SCHEMA, rows(("a", 1, None)).head(0)).valid.empty


def test_feature_specs_are_the_feature_columns_in_their_order():
    assert feature_specs(SCHEMA) == (
        FeatureSpec(
            name="orders_30d",
            dtype="int64",
            nullable=False,
            minimum=0,
            maximum=30,
            unit="count",
            description="Days with an order",
        ),
        FeatureSpec(
            name="mean_gap",
            dtype="float64",
            nullable=True,
            minimum=1,
            maximum=None,
            unit="days",
            description="Days between orders",
        ),
    )


def test_the_key_of_requests_is_the_key_of_the_schema():
    length, pattern = pa.Check.str_length(1, 12), pa.Check.str_matches("^[A-Z]{2}-")
    schema = pa.DataFrameSchema({"tail": pa.Column(str, [length, pattern], description="The plane")})
    assert key_spec(schema, "tail") == KeySpec(max_length=12, pattern="^[A-Z]{2}-", description="The plane")
    assert key_spec(SCHEMA, "user_id") == KeySpec(min_length=1, max_length=256)


@pytest.mark.parametrize(("name", "wrong"), [("orders_30d", "has the type int64"), ("flight", "is missing")])
def test_a_key_that_is_no_text_is_refused(name: str, wrong: str):
    with pytest.raises(ConfigurationError, match=f"'{name}' {wrong} in the contract 'test'"):
        key_spec(SCHEMA, name)


def test_keys_of_text_may_be_joined_with_what_was_logged():
    for keys in (["007", None], []):
        keys_are_text(pd.Series(keys, dtype="object"), column="labels.user_id")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (pd.Series([7]), "labels.user_id are int64, for example 7;"),
        (pd.Series([], dtype="int64"), "labels.user_id are int64;"),
        (pd.Series([UUID(int=7)]), "labels.user_id are object, for example 00000000-0000-0000-0000-000000000007;"),
    ],
)
def test_keys_that_are_no_text_are_named_with_what_to_do(keys: "pd.Series[Any]", said: str):
    with pytest.raises(DataContractError, match=said) as found:
        keys_are_text(keys, column="labels.user_id")
    assert "cast(… as varchar)" in str(found.value)


@pytest.mark.parametrize("nullable", [False, True])
def test_a_category_is_declared_by_the_names_of_its_places(nullable: bool):
    schema = pa.DataFrameSchema({"origin": category(("EWR", "JFK"), "Airport", nullable=nullable)})
    (spec,) = feature_specs(schema)
    assert (spec.categories, spec.unit, spec.nullable) == (("EWR", "JFK"), "category", nullable)
    rows = pd.DataFrame({"origin": [0, 1, 2, None] if nullable else [0, 1, 2, -1]})
    found = apply_contract(schema, rows.astype({"origin": spec.dtype}))
    assert list(found.valid.index) == ([0, 1, 3] if nullable else [0, 1])
    assert "a place of EWR, JFK, from 0 (value 2" in found.rejected["reason"].iloc[0]


@pytest.mark.parametrize("names", [(), ("EWR", "EWR")])
def test_a_category_without_names_or_with_one_twice_is_refused(names: tuple[str, ...]):
    with pytest.raises(ConfigurationError, match="needs names, each once"):
        category(names, "Airport")
