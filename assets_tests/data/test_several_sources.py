"""A model with several sources: what is required is waited for, what is not is loaded without."""

from pathlib import Path

import pytest

from boucle.contracts.verdict import Verdict
from boucle.errors import LandingError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.steps.landing import NO_FILE, feed, file_of, freshness, landed_files, load

SPEC = spec_of("flight_delay")
FIRST, SECOND = (SPEC.period(f"2013-01-0{day}") for day in (1, 2))


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """The first two days have landed; planes are a register that comes with the first one."""
    made = Home(Settings(home=tmp_path))
    feed(made, SPEC)
    feed(made, SPEC)
    return made


def test_a_day_lands_the_files_that_its_sources_deliver(home: Home):
    landed = {
        period.key: [source for source in SPEC.sources if file_of(home, SPEC, source, period).exists()]
        for period in (FIRST, SECOND)
    }
    assert landed == {"2013-01-01": ["flights", "weather", "planes"], "2013-01-02": ["flights", "weather"]}
    assert set(landed_files(home, SPEC)) == {"2013-01-01", "2013-01-02"}


def test_each_source_is_loaded_into_a_table_of_its_own(home: Home):
    rows = {source: load(home, SPEC, source, FIRST).receipt.rows for source in SPEC.sources}
    assert rows == {"flights": 809, "weather": 55, "planes": 3_322}
    assert home.warehouse.query("select count(*) as n from raw.planes")["n"].tolist() == [3_322]


def test_without_a_file_that_is_not_required_nothing_is_known_of_it_and_sql_finds_an_empty_table(home: Home):
    loaded = load(home, SPEC, "planes", SECOND)
    assert loaded.receipt is None
    assert (loaded.gate.verdict, loaded.gate.measured, loaded.gate.detail) == (Verdict.INCONCLUSIVE, None, NO_FILE)
    assert home.warehouse.query("select * from raw.planes").empty


def test_a_required_file_that_is_missing_is_an_error(home: Home):
    file_of(home, SPEC, "flights", FIRST).unlink()
    with pytest.raises(LandingError):
        load(home, SPEC, "flights", FIRST)


def test_only_a_required_source_needs_the_day_before(home: Home):
    with pytest.raises(LandingError, match="raw_flights of 2013-01-01 is not loaded"):
        load(home, SPEC, "flights", SECOND)
    assert load(home, SPEC, "weather", SECOND).receipt is not None


def test_a_source_that_stops_is_late_while_the_others_are_fresh(home: Home):
    file_of(home, SPEC, "weather", SECOND).unlink()
    home.clock(SPEC.name).set(SECOND.end.replace(day=4))
    told = {source: freshness(home, SPEC, source).sentence.split(":")[0] for source in SPEC.sources}
    assert told == {"flights": "fresh", "weather": "late", "planes": "fresh"}
