"""dbt's features of real flights: the same in one build or day by day, those of a slow program, blind to the future."""

import os
import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import duckdb
import pandas as pd
import pytest

from assets_tests.dbt.dbt_world import DbtWorld
from boucle.contracts.windows import Cadence, period_of
from boucle.features.contract import apply_contract, feature_specs
from boucle.features.digest import content_digest
from boucle.features.raw_source import LINE, read_rows
from boucle_adapters.settings import Settings
from boucle_platform.defs.flight_delay import landing
from boucle_platform.defs.flight_delay.schema import FEATURES, SOURCES
from boucle_platform.model_loop.dbt_build import SILENT, run_dbt
from boucle_platform.model_loop.dbt_project import parsed_project

# A dozen starts of dbt; a busy machine takes ten seconds for each.
pytestmark = pytest.mark.timeout(600)

FEATURE_NAMES = [spec.name for spec in feature_specs(FEATURES)]
KEYS = ["flight_id", "as_of"]
MODELS = ("--select", "path:models/flight_delay")
# The storm of 8 and 9 February and what its rows can count: 28 days of outcomes, a day old.
LANDED_FROM, LANDED_TO = "2013-01-10", "2013-02-11"
START, END = pd.Timestamp("2013-02-08"), pd.Timestamp("2013-02-11")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
DAYS = [START + n * DAY for n in range(3)]
CUTS = [pd.Timestamp("2013-02-08 21:10"), pd.Timestamp("2013-02-10")]
CORRECTED_DAY, CORRECTED_AT = "2013-02-05", pd.Timestamp("2013-02-09 12:00")


@dataclass(frozen=True)
class Flight:
    """A flight of the raw rows, in naive UTC."""

    flight_id: str
    carrier: str
    number: int
    origin: str
    destination: str
    scheduled_at: datetime
    as_of: datetime
    departed_at: datetime | None
    delay: int | None
    is_late: bool | None
    tail_number: str | None
    row: dict[str, object]


@dataclass(frozen=True)
class Story:
    """What builds of one range, of its days, of a past without future and of a correction made."""

    world: DbtWorld
    said: str
    in_one: pd.DataFrame
    labels_in_one: pd.DataFrame
    by_day: pd.DataFrame
    labels_by_day: list[pd.DataFrame]
    without_future: dict[datetime, pd.DataFrame]
    with_correction: pd.DataFrame


def land_weeks(connection: duckdb.DuckDBPyConnection) -> None:
    """The real files in the raw layout, each landed when its day was over."""
    keys = [key for key in landing.published_periods() if LANDED_FROM <= key <= LANDED_TO]
    connection.execute("CREATE SCHEMA raw")
    for source in SOURCES:
        columns = ", ".join(f'"{column.name}" {column.kind.value}' for column in source.columns)
        connection.execute(
            f'CREATE TABLE raw."{source.name}" ({columns}, period VARCHAR, version INTEGER, source_file VARCHAR, '
            "content_digest VARCHAR, landed_at TIMESTAMPTZ)"
        )
        for key in ["2013-01-01"] if source.name == "planes" else keys:
            text, period = landing.export_period(source.name, key), period_of(key, Cadence.DAILY)
            assert text is not None
            rows = read_rows(source, period, text.assign(**{LINE: range(2, len(text) + 2)})).valid
            rows = rows.assign(period=key, version=1, source_file="f", content_digest="d", landed_at=period.end)
            connection.execute(f'INSERT INTO raw."{source.name}" SELECT * FROM rows')


def window(start: datetime, end: datetime, known_at: datetime | None) -> dict[str, str]:
    return {
        "BOUCLE_PERIOD_START": start.isoformat(" "),
        "BOUCLE_PERIOD_END": end.isoformat(" "),
        "BOUCLE_KNOWN_AT": "" if known_at is None else known_at.isoformat(" "),
        "BOUCLE_HORIZON_DAYS": "1",
    }


