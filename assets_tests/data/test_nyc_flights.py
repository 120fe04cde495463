"""The real flights, weather and planes are what data.md says; what is wrong with them is set aside and named."""

from functools import cache

import pandas as pd
import pytest

from boucle.contracts.windows import Cadence, Period, period_of
from boucle.errors import ConfigurationError
from boucle.features.raw_source import LINE, RawRows, check_volume, read_rows
from boucle_platform.defs.flight_delay import landing
from boucle_platform.defs.flight_delay.schema import FLIGHTS, PLANES, SOURCES, WEATHER

PERIODS = landing.published_periods()
BY_NAME = {source.name: source for source in SOURCES}
LAST_WEATHER = pd.Timestamp("2013-12-30 23:00", tz="UTC")


def day(key: str) -> Period:
    return period_of(key, Cadence.DAILY)


@cache
def files(source: str) -> dict[str, pd.DataFrame]:
    exported = {key: landing.export_period(source, key) for key in PERIODS}
    return {key: rows for key, rows in exported.items() if rows is not None}


@cache
def everything(source: str) -> pd.DataFrame:
    return pd.concat([rows.assign(file=key) for key, rows in files(source).items()], ignore_index=True)


def read(source: str, key: str, rows: pd.DataFrame | None = None) -> RawRows:
    """One day's file as it lands."""
    text = files(source)[key] if rows is None else rows
    return read_rows(BY_NAME[source], day(key), text.assign(**{LINE: range(2, len(text) + 2)}))


def changed(source: str, key: str, **values: str) -> RawRows:
    """One day's file, with other values in its first row."""
    rows = files(source)[key].copy()
    for column, value in values.items():
        rows.loc[0, column] = value
    return read(source, key, rows)


def reasons(rows: RawRows) -> list[str]:
    return rows.rejected["reason"].tolist()


def original(member: str, columns: tuple[str, ...]) -> pd.DataFrame:
    file = landing._history_file(member)
    return pd.read_csv(file, dtype=str, keep_default_na=False)[list(columns)].replace("NA", "")


def flight_moments() -> pd.DataFrame:
    rows = everything("flights")
    hour = pd.to_datetime(rows["time_hour"])
    scheduled = hour + pd.to_timedelta(rows["sched_dep_time"].str[-2:].astype(int), unit="min")
    return rows.assign(hour=hour, as_of=scheduled - pd.Timedelta(hours=2))


# What is there


def test_the_history_has_366_utc_days():
    assert (len(PERIODS), PERIODS[0], PERIODS[-1]) == (366, "2013-01-01", "2014-01-01")


@pytest.mark.parametrize(
    ("source", "member", "count"),
    [("flights", "flights.csv.zip", 336_776), ("weather", "weather.csv", 26_115), ("planes", "planes.csv", 3_322)],
)
def test_all_files_together_are_the_data_set_each_row_once(source, member, count):
    columns = BY_NAME[source].column_names
    expected = original(member, columns).sort_values(list(columns), ignore_index=True)
    found = everything(source)[list(columns)].sort_values(list(columns), ignore_index=True)
    assert len(found) == count
    pd.testing.assert_frame_equal(found, expected)


def test_a_flight_is_in_the_file_of_the_utc_day_two_hours_before_its_departure():
    moments = flight_moments()
    start = pd.to_datetime(moments["file"], utc=True)
    assert (moments["as_of"] > start).all()
    assert (moments["as_of"] <= start + pd.Timedelta(days=1)).all()


def test_a_flight_asked_about_at_midnight_is_the_last_of_the_day_before():
    moments = flight_moments()
    at_midnight = moments[moments["as_of"] == pd.Timestamp("2013-01-03", tz="UTC")]
    assert set(at_midnight["sched_dep_time"]) == {"2100"}
    assert set(at_midnight["file"]) == {"2013-01-02"}


def test_weather_of_midnight_is_in_the_file_of_the_day_that_ends():
    hours = files("weather")["2013-04-01"]["time_hour"]
    assert (hours.min(), hours.max()) == ("2013-04-01T01:00:00Z", "2013-04-02T00:00:00Z")


def test_planes_come_with_the_first_day_only():
    assert list(files("planes")) == ["2013-01-01"]


def test_a_source_that_delivered_nothing_for_a_day_gives_no_file():
    assert sorted(set(PERIODS) - set(files("weather"))) == ["2013-12-31", "2014-01-01"]


def test_no_departure_is_so_early_that_it_would_be_known_when_the_flight_is_asked_about():
    assert pd.to_numeric(everything("flights")["dep_delay"]).min() == -43


