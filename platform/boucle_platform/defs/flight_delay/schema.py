"""The data contracts of `flight_delay`: raw rows and features.

Columns, types, units, ranges, null rates, volume and freshness are said here and nowhere else.
"""

from typing import Any

import pandas as pd
import pandera.pandas as pa

from boucle.contracts.ids import ModelName
from boucle.contracts.windows import Period
from boucle.features.contract import feature
from boucle.features.freshness import FreshnessPolicy
from boucle.features.raw_source import LandingLimits, RawSource

KEYS = ("flight_id", "as_of")
LEAD_MINUTES = 120
"""A flight is asked about this long before its scheduled departure."""
MAX_TEMPERATURE_STEP = 30.0
"""°F from the median of the file. The airports lie 30 km apart: in 2013 the farthest true value is 23.4 °F away."""

_DAY_MINUTES = 24 * 60


def flights_schema(period: Period) -> pa.DataFrameSchema:
    """The contract of one day's flights. One first asked about on another day, so also one in the future, breaks it.

    Cancelled flights (no `dep_time`) and diverted ones (no `arr_delay`) are valid, and so is a missing tail number.
    """
    asked_from, asked_to = _naive(period.start), _naive(period.end)
    lead = pd.Timedelta(minutes=LEAD_MINUTES)

    def is_asked_in_period(rows: pd.DataFrame) -> "pd.Series[bool]":
        minutes = pd.to_timedelta(rows["sched_dep_time"] % 100, unit="min")
        asked = rows["time_hour"].dt.tz_localize(None) + minutes - lead
        in_period: pd.Series[bool] = asked.between(asked_from, asked_to, inclusive="right")
        return in_period

    hours = f"an hour from {asked_from + lead:%Y-%m-%dT%H:%MZ} to {asked_to + lead:%Y-%m-%dT%H:%MZ}"
    return pa.DataFrameSchema(
        {
            "year": pa.Column("int64", description="Year of the scheduled departure, local"),
            "month": _integer(1, 12, "Month of the scheduled departure, local"),
            "day": _integer(1, 31, "Day of the scheduled departure, local"),
            "dep_time": _clock("Departure, HHMM local; missing if cancelled", nullable=True),
            "sched_dep_time": _clock("Scheduled departure, HHMM local"),
            # Earlier than LEAD_MINUTES before the schedule would be known before the flight is asked about.
            "dep_delay": _integer(1 - LEAD_MINUTES, 2 * _DAY_MINUTES, "Delay of the departure, minutes", nullable=True),
            "arr_time": _clock("Arrival, HHMM local at the destination", nullable=True),
            "sched_arr_time": _clock("Scheduled arrival, HHMM local at the destination"),
            "arr_delay": _integer(
                -180, 2 * _DAY_MINUTES, "Delay of the arrival, minutes; missing if diverted", nullable=True
            ),
            "carrier": _text("[0-9A-Z]{2}", "Carrier, two-letter code"),
            "flight": _integer(1, 9999, "Flight number"),
            "tailnum": _text("[0-9A-Z]{5,6}", "Tail number of the plane", nullable=True),
            "origin": _origin(),
            "dest": _text("[A-Z]{3}", "Destination, three-letter code"),
            "air_time": _integer(10, 1000, "Time in the air, minutes", nullable=True),
            "distance": _integer(10, 6000, "Distance, miles"),
            "time_hour": pa.Column(
                pd.DatetimeTZDtype("us", "UTC"),
                pa.Check.in_range(_utc(asked_from + lead), _utc(asked_to + lead), error=hours),
                description="Hour of the scheduled departure (UTC)",
            ),
        },
        checks=[
            pa.Check(is_asked_in_period, error=f"first asked about on {period.key}, two hours before departure"),
            pa.Check(_local_time_agrees, error="year, month, day and sched_dep_time are time_hour in New York"),
            pa.Check(_departure_agrees, error="dep_time is sched_dep_time plus dep_delay, or both are missing"),
            pa.Check(_arrival_agrees, error="arr_time is sched_arr_time plus arr_delay, after a departure"),
        ],
        name="raw flights",
        strict=True,
        unique=["carrier", "flight", "origin", "year", "month", "day"],
        report_duplicates="exclude_first",
    )


