"""A source that does not deliver: named by the check and by `status`, on the clock of the home."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from assets_tests.faults.loop_home import SPEC, LoopHome, boucle, check_named

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
Copy = Callable[[Path], LoopHome]
END_OF_NEWEST = SPEC.period("1997-04").end


@pytest.mark.parametrize(
    ("days", "passed", "severity", "word"),
    [(30, True, "WARN", "fresh"), (36, False, "WARN", "late"), (41, False, "ERROR", "overdue")],
)
def test_data_that_does_not_come_is_late_and_then_overdue(
    days: int, passed: bool, severity: str, word: str, four_months: Path, copy_of: Copy
):
    loop = copy_of(four_months)
    loop.home.clock(SPEC.name).set(END_OF_NEWEST + timedelta(days=days))
    check = check_named(loop, "data_is_fresh")
    assert (check.passed, check.severity) == (passed, dg.AssetCheckSeverity[severity])
    told = json.loads(boucle(loop, "status", "--json").stdout)["data"]
    assert told == f"orders: {check.description}"
    assert check.description == f"{word}: 1997-04 ended {days}.0 days ago (late after 35, overdue after 40)"


@pytest.mark.parametrize("name", ["backup", "2099-01"])
def test_a_stray_file_does_not_make_data_fresh(name: str, four_months: Path, copy_of: Copy):
    loop = copy_of(four_months)
    (loop.path / "landing" / SPEC.model / "orders" / f"{name}.csv").write_text("")
    assert "1997-04 ended" in check_named(loop, "data_is_fresh").description


def test_with_nothing_landed_data_is_not_fresh(four_months: Path, copy_of: Copy):
    loop = copy_of(four_months)
    for file in (loop.path / "landing" / SPEC.model / "orders").iterdir():
        file.unlink()
    check = check_named(loop, "data_is_fresh")
    assert (check.passed, check.description) == (False, "unknown: nothing has landed")
