"""Gates as people and Dagster meet them: what did not pass is not a pass, and the numbers are there."""

import dagster as dg
import pytest

from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle_platform.model_loop.presentation import bar_plot, check_result, gate_table, line_plot, table

KEY = dg.AssetKey(["repurchase", "evaluation_report"])


def gate(verdict: Verdict, *, measured: float | None = 0.031, interval: bool = True) -> Gate:
    return Gate(
        name="calibration",
        verdict=verdict,
        measured=measured,
        low=0.02 if interval else None,
        high=0.04 if interval else None,
        bound=Bound.AT_MOST,
        limit=0.03,
        unit="probability",
        sample_size=900,
    )


@pytest.mark.parametrize(
    ("verdict", "passed"), [(Verdict.PASSED, True), (Verdict.FAILED, False), (Verdict.INCONCLUSIVE, False)]
)
def test_only_a_passed_gate_is_a_passed_check_and_the_others_are_errors(verdict: Verdict, passed: bool):
    result = check_result(gate(verdict), key=KEY)
    assert (result.passed, result.severity) == (passed, dg.AssetCheckSeverity.ERROR)
    assert (result.check_name, result.asset_key) == ("calibration", KEY)


def test_a_check_says_what_was_measured_against_which_limit_on_how_many():
    result = check_result(gate(Verdict.FAILED), evidence_digest="ab12")
    assert "calibration: failed (measured 0.031 probability" in str(result.description)
    found = {name: value.value for name, value in result.metadata.items()}
    assert found == {
        "verdict": "failed",
        "limit": "at most 0.03",
        "unit": "probability",
        "sample_size": 900,
        "measured": 0.031,
        "interval": "[0.02, 0.04]",
        "evidence_digest": "ab12",
    }


def test_what_was_not_measured_is_left_out_rather_than_zero():
    result = check_result(gate(Verdict.INCONCLUSIVE, measured=None, interval=False))
    assert {"measured", "interval", "evidence_digest"}.isdisjoint(result.metadata)
    assert "| – |" in str(gate_table([gate(Verdict.INCONCLUSIVE, measured=None)]).value)


def test_a_table_keeps_its_columns_whatever_the_cells_hold():
    lines = str(table([{"a": 0.123456, "b": "x|y"}, {"a": None, "b": 7}]).value).splitlines()
    assert lines == ["| a | b |", "|---|---|", "| 0.1235 | x\\|y |", "| – | 7 |"]


def test_an_empty_table_says_so():
    assert table([]).value == "*nothing*"


def test_plots_are_pictures_in_the_metadata_itself():
    bars = bar_plot("Importance", {"recency": 0.7, "freq": 0.3}, xlabel="share")
    lines = line_plot("Calibration", {"candidate": ([0.1, 0.2], [0.1, 0.3])}, ylabel="rate", diagonal=True)
    for plot, title in ((bars, "Importance"), (lines, "Calibration")):
        assert str(plot.value).startswith(f"![{title}](data:image/png;base64,iVBOR")