def first_build(world: DbtWorld, start: datetime, end: datetime) -> str:
    """Build with all tests, in a process of its own; return what dbt said."""
    done = world.dbt("build", *MODELS, window=window(start, end, known_at=start))
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def run(world: DbtWorld, start: datetime, end: datetime, *, known_at: datetime | None) -> None:
    """Build without tests in this process, as a step does."""
    with patch.dict(os.environ, window(start, end, known_at) | world.environment), world.warehouse.lock():
        _, error = run_dbt([*SILENT, "run", *MODELS], parsed_project(Settings(home=world.home)))
    assert not error


def features(world: DbtWorld) -> pd.DataFrame:
    return world.warehouse.query("SELECT * FROM flight_delay_features ORDER BY as_of, flight_id, restated")


def labels(world: DbtWorld) -> pd.DataFrame:
    return world.warehouse.query("SELECT * FROM flight_delay_labels ORDER BY as_of, flight_id")


def forget(world: DbtWorld) -> None:
    with world.warehouse.connect() as connection:
        connection.execute("DROP TABLE flight_delay_features; DROP TABLE flight_delay_labels")


def forget_the_future(world: DbtWorld, cut: datetime) -> None:
    """Take away every raw fact that became available after `cut`, and flights that nobody had asked about."""
    with world.warehouse.connect() as connection:
        connection.execute("CREATE SCHEMA all_facts")
        for source in ("flights", "weather"):
            connection.execute(f"CREATE TABLE all_facts.{source} AS FROM raw.{source}")
        scheduled = "(time_hour AT TIME ZONE 'UTC') + to_minutes(sched_dep_time % 100)"
        at = f"TIMESTAMP '{cut}'"
        connection.execute(f"DELETE FROM raw.weather WHERE time_hour AT TIME ZONE 'UTC' > {at}")
        connection.execute(f"DELETE FROM raw.flights WHERE {scheduled} - INTERVAL 2 HOURS > {at}")
        outcome = "arr_delay = NULL, arr_time = NULL, air_time = NULL"
        connection.execute(f"UPDATE raw.flights SET {outcome} WHERE {scheduled} + INTERVAL 22 HOURS > {at}")
        departure = "dep_delay = NULL, dep_time = NULL"
        connection.execute(f"UPDATE raw.flights SET {departure} WHERE {scheduled} + to_minutes(dep_delay) > {at}")


def remember_the_future(world: DbtWorld) -> None:
    with world.warehouse.connect() as connection:
        for source in ("flights", "weather"):
            connection.execute(f"DELETE FROM raw.{source}; INSERT INTO raw.{source} FROM all_facts.{source}")
        connection.execute("DROP SCHEMA all_facts CASCADE")


def correct_a_day(world: DbtWorld) -> None:
    """A second version of one day, in which every flight arrived on time."""
    with world.warehouse.connect() as connection:
        connection.execute(
            "INSERT INTO raw.flights SELECT * REPLACE (2 AS version, least(arr_delay, 0) AS arr_delay, "
            f"TIMESTAMPTZ '{CORRECTED_AT}+00' AS landed_at) FROM raw.flights WHERE period = '{CORRECTED_DAY}'"
        )


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    home: Path = tmp_path_factory.mktemp("flights")
    world = DbtWorld(home)
    with world.warehouse.connect() as connection:
        land_weeks(connection)
    said = first_build(world, START, END)
    in_one, labels_in_one = features(world), labels(world)
    forget(world)
    labels_by_day = []
    for day in DAYS:
        run(world, day, day + DAY, known_at=day)
        labels_by_day.append(labels(world))
    by_day = features(world)
    without_future = {}
    for cut in CUTS:
        forget_the_future(world, cut)
        run(world, START, END, known_at=START)
        without_future[cut] = features(world)
        remember_the_future(world)
    correct_a_day(world)
    run(world, START, END, known_at=START)
    run(world, START, END, known_at=None)
    return Story(
        world=world,
        said=said,
        in_one=in_one,
        labels_in_one=labels_in_one,
        by_day=by_day,
        labels_by_day=labels_by_day,
        without_future=without_future,
        with_correction=features(world),
    )


@pytest.fixture(scope="module")
def facts(story):
    """All flights, weather and planes as plain Python values."""
    rows = story.world.warehouse.query("SELECT * FROM raw.flights WHERE version = 1").astype(object)
    weather = story.world.warehouse.query("SELECT * FROM raw.weather").astype(object)
    planes = story.world.warehouse.query("SELECT * FROM raw.planes").astype(object)
    return (
        [flight(row) for row in rows.where(rows.notna(), None).to_dict("records")],
        weather.where(weather.notna(), None).to_dict("records"),
        planes.where(planes.notna(), None).set_index("tailnum").to_dict("index"),
    )