def test_no_flight_arrives_later_than_its_outcome_is_taken_as_certain():
    # At as_of + 24 h, 22 h after the scheduled departure, every flight is 15 minutes late or will not be.
    rows = everything("flights")
    assert pd.to_numeric(rows["sched_arr_time"]).notna().all()
    on_time = pd.to_numeric(rows["arr_delay"]) < 15
    clock_minutes = pd.to_numeric(rows["dep_delay"])[on_time] + pd.to_numeric(rows["air_time"])[on_time]
    assert clock_minutes.max() < 22 * 60


# What is wrong with it


def test_the_wind_of_1048_miles_per_hour_is_set_aside():
    rows = read("weather", "2013-02-12")
    assert reasons(rows) == ["wind_speed: not 0 to 150 (value 1048.36058)"]
    assert rows.rejected[["origin", "time_hour"]].values.tolist() == [["EWR", "2013-02-12T08:00:00Z"]]  # 03:00 local
    assert len(rows.valid) == 71


def test_the_frost_of_8_may_is_set_aside():
    rows = read("weather", "2013-05-09")
    assert reasons(rows) == ["temp: not within 30 °F of the median of the file (value 13.1)"]
    assert rows.rejected[["origin", "time_hour"]].values.tolist() == [["JFK", "2013-05-09T02:00:00Z"]]  # 8 May, 22:00


def test_no_true_temperature_of_the_year_comes_near_that_rule():
    rows = everything("weather")
    temperature = pd.to_numeric(rows["temp"])
    away = (temperature - temperature.groupby(rows["file"]).transform("median")).abs().dropna().sort_values()
    assert away.iloc[-1] == pytest.approx(44.8, abs=0.1)
    assert away.iloc[-2] == pytest.approx(23.4, abs=0.1)


def test_departures_at_2400_are_set_aside():
    # 29 departures and 150 arrivals of the year were written as 2400.
    rows = everything("flights")
    assert ((rows["dep_time"] == "2400").sum(), (rows["arr_time"] == "2400").sum()) == (29, 150)
    keys = rows.loc[rows["dep_time"] == "2400", "file"].unique()
    found = pd.concat([read("flights", key).rejected for key in keys])
    at_midnight = found[found["dep_time"] == "2400"]
    assert len(at_midnight) == 29
    assert set(at_midnight["reason"]) == {"dep_time: not a time from 0001 to 2359 (value 2400)"}
    assert set(found.loc[found["dep_time"] != "2400", "arr_time"]) == {"2400"}


def test_weather_stops_a_day_before_the_flights_do():
    hours = pd.to_datetime(everything("weather")["time_hour"])
    assert hours.max() == LAST_WEATHER
    assert files("weather")["2013-12-30"]["time_hour"].max() == "2013-12-30T23:00:00Z"


def test_1556_flights_have_no_weather_of_their_hour_and_781_none_fresh_when_asked_about():
    moments = flight_moments()
    weather = everything("weather")[["origin", "time_hour"]]
    own_hour = moments.merge(weather, on=["origin", "time_hour"], how="left", indicator=True)
    assert (own_hour["_merge"] == "left_only").sum() == 1_556
    newest = pd.merge_asof(
        moments.sort_values("as_of"),
        weather.assign(observed_at=pd.to_datetime(weather["time_hour"])).sort_values("observed_at"),
        left_on="as_of",
        right_on="observed_at",
        by="origin",
    )
    stale = newest[~(newest["as_of"] - newest["observed_at"] < pd.Timedelta(hours=3))]
    assert len(stale) == 781
    assert (stale["as_of"] > LAST_WEATHER).all()


def test_planes_of_50094_flights_are_not_in_the_register():
    rows = everything("flights")
    known = rows["tailnum"].isin(everything("planes")["tailnum"])
    unknown = ~known & (rows["tailnum"] != "")
    assert unknown.sum() == 50_094
    share = unknown[rows["tailnum"] != ""].groupby(rows["carrier"]).mean()
    assert share.nlargest(2).round(2).to_dict() == {"MQ": 0.96, "AA": 0.69}


def test_2512_flights_have_no_tail_number_and_are_valid():
    rows = everything("flights")
    without = rows[rows["tailnum"] == ""]
    assert len(without) == 2_512
    assert set(without["dep_time"]) == {""}
    valid = read("flights", "2013-02-08").valid
    assert valid["tailnum"].isna().sum() == (files("flights")["2013-02-08"]["tailnum"] == "").sum() > 100


def test_8255_flights_were_cancelled_and_1175_diverted():
    rows = everything("flights")
    cancelled = rows["dep_time"] == ""
    diverted = ~cancelled & (rows["arr_delay"] == "")
    assert (cancelled.sum(), diverted.sum()) == (8_255, 1_175)


def test_the_storm_of_february_lands_whole():
    february = everything("flights").query("month == '2'")
    for local_day, flights, cancelled in (("8", 930, 472), ("9", 684, 393)):
        rows = february[february["day"] == local_day]
        assert (len(rows), (rows["dep_time"] == "").sum()) == (flights, cancelled)  # 51 % and 57 %
    for key in ("2013-02-08", "2013-02-09", "2013-02-10"):
        assert len(read("flights", key).rejected) <= 2  # written as 2400


