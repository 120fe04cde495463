"""Reports of many windows as lines over time, and how far off estimates were."""

from collections.abc import Iterable, Sequence

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import (
    Estimate,
    EstimateAccuracy,
    EstimateError,
    Measured,
    Metric,
    MonitoredWindow,
    MonitoringHistory,
    Performance,
    PerformanceReport,
)

Line = list[tuple[str, Measured]]
"""Periods, oldest first, and the value of each."""


def monitoring_history(
    model: ModelName, reports: Sequence[tuple[PerformanceReport, DriftReport | None]]
) -> MonitoringHistory:
    """Reports and drift of the same windows, with the accuracy of the estimates that matured in them."""
    return MonitoringHistory(
        model=model,
        windows=tuple(MonitoredWindow(performance=report, drift=drift) for report, drift in reports),
        estimate_accuracy=estimate_accuracy(all_errors([report for report, _ in reports])),
    )


def without_slices(history: MonitoringHistory) -> MonitoringHistory:
    """The same without the rows of single slices, most of its size."""
    return history.model_copy(update={"windows": tuple(_whole(window) for window in history.windows)})


def estimate_accuracy(errors: Iterable[EstimateError]) -> tuple[EstimateAccuracy, ...]:
    """The accuracy of each metric that was ever estimated and realised. `bias` is estimated - realised, on average."""
    by_metric: dict[Metric, list[EstimateError]] = {}
    for error in errors:
        by_metric.setdefault(error.metric, []).append(error)
    return tuple(
        EstimateAccuracy(
            metric=metric,
            estimates=len(found),
            mean_absolute_error=sum(abs(one.error) for one in found) / len(found),
            bias=sum(one.error for one in found) / len(found),
            covered=sum(one.covered for one in found) / len(found),
        )
        for metric, found in sorted(by_metric.items())
    )


def all_errors(reports: Sequence[PerformanceReport]) -> tuple[EstimateError, ...]:
    """Every error that was recorded, oldest first."""
    return tuple(error for report in reports for error in report.estimate_errors)


def realised_by_version(reports: Sequence[PerformanceReport], metric: Metric) -> dict[ModelVersion, Line]:
    """The realised metric of each version in each window in which it was measured."""
    return _by_version(((str(report.period), whole_rows(report)) for report in reports), metric)


def estimated_by_version(reports: Sequence[PerformanceReport], metric: Metric) -> dict[ModelVersion, Line]:
    """The estimated metric of each version in each window in which it was."""
    return _by_version(((str(report.period), whole_estimates(report)) for report in reports), metric)


def in_front(report: PerformanceReport, rows: Sequence[Performance | Estimate]) -> Performance | Estimate | None:
    """The row of production, or of the version that answered most where production has none."""
    ordered = sorted(rows, key=lambda row: (row.version == report.production_version, row.predictions))
    return ordered[-1] if ordered else None


def whole_rows(report: PerformanceReport) -> tuple[Performance, ...]:
    """The realised rows of whole versions."""
    return tuple(row for row in report.realised if row.role is None and row.slice is None)


def whole_estimates(report: PerformanceReport) -> tuple[Estimate, ...]:
    """The estimates of whole versions."""
    return tuple(row for row in report.estimated if row.slice is None)


def _whole(window: MonitoredWindow) -> MonitoredWindow:
    report = window.performance
    kept = {
        "realised": tuple(row for row in report.realised if row.slice is None),
        "estimated": tuple(row for row in report.estimated if row.slice is None),
    }
    return window.model_copy(update={"performance": report.model_copy(update=kept)})


def _by_version(
    windows: Iterable[tuple[str, Sequence[Performance | Estimate]]], metric: Metric
) -> dict[ModelVersion, Line]:
    found: dict[ModelVersion, Line] = {}
    for period, rows in windows:
        for row in rows:
            value = row.metrics[metric]
            if value is not None:
                found.setdefault(row.version, []).append((period, value))
    return dict(sorted(found.items()))