def flight(row: dict) -> Flight:
    scheduled = naive(row["time_hour"]) + timedelta(minutes=row["sched_dep_time"] % 100)
    day = f"{row['year']}-{row['month']:02d}-{row['day']:02d}"
    return Flight(
        flight_id=f"{row['carrier']}-{row['flight']}-{row['origin']}-{day}",
        carrier=row["carrier"],
        number=row["flight"],
        origin=row["origin"],
        destination=row["dest"],
        scheduled_at=scheduled,
        as_of=scheduled - 2 * HOUR,
        departed_at=None if row["dep_delay"] is None else scheduled + timedelta(minutes=row["dep_delay"]),
        delay=row["dep_delay"],
        is_late=None if row["arr_delay"] is None else row["arr_delay"] >= 15,
        tail_number=row["tailnum"],
        row=row,
    )


def naive(moment: pd.Timestamp) -> datetime:
    return moment.to_pydatetime().astimezone(UTC).replace(tzinfo=None)


def slow_features(asked: Flight, flights: list[Flight], weather: list[dict], planes: dict) -> dict[str, float | None]:
    """The features of one flight, one obvious pass over everything for each."""
    as_of = asked.as_of
    midnight = datetime.combine((as_of - timedelta(microseconds=1)).date(), datetime.min.time())
    settled = [
        other for other in flights if other.is_late is not None and midnight - 28 * DAY < other.as_of + DAY <= midnight
    ]
    here = [other for other in flights if other.origin == asked.origin]
    last3 = [f for f in here if f.departed_at is not None and as_of - 3 * HOUR < f.departed_at <= as_of]
    last1 = [f for f in last3 if f.departed_at > as_of - HOUR]
    due = [f for f in here if as_of - 6 * HOUR < f.scheduled_at <= as_of]
    fresh = [
        row for row in weather if row["origin"] == asked.origin and as_of - 3 * HOUR < naive(row["time_hour"]) <= as_of
    ]
    observed = max(fresh, key=lambda row: row["time_hour"], default={})
    plane = planes.get(asked.tail_number, {})
    row = asked.row
    year = int(row["year"])
    return {
        **{f"is_{code.lower()}": float(asked.origin == code) for code in ("EWR", "JFK", "LGA")},
        "day_of_week": date(year, row["month"], row["day"]).isoweekday(),
        "minute_of_day": minutes(row["sched_dep_time"]),
        "distance": row["distance"],
        "sched_clock_minutes": (minutes(row["sched_arr_time"]) - minutes(row["sched_dep_time"])) % 1440,
        "plane_age": None if plane.get("year") is None else year - plane["year"],
        "seats": plane.get("seats"),
        "flt28": rate([f for f in settled if (f.carrier, f.number) == (asked.carrier, asked.number)], 1, 5),
        "dest28": rate([f for f in settled if f.destination == asked.destination], 2, 10),
        "co28": rate([f for f in settled if (f.carrier, f.origin) == (asked.carrier, asked.origin)], 2, 10),
        "dep_n3": len(last3),
        "dep_mean3": mean([f.delay for f in last3]),
        "dep_late3": mean([int(f.delay >= 15) for f in last3]),
        "dep_mean1": mean([f.delay for f in last1]),
        "backlog6": sum(f.departed_at is None or f.departed_at > as_of for f in due),
        **{name: observed.get(name) for name in ("humid", "wind_speed", "wind_gust", "precip", "visib")},
    }


def minutes(clock: int) -> int:
    return clock // 100 * 60 + clock % 100


def rate(known: list[Flight], late: int, count: int) -> float:
    return (sum(bool(f.is_late) for f in known) + late) / (len(known) + count)


def mean(values: list[int]) -> float | None:
    return sum(values) / len(values) if values else None