def weather_schema(period: Period) -> pa.DataFrameSchema:
    """The contract of one day's hourly weather at the three airports."""
    start, end = _utc(_naive(period.start)), _utc(_naive(period.end))
    in_period = pa.Check.in_range(
        start, end, include_min=False, error=f"after {start:%Y-%m-%dT%H:%MZ} and until {end:%Y-%m-%dT%H:%MZ}"
    )
    near_median = pa.Check(
        lambda values: (values - values.median()).abs() <= MAX_TEMPERATURE_STEP,
        error=f"within {MAX_TEMPERATURE_STEP:g} °F of the median of the file",
    )
    return pa.DataFrameSchema(
        {
            "origin": _origin(),
            "temp": pa.Column("float64", near_median, nullable=True, description="Temperature, °F"),
            "dewp": _number(-60, 100, "Dew point, °F", nullable=True),
            "humid": _number(0, 100, "Relative humidity, per cent", nullable=True),
            "wind_dir": _number(0, 360, "Wind direction, degrees", nullable=True),
            "wind_speed": _number(0, 150, "Wind, miles per hour", nullable=True),
            "wind_gust": _number(0, 200, "Gusts, miles per hour", nullable=True),
            "precip": _number(0, 12, "Precipitation of the hour, inches"),
            "pressure": _number(850, 1100, "Sea level pressure, millibars", nullable=True),
            "visib": _number(0, 10, "Visibility, miles; 10 is the most that is reported"),
            "time_hour": pa.Column(pd.DatetimeTZDtype("us", "UTC"), in_period, description="Hour of the values (UTC)"),
        },
        name="raw weather",
        strict=True,
        unique=["origin", "time_hour"],
        report_duplicates="exclude_first",
    )


def planes_schema(period: Period) -> pa.DataFrameSchema:
    """The contract of the register of planes. A plane built after the day of its delivery's year breaks it."""
    return pa.DataFrameSchema(
        {
            "tailnum": _text("[0-9A-Z]{5,6}", "Tail number"),
            "year": _integer(1903, period.end.year, "Year of manufacture", nullable=True),
            "type": pa.Column(str, description="Kind of plane"),
            "manufacturer": pa.Column(str, description="Manufacturer"),
            "model": pa.Column(str, description="Model"),
            "engines": _integer(1, 8, "Number of engines, count"),
            "seats": _integer(1, 900, "Number of seats, count"),
            "speed": _integer(50, 1000, "Cruising speed, miles per hour", nullable=True),
            "engine": pa.Column(str, description="Kind of engine"),
        },
        name="raw planes",
        strict=True,
        unique=["tailnum"],
        report_duplicates="exclude_first",
    )


_MODEL = ModelName("flight_delay")
_DAILY = FreshnessPolicy(warn_days=2, fail_days=3)
FLIGHTS = RawSource(
    model=_MODEL,
    name="flights",
    schema=flights_schema,
    # The real history: up to 0.0042 set aside; a day has 0.66 to 1.16 of the median, the last evening 0.03.
    limits=LandingLimits(max_rejected_share=0.02, min_volume_ratio=0.02, max_volume_ratio=2),
    freshness=_DAILY,
)
WEATHER = RawSource(
    model=_MODEL,
    name="weather",
    schema=weather_schema,
    # One hour of 72 is 0.014; a day has 0.83 to 1.31 of the median.
    limits=LandingLimits(max_rejected_share=0.1, min_volume_ratio=0.5, max_volume_ratio=2),
    freshness=_DAILY,
    # A flight is asked about all the same; the model knows missing weather.
    required=False,
)
PLANES = RawSource(
    model=_MODEL,
    name="planes",
    schema=planes_schema,
    limits=LandingLimits(max_rejected_share=0.05, min_volume_ratio=0.5, max_volume_ratio=2),
    # A register that is sent once.
    freshness=FreshnessPolicy(warn_days=400, fail_days=800),
    required=False,
)
SOURCES = (FLIGHTS, WEATHER, PLANES)


