"""Writes the page of a model's monitoring from what is on record."""

from collections.abc import Mapping
from pathlib import Path

from boucle.contracts.ids import PeriodKey
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import PerformanceReport
from boucle_adapters.home import Home
from boucle_platform.model_loop.monitoring_page import render_monitoring
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import write_text

SHOWN_WINDOWS = 60


def write_monitoring_page(home: Home, spec: LoopSpec, drift: Mapping[PeriodKey, DriftReport] | None = None) -> Path:
    """Put the page of the last windows in place; `drift` are reports that are not kept yet."""
    history = home.monitoring.history(spec.name, last=SHOWN_WINDOWS, drift=drift)
    restated: list[PerformanceReport] = [
        home.monitoring.statements(spec.name, window.performance.period)[0]
        for window in history.windows
        if window.performance.restatement
    ]
    page = render_monitoring(history, home.state.triggers(spec.name), description=spec.description, restated=restated)
    return write_text(home.monitoring.page(spec.name), page)
