"""The page of a model's monitoring says what is on record, whatever is missing."""

import re

import numpy as np
import pytest

from assets_tests.contract.test_documents import example
from assets_tests.judging import MODEL, day, gate, trigger
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import Metric, MonitoringHistory, PerformanceReport
from boucle.contracts.trigger import TriggerOutcome
from boucle.contracts.verdict import Bound, Verdict
from boucle.stats.performance_history import monitoring_history
from boucle_platform.model_loop.monitoring_page import render_monitoring
from boucle_platform.model_loop.monitoring_plots import _drift, _metric

REPORT = PerformanceReport.model_validate(example("PerformanceReport"))
DRIFT = DriftReport.model_validate(example("DriftReport"))


def page(history: MonitoringHistory, **more) -> str:
    asked = {"triggers": [], "description": "Buys again", "restated": []} | more
    return render_monitoring(history, asked.pop("triggers"), **asked)


@pytest.fixture(scope="module")
def whole() -> str:
    """Two windows: one restated, one newer with nothing but pending outcomes."""
    again = REPORT.model_copy(update={"restatement": 1})
    pending = REPORT.outcomes.model_copy(update={"period": "1997-06", "known": 0, "pending": 9, "due": 9})
    waiting = REPORT.model_copy(
        update={"period": "1997-06", "outcomes": pending, "realised": (), "estimate_errors": (), "gates": ()}
    )
    triggers = [(day("1997-06-01"), trigger("1997-05", TriggerOutcome.FIRED))]
    history = monitoring_history(MODEL, [(again, DRIFT), (waiting, None)])
    return page(history, triggers=triggers, restated=[REPORT])


def test_the_newest_window_windows_estimates_triggers_and_restatements_are_told(whole: str):
    text = re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", whole, flags=re.DOTALL))
    assert "1997-06, the newest window" in text
    assert "0.0 % of 9 due predictions have their outcome" in text
    loss = next(row for row in REPORT.realised if row.slice is None).metrics["log_loss"]
    assert f"{loss.estimate:.4f} [{loss.low:.4f}, {loss.high:.4f}]" in text
    assert "restatement 1" in text
    assert "Retraining triggers Window Outcome Reason 1997-05 fired" in text
    assert "Mean absolute error" in text


def test_every_plot_is_in_the_page_and_it_loads_nothing(whole: str):
    assert whole.count("<svg") == 6
    assert not re.search(r"<(script|link|img|iframe)|\bsrc=|@import|url\((?!#)", whole)


def test_the_same_history_gives_the_same_page():
    history = monitoring_history(MODEL, [(REPORT, DRIFT)])
    assert page(history) == page(history)


def test_what_others_wrote_is_shown_and_not_run():
    assert "<b>buys</b>" not in page(monitoring_history(MODEL, []), description="<b>buys</b>")


def test_a_model_without_a_window_says_so():
    assert "No window was reported yet" in page(monitoring_history(MODEL, []))


def test_a_frozen_input_is_drawn_beyond_its_limit_and_one_that_varies_within_it():
    def used(measured: float) -> list[float]:
        frozen = gate("input_frozen", Verdict.FAILED).model_copy(
            update={"bound": Bound.AT_LEAST, "limit": 0.1, "measured": measured}
        )
        drift = DRIFT.model_copy(update={"gates": (frozen,)})
        (axes,) = _drift(["1997-05"], monitoring_history(MODEL, [(REPORT, drift)]).windows).axes
        return [line.get_ydata()[0] for line in axes.lines if line.get_label() == "input_frozen"]

    assert (used(1.0), used(0.0)) == ([0.1], [5])


def test_a_window_without_a_measurement_breaks_the_line():
    """A line across it would say what nobody knows."""
    silent = REPORT.model_copy(update={"realised": (), "estimates": ()})
    named = [f"1997-0{month}" for month in range(5, 10)]
    reports = [
        one.model_copy(update={"period": period})
        for period, one in zip(named, [REPORT, REPORT, silent, REPORT, REPORT], strict=True)
    ]
    (axes,) = _metric(named, reports, Metric.LOG_LOSS, ()).axes
    realised = next(line for line in axes.get_lines() if line.get_label().startswith("version"))
    assert [bool(np.isnan(y)) for y in realised.get_ydata()] == [False, False, True, False, False]