def _integer(minimum: int, maximum: int, description: str, *, nullable: bool = False) -> pa.Column:
    check = pa.Check.in_range(minimum, maximum, error=f"{minimum} to {maximum}")
    return pa.Column("Int64" if nullable else "int64", check, nullable=nullable, description=description)


def _number(minimum: float, maximum: float, description: str, *, nullable: bool = False) -> pa.Column:
    check = pa.Check.in_range(minimum, maximum, error=f"{minimum:g} to {maximum:g}")
    return pa.Column("float64", check, nullable=nullable, description=description)


def _clock(description: str, *, nullable: bool = False) -> pa.Column:
    checks = [
        pa.Check.in_range(1, 2359, error="a time from 0001 to 2359"),
        pa.Check(lambda times: times % 100 < 60, error="a time with minutes below 60"),
    ]
    return pa.Column("Int64" if nullable else "int64", checks, nullable=nullable, description=description)


def _text(pattern: str, description: str, *, nullable: bool = False) -> pa.Column:
    check = pa.Check.str_matches(f"^{pattern}$", error=f"text like {pattern}")
    return pa.Column(str, check, nullable=nullable, description=description)


def _origin() -> pa.Column:
    check = pa.Check.isin(["EWR", "JFK", "LGA"], error="EWR, JFK or LGA")
    return pa.Column(str, check, description="Airport of departure")


def _naive(moment: Any) -> pd.Timestamp:
    return pd.Timestamp(moment).tz_convert("UTC").tz_localize(None)


def _utc(moment: pd.Timestamp) -> pd.Timestamp:
    return moment.tz_localize("UTC")


def _minute_of_day(times: "pd.Series[Any]") -> "pd.Series[Any]":
    return times // 100 * 60 + times % 100


