"""The data contracts of `repurchase`: raw orders and features.

Columns, types, units, ranges, volume and freshness are said here and nowhere else: the reading of landing files, the
warehouse, the gates, what a bundle says of its features and what requests are checked against come from it.
"""

from datetime import timedelta
from typing import Any

import pandas as pd
import pandera.pandas as pa

from boucle.contracts.ids import ModelName
from boucle.contracts.windows import Period
from boucle.features.contract import feature
from boucle.features.freshness import FreshnessPolicy
from boucle.features.raw_source import LandingLimits, RawSource

KEYS = ("user_id", "as_of")


def raw_schema(period: Period) -> pa.DataFrameSchema:
    """The contract of one period's orders. A date outside the period, so also one in the future, breaks it.

    Equal rows are one order sent twice (255 of 69,659 in the real history): the first is kept.
    """
    start, end = (_naive(moment) for moment in (period.start, period.end - timedelta(days=1)))
    in_period = pa.Check.in_range(start, end, error=f"a day of the period {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    return pa.DataFrameSchema(
        {
            "customer_id": pa.Column(str, pa.Check.str_length(1, 64), description="The customer, with leading zeros"),
            "order_date": pa.Column("datetime64[s]", in_period, description="Day of the order (UTC)"),
            "cds": pa.Column("int64", pa.Check.ge(1, error="at least 1"), description="Number of CDs, count"),
            "amount_usd": pa.Column(
                object, pa.Check.ge(0, error="at least 0"), description="Value, US dollars, exact to the cent"
            ),
        },
        name="raw orders",
        strict=True,
        unique=["customer_id", "order_date", "cds", "amount_usd"],
        report_duplicates="exclude_first",
    )


ORDERS = RawSource(
    model=ModelName("repurchase"),
    name="orders",
    schema=raw_schema,
    # Rows against the median of earlier months: the real history goes down to 0.26.
    limits=LandingLimits(max_rejected_share=0.05, min_volume_ratio=0.15, max_volume_ratio=5.0),
    # A month lands on the first day of the next.
    freshness=FreshnessPolicy(warn_days=35, fail_days=40),
)
SOURCES = (ORDERS,)


def _naive(moment: Any) -> pd.Timestamp:
    return pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)


def _windows_nest(rows: pd.DataFrame) -> "pd.Series[bool]":
    return (
        (rows["orders_30d"] <= rows["orders_90d"])
        & (rows["orders_90d"] <= rows["orders_180d"])
        & (rows["orders_180d"] <= rows["freq"])
    )


FEATURES = pa.DataFrameSchema(
    {
        "user_id": pa.Column(str, pa.Check.str_length(1, 64), description="The customer the row is about"),
        "as_of": pa.Column("datetime64[us]", description="Moment of the features (UTC)"),
        "event_time": pa.Column("datetime64[us]", description="Day of the newest order that counts (UTC)"),
        "available_at": pa.Column("datetime64[us]", description="Moment from which all that counts was known (UTC)"),
        "recency": feature("int64", "Days from the last order to as_of", unit="days", minimum=1),
        "tenure": feature("int64", "Days from the first order to as_of", unit="days", minimum=1),
        "freq": feature("int64", "Days with an order so far", unit="count", minimum=1),
        "orders_30d": feature("int64", "Days with an order in the last 30 days", unit="count", minimum=0, maximum=30),
        "orders_90d": feature("int64", "Days with an order in the last 90 days", unit="count", minimum=0, maximum=90),
        "orders_180d": feature(
            "int64", "Days with an order in the last 180 days", unit="count", minimum=0, maximum=180
        ),
        "usd_all": feature("float64", "Value of all orders so far", unit="USD", minimum=0),
        "usd_90d": feature("float64", "Value of orders in the last 90 days", unit="USD", minimum=0),
        "aov": feature("float64", "Average value of a day with an order", unit="USD", minimum=0),
        "cds_all": feature("int64", "CDs ordered so far", unit="count", minimum=1),
        "first_usd": feature("float64", "Value of the first day with an order", unit="USD", minimum=0),
        "first_cds": feature("int64", "CDs of the first day with an order", unit="count", minimum=1),
        "mean_gap": feature("float64", "Mean days between two orders", unit="days", minimum=1, nullable=True),
        "rec_ratio": feature("float64", "recency over mean_gap", unit="ratio", minimum=0, nullable=True),
    },
    checks=[
        pa.Check(lambda rows: rows["event_time"] < rows["as_of"], error="no feature from the future"),
        pa.Check(lambda rows: rows["recency"] <= rows["tenure"], error="recency at most tenure"),
        pa.Check(_windows_nest, error="a shorter window holds at most what a longer one holds"),
    ],
    name="repurchase features",
    strict=True,
    unique=list(KEYS),
    report_duplicates="exclude_first",
)
