"""`boucle check` is red when a blocking check failed, was not run, or when there was nothing to check."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from boucle_cli.check import CheckOutcome, CheckReport, markdown, write_junit


def outcome(check: str, passed: bool | None, *, blocking: bool = True) -> CheckOutcome:
    return CheckOutcome(asset="shop/report", check=check, passed=passed, blocking=blocking, description="0.7 | 0.8")


GOOD = outcome("quality_floor", True)


@pytest.mark.parametrize(
    ("outcomes", "errors", "green"),
    [
        ([GOOD], [], True),
        ([GOOD, outcome("drift", False, blocking=False)], [], True),
        ([GOOD, outcome("drift", None, blocking=False)], [], True),
        ([GOOD, outcome("latency", False)], [], False),
        ([GOOD, outcome("latency", None)], [], False),
        ([GOOD], ["shop_period of 1997-01 ended red"], False),
        ([], [], False),
        ([outcome("drift", None, blocking=False)], [], False),
    ],
    ids=[
        "all passed",
        "only a warning failed",
        "only a warning was not run",
        "a gate failed",
        "a gate was not run",
        "a run ended red",
        "no check at all",
        "no check was run",
    ],
)
def test_green_means_that_something_was_checked_and_no_gate_is_open(outcomes, errors, green: bool):
    assert CheckReport(model="shop", outcomes=outcomes, errors=errors).passed is green


def test_nothing_to_check_says_so():
    assert CheckReport(model="shop").verdict() == "There was nothing to check for 'shop'."


def junit(tmp_path: Path, report: CheckReport) -> ET.Element:
    write_junit(tmp_path / "reports" / "gates.xml", report)
    return ET.parse(tmp_path / "reports" / "gates.xml").getroot()


def test_the_junit_file_counts_failures_errors_and_what_was_skipped(tmp_path: Path):
    outcomes = [GOOD, outcome("latency", False), outcome("calibration", None), outcome("drift", False, blocking=False)]
    suite = junit(tmp_path, CheckReport(model="shop", outcomes=outcomes, errors=["retrain ended red"]))
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }


def test_a_junit_file_about_nothing_is_an_error(tmp_path: Path):
    assert junit(tmp_path, CheckReport(model="shop")).get("errors") == "1"


def test_the_markdown_table_keeps_its_columns_when_a_description_has_a_bar():
    text = markdown(CheckReport(model="shop", outcomes=[GOOD]))
    assert "| shop/report | quality_floor | passed | 0.7 \\| 0.8 |" in text


@pytest.mark.parametrize(
    ("passed", "blocking", "result"),
    [
        (True, True, "passed"),
        (True, False, "passed"),
        (False, True, "FAILED"),
        (False, False, "warns"),
        (None, True, "NOT RUN"),
        (None, False, "not run"),
    ],
)
def test_what_turns_a_build_red_is_in_capitals(passed, blocking: bool, result: str):
    found = outcome("latency", passed, blocking=blocking)
    assert (found.row()["result"], found.result.isupper()) == (result, found.blocks)


def test_a_row_for_people_says_nothing_twice():
    found = CheckOutcome(
        asset="shop/report", check="latency", passed=True, blocking=True, description="latency: passed (measured 1 ms)"
    )
    assert found.row() == {"check": "report\n  latency", "result": "passed", "found": "(measured 1 ms)"}
