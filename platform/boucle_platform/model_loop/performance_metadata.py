"""Live performance as people meet it in the Dagster UI: tables of a window, plots over all of them."""

from collections.abc import Callable, Sequence
from typing import Any

from boucle.contracts.performance import Estimate, EstimateError, Measured, Metric, Performance, PerformanceReport
from boucle.stats.performance_history import (
    Line,
    all_errors,
    estimate_accuracy,
    in_front,
    whole_estimates,
    whole_rows,
)
from boucle_platform.model_loop import presentation

SHOWN_WINDOWS = 60
_UNITS = {Metric.LOG_LOSS: "nats", Metric.CALIBRATION: "mean score - positive rate"}


def performance_metadata(report: PerformanceReport) -> dict[str, Any]:
    """What one window says: versions, arms, slices, estimates, the errors of earlier estimates, coverage."""
    whole = [_realised(row) for row in report.realised if row.slice is None]
    sliced = [{"slice": row.slice, **_realised(row)} for row in report.realised if row.slice and not row.note]
    return {
        "gates": presentation.gate_table(report.gates),
        "versions": presentation.table(whole),
        "slices": presentation.table(sliced),
        "estimated": presentation.table([_estimated(row) for row in whole_estimates(report)]),
        "estimate_errors": presentation.table([_error(error) for error in report.estimate_errors]),
        "label_coverage": report.coverage,
        "known_at": report.outcomes.known_at.isoformat(),
        "restatement": report.restatement,
    }


def history_metadata(reports: Sequence[PerformanceReport]) -> dict[str, Any]:
    """Plots over the last windows, and how far off estimates were; none of what was never measured."""
    shown, found = reports[-SHOWN_WINDOWS:], dict[str, Any]()
    for metric, unit in _UNITS.items():
        lines = {
            "realised": _line(shown, metric, whole_rows),
            "estimated without labels": _line(shown, metric, whole_estimates),
        }
        if any(lines.values()):
            found[f"{metric}_plot"] = presentation.band_plot(f"{_named(metric)} by window", lines, ylabel=unit)
    covered = [(str(one.period), one.coverage) for one in shown if one.coverage is not None]
    if covered:
        line = [period for period, _ in covered], [share for _, share in covered]
        found["coverage_plot"] = presentation.line_plot("Label coverage", {"coverage": line}, ylabel="share of due")
    accuracy = [
        {
            "metric": str(one.metric),
            "windows": one.estimates,
            "mean absolute error": one.mean_absolute_error,
            "bias": one.bias,
            "in its interval": one.covered,
        }
        for one in estimate_accuracy(all_errors(reports))
    ]
    return {**found, "estimate_accuracy": presentation.table(accuracy)}


def _line(
    reports: Sequence[PerformanceReport],
    metric: Metric,
    rows: Callable[[PerformanceReport], Sequence[Performance | Estimate]],
) -> Line:
    front = [(str(report.period), in_front(report, rows(report))) for report in reports]
    return [(period, value) for period, row in front if row is not None and (value := row.metrics[metric]) is not None]


def _realised(row: Performance) -> dict[str, object]:
    return {
        "version": row.version,
        "arm": row.role or "all",
        "labels": row.predictions,
        "positives": row.positives,
        "positive rate": row.positive_rate,
        "mean score": row.mean_score,
        **_cells(row.metrics),
        "note": row.note,
    }


def _estimated(row: Estimate) -> dict[str, object]:
    return {
        "version": row.version,
        "predictions": row.predictions,
        "mean score": row.mean_score,
        "expected positive rate": row.expected_positive_rate,
        **_cells(row.metrics),
        "refused": row.refused,
    }


def _error(error: EstimateError) -> dict[str, object]:
    return {
        "window": error.period,
        "version": error.version,
        "metric": str(error.metric),
        "estimated": error.estimated.estimate,
        "realised": error.realised,
        "error": error.error,
        "in its interval": "yes" if error.covered else "no",
        "outcomes": f"{error.known} of {error.predictions}",
    }


def _cells(metrics: dict[Metric, Measured | None]) -> dict[str, object]:
    return {
        _named(metric): None if value is None else f"{value.estimate:.4f} [{value.low:.4f}, {value.high:.4f}]"
        for metric, value in metrics.items()
    }


def _named(metric: Metric) -> str:
    names = {Metric.LOG_LOSS: "Log loss", Metric.BRIER: "Brier score", Metric.AUC: "AUC"}
    return names.get(metric, "Calibration gap")
