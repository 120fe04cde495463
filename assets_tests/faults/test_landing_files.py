"""What may land instead of April, through the real asset `raw_orders`: refused whole, or loaded with rows set aside."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from assets_tests.faults.loop_home import NEWEST, PERIOD, SPEC, LoopHome, copied, opened
from boucle.contracts.ids import PeriodKey
from boucle_adapters.landing_zone import checksum_file, landing_file, publish
from boucle_adapters.snapshots import SnapshotStore

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
APRIL = SPEC.history.export_period("orders", NEWEST)


def april(loop: LoopHome) -> Path:
    """Where April's file lies."""
    return landing_file(loop.runner.settings.landing_dir, SPEC.name, "orders", PeriodKey(NEWEST))


def land_again(loop: LoopHome, rows: pd.DataFrame) -> None:
    publish(rows, april(loop))


def set_aside(loop: LoopHome) -> list[str]:
    """Why rows of April are in quarantine, in the order of the file."""
    return list(SnapshotStore(loop.path).read_quarantine(SPEC.name, "orders", PeriodKey(NEWEST))["reason"])


def with_row(**changed: str) -> pd.DataFrame:
    return pd.concat([APRIL, APRIL.tail(1).assign(**changed)], ignore_index=True)


def truncate(loop: LoopHome) -> None:
    content = april(loop).read_bytes()
    april(loop).write_bytes(content[: len(content) // 2])


def truncate_without_checksum(loop: LoopHome) -> None:
    truncate(loop)
    checksum_file(april(loop)).unlink()


def empty(loop: LoopHome) -> None:
    april(loop).write_bytes(b"")


REFUSED: dict[str, tuple[Callable[[LoopHome], None], str]] = {
    "a column is missing": (lambda loop: land_again(loop, APRIL.drop(columns="amount_usd")), "'amount_usd' is missing"),
    "every row is there twice": (lambda loop: land_again(loop, pd.concat([APRIL, APRIL])), "duplicate row"),
    "every amount is negative": (lambda loop: land_again(loop, APRIL.assign(amount_usd="-1.00")), "at least 0"),
    "every date is in the future": (lambda loop: land_again(loop, APRIL.assign(order_date="2099-01-01")), "2099-01-01"),
    "no byte": (empty, "is empty"),
    "a header and no row": (lambda loop: land_again(loop, APRIL.head(0)), "a header and no row"),
    "half of the file": (truncate, "is truncated or was changed"),
    "half of the file, no checksum": (truncate_without_checksum, "is truncated"),
    "a hundredth of the rows": (lambda loop: land_again(loop, APRIL.head(30)), "30 rows"),
}


@pytest.fixture(scope="module")
def loop(four_months: Path, tmp_path_factory: pytest.TempPathFactory):
    """One copy for all refusals: each of them leaves it as it was, which is what they claim."""
    with opened(copied(four_months, tmp_path_factory.mktemp("landing") / "home")) as loop:
        yield loop


@pytest.mark.parametrize(("spoil", "reason"), list(REFUSED.values()), ids=list(REFUSED))
def test_an_unusable_file_fails_the_run_and_leaves_the_period_as_it_was(
    loop: LoopHome, spoil: Callable[[LoopHome], None], reason: str
):
    before = loop.period_result()
    spoil(loop)
    outcome = loop.run(PERIOD, partition=NEWEST, only=("raw_orders",))
    assert not outcome.succeeded
    assert reason in outcome.error
    land_again(loop, APRIL)
    assert loop.period_result() == before


BROKEN_ROWS = {
    "a negative amount": ({"amount_usd": "-3.00"}, "amount_usd: not at least 0"),
    "a date in the future": ({"order_date": "2099-01-01"}, "order_date: not a day of the period"),
    "no amount at all": ({"amount_usd": ""}, "amount_usd: missing"),
    "an order sent twice": ({}, "duplicate row"),
}


@pytest.mark.parametrize(("changed", "reason"), list(BROKEN_ROWS.values()), ids=list(BROKEN_ROWS))
def test_a_broken_row_is_set_aside_and_the_good_ones_stay_the_same_version(
    loop: LoopHome, changed: dict[str, str], reason: str
):
    rows, known = loop.raw(), set_aside(loop)
    land_again(loop, with_row(**changed))
    assert loop.run(PERIOD, partition=NEWEST, only=("raw_orders",)).succeeded
    assert set_aside(loop)[:-1] == known
    assert reason in set_aside(loop)[-1]
    assert loop.raw() == rows
    land_again(loop, APRIL)
    assert loop.run(PERIOD, partition=NEWEST, only=("raw_orders",)).succeeded
    assert set_aside(loop) == known


def test_the_same_file_twice_is_no_new_version(loop: LoopHome):
    before = loop.raw()
    land_again(loop, APRIL)
    assert loop.run(PERIOD, partition=NEWEST, only=("raw_orders",)).succeeded
    assert loop.raw() == before


def test_a_corrected_file_is_version_two_and_version_one_stays(four_months: Path, copy_of: Callable[[Path], LoopHome]):
    loop = copy_of(four_months)
    rows, digests = loop.raw()
    land_again(loop, APRIL.iloc[:-5])
    assert loop.run(PERIOD, partition=NEWEST, only=("raw_orders",)).succeeded
    corrected_rows, corrected_digests = loop.raw()
    assert corrected_rows[0] == rows[0]
    assert corrected_digests[0] == digests[0]
    assert (len(corrected_rows), corrected_rows[1] < rows[0]) == (2, True)