def _local_time_agrees(rows: pd.DataFrame) -> "pd.Series[bool]":
    written = pd.to_datetime(rows[["year", "month", "day"]], errors="coerce")
    written += pd.to_timedelta(rows["sched_dep_time"] // 100, unit="h")
    agrees: pd.Series[bool] = rows["time_hour"].dt.tz_convert("America/New_York").dt.tz_localize(None).eq(written)
    return agrees


def _departure_agrees(rows: pd.DataFrame) -> "pd.Series[bool]":
    return _is_delayed_by(rows["sched_dep_time"], rows["dep_delay"], rows["dep_time"]) | (
        rows["dep_time"].isna() & rows["dep_delay"].isna()
    )


def _arrival_agrees(rows: pd.DataFrame) -> "pd.Series[bool]":
    agrees = _is_delayed_by(rows["sched_arr_time"], rows["arr_delay"], rows["arr_time"]) | rows["arr_delay"].isna()
    return agrees & (rows["dep_time"].notna() | (rows["arr_time"].isna() & rows["arr_delay"].isna()))


def _is_delayed_by(scheduled: "pd.Series[Any]", delay: "pd.Series[Any]", actual: "pd.Series[Any]") -> "pd.Series[bool]":
    off = (_minute_of_day(scheduled) + delay - _minute_of_day(actual)) % _DAY_MINUTES
    return (off == 0).fillna(value=False).astype(bool)


def _windows_nest(rows: pd.DataFrame) -> "pd.Series[bool]":
    made, recent = rows["dep_n3"] > 0, rows["dep_mean1"].notna()
    return (rows["dep_mean3"].notna() == made) & (rows["dep_late3"].notna() == made) & (made | ~recent)


def _share(description: str) -> pa.Column:
    return feature("float64", description, unit="ratio", minimum=0, maximum=1)


def _origin_flag(airport: str) -> pa.Column:
    return feature("int64", f"1 if the flight leaves from {airport}, else 0", unit="flag", minimum=0, maximum=1)


def _weather(description: str, *, unit: str, maximum: float) -> pa.Column:
    text = f"{description}, newest weather at the origin not older than 3 h"
    return feature("float64", text, unit=unit, minimum=0, maximum=maximum, nullable=True)


FEATURES = pa.DataFrameSchema(
    {
        "flight_id": _text(
            r"[0-9A-Z]{2}-\d{1,4}-(EWR|JFK|LGA)-\d{4}-\d{2}-\d{2}",
            "The flight: carrier-flight-origin-YYYY-MM-DD, date of departure, local",
        ),
        "as_of": pa.Column("datetime64[us]", description="Two hours before the scheduled departure (UTC)"),
        "event_time": pa.Column("datetime64[us]", nullable=True, description="Newest event that counts (UTC)"),
        "available_at": pa.Column(
            "datetime64[us]", nullable=True, description="Moment from which all that counts was known (UTC)"
        ),
        "is_ewr": _origin_flag("EWR"),
        "is_jfk": _origin_flag("JFK"),
        "is_lga": _origin_flag("LGA"),
        "day_of_week": feature(
            "int64", "Local day of the scheduled departure, 1 is Monday", unit="day", minimum=1, maximum=7
        ),
        "minute_of_day": feature(
            "int64", "Scheduled departure after local midnight", unit="minutes", minimum=0, maximum=1439
        ),
        "distance": feature("int64", "Distance to the destination", unit="miles", minimum=10, maximum=6000),
        "sched_clock_minutes": feature(
            "int64",
            "Scheduled arrival minus departure by the local clocks, modulo a day: the duration plus the time zones",
            unit="minutes",
            minimum=0,
            maximum=1439,
        ),
        "plane_age": feature(
            "float64",
            "Year of departure minus year of manufacture",
            unit="years",
            minimum=-1,
            maximum=120,
            nullable=True,
        ),
        "seats": feature("float64", "Seats of the plane", unit="count", minimum=1, maximum=900, nullable=True),
        "flt28": _share("Late arrivals of this flight number in 28 days, (late + 1) / (n + 5)"),
        "dest28": _share("Late arrivals at the destination in 28 days, (late + 2) / (n + 10)"),
        "co28": _share("Late arrivals of the carrier from the origin in 28 days, (late + 2) / (n + 10)"),
        "dep_n3": feature("int64", "Departures from the origin in the last 3 h", unit="count", minimum=0),
        "dep_mean3": feature(
            "float64", "Mean delay of departures from the origin in the last 3 h", unit="minutes", nullable=True
        ),
        "dep_late3": feature(
            "float64",
            "Share of departures from the origin in the last 3 h that were at least 15 minutes late",
            unit="ratio",
            minimum=0,
            maximum=1,
            nullable=True,
        ),
        "dep_mean1": feature(
            "float64", "Mean delay of departures from the origin in the last hour", unit="minutes", nullable=True
        ),
        "backlog6": feature(
            "int64",
            "Flights scheduled to leave the origin in the last 6 h that have not left, cancelled ones too",
            unit="count",
            minimum=0,
        ),
        "humid": _weather("Relative humidity", unit="per cent", maximum=100),
        "wind_speed": _weather("Wind", unit="miles per hour", maximum=150),
        "wind_gust": _weather("Gusts, missing when there are none", unit="miles per hour", maximum=200),
        "precip": _weather("Precipitation of the hour", unit="inches", maximum=12),
        "visib": _weather("Visibility", unit="miles", maximum=10),
    },
    checks=[
        pa.Check(lambda rows: ~(rows["event_time"] > rows["as_of"]), error="no feature from the future"),
        pa.Check(lambda rows: ~(rows["available_at"] < rows["event_time"]), error="an event is known when it happened"),
        pa.Check(
            lambda rows: rows["is_ewr"] + rows["is_jfk"] + rows["is_lga"] == 1, error="exactly one airport of departure"
        ),
        pa.Check(_windows_nest, error="departures in the last hour are among those of the last 3 h"),
    ],
    name="flight_delay features",
    strict=True,
    unique=list(KEYS),
    report_duplicates="exclude_first",
)