def test_a_build_runs_every_test_and_unit_test_and_all_pass(story):
    assert "ERROR=0" in story.said
    for name in (
        "a_departure_counts_from_its_moment_on_for_its_window",
        "an_outcome_counts_from_the_midnight_on_at_which_it_is_certain_for_28_days",
        "a_flight_label_exists_only_once_its_horizon_has_passed",
        "nothing_is_known_too_early",
    ):
        assert any(name in line and "PASS" in line for line in story.said.splitlines()), name


def test_every_real_row_meets_the_contract_in_the_order_of_its_columns(story):
    rows = story.in_one.drop(columns="restated")
    assert list(rows.columns) == [*KEYS, "event_time", "available_at", *FEATURE_NAMES]
    assert apply_contract(FEATURES, rows).rejected.empty


def test_a_build_makes_exactly_the_flights_of_its_window(story, facts):
    expected = sorted((f.as_of, f.flight_id) for f in facts[0] if START < f.as_of <= END)
    found = list(zip(story.in_one["as_of"].tolist(), story.in_one["flight_id"], strict=True))
    assert found == expected
    assert any(as_of == END for as_of, _ in found)


def test_one_build_over_a_range_equals_a_build_a_day(story):
    assert content_digest(story.in_one, KEYS) == content_digest(story.by_day, KEYS)
    pd.testing.assert_frame_equal(story.labels_in_one, story.labels_by_day[-1])


def test_sql_features_equal_the_slow_program(story, facts):
    asked = [f for f in facts[0] if START < f.as_of <= END]
    at_midnight = [f for f in asked if f.as_of.time() == datetime.min.time()]
    sample = {f.flight_id: f for f in [*random.Random(7).sample(asked, 60), *at_midnight[:3]]}
    slow = pd.DataFrame([slow_features(f, *facts) for f in sample.values()], index=list(sample), dtype="float64")
    found = story.in_one.set_index("flight_id").loc[list(sample), FEATURE_NAMES].astype("float64")
    pd.testing.assert_frame_equal(found, slow[FEATURE_NAMES], rtol=1e-12, check_names=False)
    assert (found["backlog6"] > 50).any()  # the storm


def test_nothing_that_counts_is_younger_than_as_of_or_older_than_it_must_be(story):
    rows = story.in_one
    assert (rows["available_at"] <= rows["as_of"]).all()
    assert (rows["event_time"] == rows["available_at"]).all()
    assert (rows["event_time"] >= (rows["as_of"] - pd.Timedelta(1, "us")).dt.normalize()).all()


@pytest.mark.parametrize("cut", CUTS, ids=str)
def test_taking_away_every_fact_of_the_future_changes_no_row(story, cut):
    def known(rows: pd.DataFrame) -> pd.DataFrame:
        return rows[rows["as_of"] <= cut].reset_index(drop=True)

    assert len(known(story.in_one)) > 700
    assert content_digest(known(story.without_future[cut]), KEYS) == content_digest(known(story.in_one), KEYS)
    assert (story.without_future[cut]["as_of"] <= cut).all()


def test_no_label_appears_before_it_is_known(story):
    for day, found in zip(DAYS, story.labels_by_day, strict=True):
        assert (found["known_at"] <= day + DAY).all()
    assert (story.labels_in_one["known_at"] == story.labels_in_one["as_of"] + DAY).all()


def test_every_row_has_its_label_a_day_later_and_cancelled_flights_none(story, facts):
    expected = {f.flight_id: f.is_late for f in facts[0] if START < f.as_of <= END - DAY}
    found = story.labels_in_one.astype(object)
    assert dict(zip(found["flight_id"], found["label"].where(found["label"].notna(), None), strict=True)) == expected
    assert sum(late is None for late in expected.values()) > 850  # the storm


def test_a_correction_that_landed_later_makes_restated_rows_and_leaves_the_others(story):
    rows = story.with_correction
    regular, restated = (rows[rows["restated"] == late].reset_index(drop=True) for late in (False, True))
    assert content_digest(regular, KEYS) == content_digest(story.in_one, KEYS)
    assert len(restated) == len(regular)
    assert (restated["available_at"] == restated["event_time"].clip(lower=CORRECTED_AT)).all()
    assert (restated["co28"] <= regular["co28"]).all()
    assert (restated["co28"] < regular["co28"]).mean() > 0.9