def test_every_day_is_within_the_volume_limits():
    counts = [len(rows) for rows in files("flights").values()]
    ratios = [check_volume(count, counts[:n], FLIGHTS.limits, file="real") for n, count in enumerate(counts)]
    measured = [ratio for ratio in ratios if ratio is not None]
    assert measured[-1] == min(measured) == pytest.approx(0.030, abs=0.001)  # 29 flights on the last evening
    assert min(measured[:-1]) == pytest.approx(0.67, abs=0.01)  # the day after Thanksgiving


@pytest.mark.parametrize("key", ["2013-01-01", "2013-03-10", "2013-07-04", "2013-11-03", "2014-01-01"])
def test_ordinary_days_and_those_on_which_clocks_change_land_whole(key):
    for source in ("flights", "weather", "planes"):
        if key in files(source):
            assert set(reasons(read(source, key))) <= {"arr_time: not a time from 0001 to 2359 (value 2400)"}


# What would be wrong


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"origin": "BOS"}, "origin: not EWR, JFK or LGA (value BOS)"),
        ({"carrier": "united"}, "carrier: not text like [0-9A-Z]{2} (value united)"),
        ({"dep_time": "0"}, "dep_time: not a time from 0001 to 2359 (value 0)"),
        ({"dep_time": "1161"}, "dep_time: not a time with minutes below 60 (value 1161)"),
        ({"dep_delay": "33"}, "breaks the rule 'dep_time is sched_dep_time plus dep_delay, or both are missing'"),
        ({"dep_time": "", "dep_delay": ""}, "breaks the rule 'arr_time is sched_arr_time plus arr_delay, after a dep"),
        ({"arr_delay": "5000"}, "arr_delay: not -180 to 2880 (value 5000)"),
        ({"time_hour": "2013-05-03T10:00:00Z"}, "time_hour: not an hour from 2013-04-02T02:00Z to 2013-04-03T02:00Z"),
        ({"day": "3"}, "breaks the rule 'year, month, day and sched_dep_time are time_hour in New York'"),
    ],
)
def test_a_broken_flight_is_set_aside_with_the_rule(values, reason):
    rows = changed("flights", "2013-04-02", **values)
    assert len(rows.rejected) == 1
    assert reason in rows.rejected["reason"].iloc[0]


@pytest.mark.parametrize("key", ["2013-04-01", "2013-04-03"])
def test_a_flight_in_the_file_of_another_day_is_set_aside(key):
    rows = read(
        "flights",
        "2013-04-02",
        pd.concat([files("flights")["2013-04-02"], files("flights")[key].head(1)], ignore_index=True),
    )
    assert len(rows.rejected) == 1
    assert "time_hour: not an hour from" in reasons(rows)[0]


def test_a_flight_at_the_very_start_of_the_file_s_first_hour_belongs_to_the_day_before():
    at_midnight = files("flights")["2013-01-02"].query("sched_dep_time == '2100'").head(1)
    rows = read("flights", "2013-01-03", pd.concat([files("flights")["2013-01-03"], at_midnight], ignore_index=True))
    assert reasons(rows) == ["breaks the rule 'first asked about on 2013-01-03, two hours before departure'"]


@pytest.mark.parametrize("source", [FLIGHTS.name, WEATHER.name, PLANES.name])
def test_a_row_sent_twice_is_kept_once(source):
    text = files(source)["2013-01-01"]
    rows = read(source, "2013-01-01", pd.concat([text, text.tail(1)], ignore_index=True))
    assert reasons(rows) == ["duplicate row"]
    assert len(rows.valid) == len(text)


def test_weather_of_the_next_day_is_set_aside():
    rows = changed("weather", "2013-04-01", time_hour="2013-04-02T01:00:00Z")
    assert reasons(rows) == [
        "time_hour: not after 2013-04-01T00:00Z and until 2013-04-02T00:00Z (value 2013-04-02 01:00:00+00:00)"
    ]


def test_a_day_or_source_outside_the_history_is_named():
    with pytest.raises(ConfigurationError, match="no period '2012-12-31' of 'flights'; they go from 2013-01-01"):
        landing.export_period("flights", "2012-12-31")
    with pytest.raises(ConfigurationError, match="no period '2013-04-01' of 'trains'"):
        landing.export_period("trains", "2013-04-01")


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    def absent(name: str) -> None:
        raise landing.PackageNotFoundError(name)

    monkeypatch.setattr(landing, "distribution", absent)
    with pytest.raises(ConfigurationError, match=r"extra \[examples\]"):
        landing._history_file("flights.csv.zip")
