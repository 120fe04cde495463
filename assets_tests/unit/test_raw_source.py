"""Text of a landing file becomes typed rows; what cannot be read is set aside with its line and reason."""

from decimal import Decimal

import pandas as pd
import pandera.pandas as pa
import pytest

from boucle.contracts.ids import ModelName
from boucle.contracts.windows import Cadence, period_of
from boucle.errors import ConfigurationError, LandingError
from boucle.features.contract import MAX_MISSING, Missing, feature, worst_missing
from boucle.features.raw_source import (
    LandingLimits,
    RawRows,
    RawSource,
    RowsRefusedError,
    check_missing,
    check_rejected_share,
    check_volume,
    read_rows,
)

MAY = period_of("1997-05", Cadence.MONTHLY)
LIMITS = LandingLimits(max_rejected_share=0.25, min_volume_ratio=0.5, max_volume_ratio=2.0)
GOOD = {
    "name": "EWR",
    "day": "1997-05-03",
    "count": "3",
    "usd": "11.50",
    "wind": "2.5e1",
    "seen_at": "1997-05-03T10:00:00Z",
}
SOURCE = RawSource(
    model=ModelName("test"),
    name="readings",
    schema=lambda period: pa.DataFrameSchema(
        {
            "name": pa.Column(str),
            "day": pa.Column("datetime64[s]"),
            "count": pa.Column("Int64", nullable=True),
            "usd": pa.Column(object, nullable=True),
            "wind": pa.Column("float64", nullable=True, metadata={MAX_MISSING: 0.5}),
            "seen_at": pa.Column(pd.DatetimeTZDtype("us", "UTC"), nullable=True),
        },
        name=f"readings of {period.key}",
    ),
)


def read(*changes: dict[str, str]) -> RawRows:
    frame = pd.DataFrame([GOOD | change for change in changes], dtype=object)
    return read_rows(SOURCE, MAY, frame.assign(line_number=range(2, 2 + len(changes))))


def test_each_kind_of_text_gets_its_type_and_exact_value():
    row = read({}).valid.iloc[0]
    assert row.to_dict() == {
        "name": "EWR",
        "day": pd.Timestamp("1997-05-03"),
        "count": 3,
        "usd": Decimal("11.50"),
        "wind": 25.0,
        "seen_at": pd.Timestamp("1997-05-03T10:00Z"),
    }


def test_empty_text_is_a_missing_value_where_that_is_allowed():
    row = read({"count": "", "usd": "", "wind": "", "seen_at": ""}, {}).valid.iloc[0]
    assert row[["count", "usd", "wind", "seen_at"]].isna().all()


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        ("name", "", "name: missing"),
        ("day", "03/05/1997", "day: not a date (YYYY-MM-DD) (value 03/05/1997)"),
        ("day", "1997-02-30", "day: not a date (YYYY-MM-DD) (value 1997-02-30)"),
        ("count", "3.0", "count: not a whole number (value 3.0)"),
        ("usd", "11.505", "usd: not an amount with at most two decimals (value 11.505)"),
        ("usd", "NaN", "usd: not an amount with at most two decimals (value NaN)"),
        ("usd", "99999999999.00", "usd: not an amount with at most two decimals (value 99999999999.00)"),
        ("wind", "inf", "wind: not a number (value inf)"),
        (
            "seen_at",
            "1997-05-03T10:00:00",
            "seen_at: not a moment with time zone (YYYY-MM-DDTHH:MM:SSZ) (value 1997-05-03T10:00:00)",
        ),
    ],
)
def test_text_that_cannot_be_read_is_set_aside_with_its_line_and_reason(column, text, reason):
    rows = read({}, {column: text})
    assert len(rows.valid) == 1
    assert rows.rejected.to_dict("records") == [GOOD | {column: text, "line_number": 3, "reason": reason}]


def test_a_share_of_set_aside_rows_at_the_limit_is_accepted():
    check_rejected_share(read({}, {}, {}, {"name": ""}), LIMITS, file="a.csv")


def test_a_share_above_the_limit_refuses_the_file_and_shows_the_first_reasons():
    with pytest.raises(
        LandingError, match=r"1 of 3 rows .*33\.3%, limit 25\.0%.*line 4: name: missing.*stays as it was"
    ):
        check_rejected_share(read({}, {}, {"name": ""}), LIMITS, file="a.csv")


def test_a_file_without_one_valid_row_is_refused_whatever_the_limit():
    anything = LandingLimits(max_rejected_share=1.0, min_volume_ratio=0, max_volume_ratio=9)
    with pytest.raises(LandingError, match="1 of 1 rows"):
        check_rejected_share(read({"name": ""}), anything, file="a.csv")


def test_a_share_of_missing_values_at_the_limit_of_its_column_is_accepted():
    check_missing(read({"wind": ""}, {}), SOURCE, MAY, file="a.csv")


def test_a_column_that_is_missing_too_often_refuses_the_file_with_its_share():
    rows = read({"wind": ""}, {"wind": ""}, {})
    with pytest.raises(
        RowsRefusedError, match=r"wind is missing in 66\.7% of the rows \(limit 50\.0%\).*as it was"
    ) as why:
        check_missing(rows, SOURCE, MAY, file="a.csv")
    gate = why.value.gate
    assert (gate.measured, gate.limit, gate.sample_size) == (pytest.approx(2 / 3), 0.5, 3)


def test_of_several_columns_the_one_farthest_beyond_its_limit_is_named():
    schema = pa.DataFrameSchema(
        {
            "a": feature("float64", "a", unit="count", nullable=True, max_missing=0.5),
            "b": feature("float64", "b", unit="count", nullable=True, max_missing=0.0),
            "free": feature("float64", "free", unit="count", nullable=True),
        }
    )
    frame = pd.DataFrame({"a": [None, 1.0], "b": [None, 1.0], "free": [None, None]})
    assert worst_missing(schema, frame) == Missing(column="b", share=0.5, limit=0.0)
    assert worst_missing(schema, frame.head(0)) is None


def test_a_column_of_a_type_that_no_file_is_read_as_is_named():
    strange = RawSource(
        model=ModelName("test"), name="strange", schema=lambda _: pa.DataFrameSchema({"flag": pa.Column(bool)})
    )
    with pytest.raises(ConfigurationError, match="raw column 'flag' has the type bool"):
        strange.columns  # noqa: B018 - asking is the point


def test_the_first_period_has_no_volume_to_compare_with():
    assert check_volume(1, [], LIMITS, file="a.csv") is None


@pytest.mark.parametrize("rows", [50, 200])
def test_a_volume_at_a_limit_is_accepted(rows):
    assert check_volume(rows, [80, 100, 5000], LIMITS, file="a.csv") == rows / 100


@pytest.mark.parametrize("rows", [49, 201])
def test_a_volume_beyond_a_limit_refuses_the_file(rows):
    with pytest.raises(
        LandingError, match=rf"{rows} rows, .* of the median 100 of 3 earlier periods .*stays as it was"
    ):
        check_volume(rows, [80, 100, 5000], LIMITS, file="a.csv")
