"""The page of a model's monitoring, one HTML file: performance, estimates, coverage, drift and triggers over time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from boucle.contracts.performance import (
    Estimate,
    Measured,
    Metric,
    MonitoringHistory,
    Performance,
    PerformanceReport,
)
from boucle.contracts.trigger import Trigger
from boucle.contracts.verdict import Gate
from boucle.stats.performance_history import in_front, whole_estimates, whole_rows
from boucle_platform.model_loop.monitoring_plots import NAMES, monitoring_plots
from boucle_platform.model_loop.monitoring_template import TEMPLATE

SHOWN_TRIGGERS, SHOWN_SLICES = 12, 12


def render_monitoring(
    history: MonitoringHistory,
    triggers: Sequence[tuple[datetime, Trigger]],
    *,
    description: str,
    restated: Sequence[PerformanceReport],
) -> str:
    """The page as HTML. The same arguments give the same text; it loads nothing from anywhere.

    Args:
        history: The windows, oldest first.
        triggers: Retraining triggers of the model, oldest first.
        description: What the model says.
        restated: First reports of windows that were restated since.
    """
    import jinja2

    reports = [window.performance for window in history.windows]
    newest = history.windows[-1] if history.windows else None
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE).render(
        model=history.model,
        description=description,
        newest=newest,
        front=None if newest is None else in_front(newest.performance, whole_rows(newest.performance)),
        gates=() if newest is None else _gates(newest.performance.gates, newest.drift.gates if newest.drift else ()),
        plots=monitoring_plots(history, triggers),
        windows=[_window(report) for report in reversed(reports)],
        accuracy=history.estimate_accuracy,
        names=NAMES,
        slices=() if newest is None else _slices(newest.performance),
        triggers=list(reversed(triggers))[:SHOWN_TRIGGERS],
        trigger_count=len(triggers),
        restated=[(first, _again(reports, first)) for first in restated],
    )


def _gates(*groups: Sequence[Gate]) -> list[Gate]:
    return [gate for group in groups for gate in group]


def _slices(report: PerformanceReport) -> list[Performance]:
    """Of production, else of whoever answered most: the slices with enough labels, the highest log loss first."""
    front = in_front(report, whole_rows(report))
    own = [row for row in report.realised if row.slice and front is not None and row.version == front.version]
    measured = [row for row in own if row.metrics[Metric.LOG_LOSS] is not None]
    return sorted(measured, key=_loss, reverse=True)[:SHOWN_SLICES]


def _loss(row: Performance) -> float:
    found = row.metrics[Metric.LOG_LOSS]
    return float("-inf") if found is None else found.estimate


def _again(reports: Sequence[PerformanceReport], first: PerformanceReport) -> PerformanceReport:
    return next(report for report in reports if report.period == first.period)


def _window(report: PerformanceReport) -> dict[str, Any]:
    """One line of the table of windows."""
    row, estimate = in_front(report, whole_rows(report)), in_front(report, whole_estimates(report))
    return {
        "report": report,
        "versions": ", ".join(str(one.version) for one in whole_rows(report) or whole_estimates(report)),
        "realised": _text(row.metrics[Metric.LOG_LOSS]) if row else "",
        "estimated": _text(estimate.metrics[Metric.LOG_LOSS]) if estimate else "",
        "why": "; ".join(said for said in (_note(row), _refused(estimate)) if said),
    }


def _note(row: Performance | Estimate | None) -> str:
    return row.note if isinstance(row, Performance) else ""


def _refused(row: Performance | Estimate | None) -> str:
    return f"Not estimated: {row.refused}" if isinstance(row, Estimate) and row.refused else ""


def _text(value: Measured | None) -> str:
    return "–" if value is None else f"{value.estimate:.4f} [{value.low:.4f}, {value.high:.4f}]"
