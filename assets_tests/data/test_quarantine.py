"""A person mends what was set aside; the file lands again and takes the way of every other file."""

import json
import os
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from assets_tests import warm
from assets_tests.data.landing_world import month
from boucle.contracts.ids import PeriodKey
from boucle.errors import ConfigurationError, LandingError
from boucle_adapters.home import Home
from boucle_adapters.landing_zone import landing_file, publish, read_landing
from boucle_adapters.settings import Settings
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.landing import Loaded, feed, load
from boucle_platform.model_loop.steps.quarantine import quarantine_counts, quarantined_rows, release

SPEC = catalogue.spec_of("repurchase")
SOURCE = SPEC.source("orders")
JANUARY = month("1997-01")
HEADER = "line_number,customer_id,order_date,cds,amount_usd,reason,source_file\n"


class World:
    """A home in which January landed with two broken rows."""

    def __init__(self, path: Path) -> None:
        self.home = Home(Settings(home=path / "home"))
        self.fix = path / "fix.csv"
        feed(self.home, SPEC)
        self.file = landing_file(self.home.settings.landing_dir, SPEC.name, "orders", JANUARY.key)
        rows = read_landing(self.file, SOURCE.column_names).rows[list(SOURCE.column_names)]
        rows.loc[0, "amount_usd"], rows.loc[1, "cds"] = "-3.00", "many"
        publish(rows, self.file)
        self.first = self.load()

    def load(self) -> Loaded:
        """Load what has landed."""
        return load(self.home, SPEC, "orders", JANUARY)

    def broken(self) -> pd.DataFrame:
        """The two rows, without the duplicates of the real history."""
        rows = quarantined_rows(self.home, SPEC, JANUARY.key)
        return rows[rows["line_number"] <= 3].reset_index(drop=True)

    def mend(self, **values: str) -> None:
        """Write the broken rows with other values."""
        self.broken().assign(**values).to_csv(self.fix, index=False)

    def boucle(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The verb, as a person types it."""
        home = str(self.home.settings.home_dir)
        return warm.boucle("quarantine", *words, environment={**os.environ, "BOUCLE_HOME": home})


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_mended_rows_are_loaded_as_the_next_version_of_their_period(world: World):
    world.mend(amount_usd="3.00", cds="2")
    done = release(world.home, SPEC, JANUARY.key, world.fix)
    second = world.load()
    assert done["released"] == 2
    assert done["still_set_aside"] == second.receipt.quarantined == world.first.receipt.quarantined - 2
    assert (second.receipt.version, second.receipt.rows) == (2, world.first.receipt.rows + 2)
    assert world.broken().empty


def test_a_row_that_is_still_broken_is_set_aside_again(world: World):
    world.mend(amount_usd="-4.00")
    left = release(world.home, SPEC, JANUARY.key, world.fix)["still_set_aside"]
    assert left == world.load().receipt.quarantined == world.first.receipt.quarantined
    assert world.broken().loc[0, "reason"] == "amount_usd: not at least 0 (value -4.00)"


def test_what_does_not_fit_leaves_the_landing_file_as_it_was(world: World):
    before = world.file.read_bytes()
    world.mend(amount_usd="3.00", cds="2", line_number="99999")
    with pytest.raises(LandingError, match="Nothing was changed"):
        release(world.home, SPEC, JANUARY.key, world.fix)
    assert world.file.read_bytes() == before


def test_a_period_without_rows_in_quarantine_has_nothing_to_release(world: World):
    world.mend(amount_usd="3.00", cds="2")
    with pytest.raises(LandingError, match="No row of orders 1997-02 is in quarantine"):
        release(world.home, SPEC, "1997-02", world.fix)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        (HEADER, "has a header and no row"),
        (f"{HEADER}2,1,1997-01-01,1\n", "has 4 fields, the header has 7"),
        (f"cds,{HEADER}1,2,1,1997-01-01,1,1.00,,\n", "column 'cds' is there twice"),
        (f'{HEADER}2,"1\n', "is not readable CSV"),
        ("line_number,cds\n2,1\n", "column 'customer_id' is missing"),
    ],
    ids=["empty", "no row", "short row", "column twice", "quote not closed", "column missing"],
)
def test_mended_rows_are_read_as_strictly_as_a_landing_file(world: World, content: str, words: str):
    before = world.file.read_bytes()
    world.fix.write_text(content)
    with pytest.raises(LandingError, match=words):
        release(world.home, SPEC, JANUARY.key, world.fix)
    assert world.file.read_bytes() == before


def test_a_source_that_there_is_not_is_named(world: World):
    with pytest.raises(ConfigurationError, match="no quarantine of 'feature': it is orders or features"):
        quarantined_rows(world.home, SPEC, JANUARY.key, source="feature")


def test_missing_values_of_feature_rows_are_null_for_programs(world: World):
    rows = pd.DataFrame({"user_id": ["1"], "mean_gap": [float("nan")], "reason": ["recency: at least 1"]})
    store = SnapshotStore(world.home.settings.home_dir)
    store.write_quarantine(rows, model=SPEC.name, source="features", period=PeriodKey(JANUARY.key))
    shown = world.boucle("show", JANUARY.key, "--source", "features", "--json")
    assert json.loads(shown.stdout, parse_constant=pytest.fail)[0]["mean_gap"] is None


def test_a_place_that_cannot_be_written_is_an_error_for_people(world: World):
    told = world.boucle("show", JANUARY.key, "--csv", "/nowhere/fix.csv")
    assert (told.returncode, "Traceback" in told.stderr) == (1, False)
    assert "/nowhere/fix.csv cannot be written" in " ".join(told.stderr.split())


def test_a_damaged_quarantine_is_an_error_for_people(world: World):
    for file in world.home.settings.data_dir.rglob("quarantine/orders/1997-01.parquet"):
        file.write_bytes(b"PAR1 torn")
    told = world.boucle("show", JANUARY.key)
    assert (told.returncode, "Traceback" in told.stderr, "is damaged" in told.stderr) == (1, False, True)


def test_a_file_that_is_not_there_is_named(world: World):
    with pytest.raises(LandingError, match=r"nowhere\.csv cannot be read"):
        release(world.home, SPEC, JANUARY.key, Path("nowhere.csv"))


def test_a_person_shows_mends_and_releases(world: World):
    shown = world.boucle("show", "1997-01", "--csv", str(world.fix))
    assert (shown.returncode, "amount_usd: not at least 0 (value -3.00)" in shown.stdout) == (0, True), shown.stderr
    rows = pd.read_csv(world.fix, dtype=str)
    rows.loc[rows["line_number"] == "2", "amount_usd"] = "3.00"
    rows.to_csv(world.fix, index=False)
    released = world.boucle("release", "1997-01", str(world.fix), "--json")
    assert released.returncode == 0, released.stderr
    assert json.loads(released.stdout)["released"] == 1
    again = world.boucle("release", "1997-01", str(world.fix))
    assert (again.returncode, "Traceback" in again.stderr) == (1, False)
    assert "the file was sent again since" in " ".join(again.stderr.split())


def test_counts_are_told_by_rule_without_the_values(world: World):
    counts = {row["reason"]: row["rows"] for row in quarantine_counts(world.home, SPEC)}
    assert counts["amount_usd: not at least 0"] == 1
    assert json.loads(world.boucle("count", "--json").stdout) == quarantine_counts(world.home, SPEC)
    assert json.loads(world.boucle("--json").stdout) == quarantine_counts(world.home, SPEC)
