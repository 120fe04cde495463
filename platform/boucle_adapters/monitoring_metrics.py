"""What monitoring tells Prometheus: the newest documents that the period's runs wrote, read at each scrape."""

from collections.abc import Iterator
from pathlib import Path

from boucle.contracts.ids import ModelName
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.verdict import Verdict
from boucle.contracts.windows import period_named
from boucle_adapters.clock import HomeClock
from boucle_adapters.exposition import Family, Sample
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.settings import Settings

_GATE = ("model", "gate")
DRIFT_SCORE = Family(
    name="boucle_drift_score",
    text="PSI of a feature in the newest window against the reference of production",
    labels=("model", "feature"),
)
GATE_MEASURED = Family(
    name="boucle_drift_gate_measured", text="What a gate of the newest drift report measured, in its unit", labels=_GATE
)
GATE_LIMIT = Family(name="boucle_drift_gate_limit", text="The limit of the gate, in its unit", labels=_GATE)
GATE_USED = Family(
    name="boucle_drift_gate_used_ratio",
    text="How much of its limit the gate uses, whichever side passes: 1 at the limit, more beyond it",
    labels=_GATE,
)
GATE_VERDICT = Family(
    name="boucle_drift_gate_verdict",
    text="1 for the verdict of the gate: passed, failed or inconclusive; 0 for the others",
    labels=(*_GATE, "verdict"),
)
REPORT_AGE = Family(
    name="boucle_drift_report_age_seconds",
    text="How long ago the newest monitored window ended, by the model's clock",
    labels=("model",),
)
REPORT_PERIOD = Family(
    name="boucle_drift_report_period_seconds",
    text="How long the newest monitored period is: a report is due each, though its window may span several",
    labels=("model",),
)

COVERAGE = Family(
    name="boucle_label_coverage_ratio",
    text="Share of the predictions that were due in the newest window whose outcome is known",
    labels=("model",),
)
LABELS_PENDING = Family(
    name="boucle_labels_pending",
    text="Predictions of the newest window whose outcome is due and not known",
    labels=("model",),
)
_METRIC = ("model", "version", "metric")
REALISED = Family(
    name="boucle_realised_metric",
    text="Of the newest window, on outcomes: log_loss (nats), brier, auc, calibration (mean score - positive rate)",
    labels=_METRIC,
)
ESTIMATED = Family(
    name="boucle_estimated_metric",
    text="Of the predictions served in the newest window, without their labels",
    labels=_METRIC,
)
ESTIMATE_ERROR = Family(
    name="boucle_estimate_error",
    text="Estimated - realised, of the newest estimate of the metric whose labels came",
    labels=_METRIC,
)


def of_performance(files: MonitoringFiles, model: ModelName) -> list[Sample]:
    """The newest window of live performance as it is known now; nothing before the first one.

    What is not known has no figure: a window without a due prediction no coverage, a refused estimate no metric.
    """
    reports = files.newest(model, last=1)
    return [sample for report in reports for sample in _performance(model, report)]


def _performance(model: ModelName, report: PerformanceReport) -> Iterator[Sample]:
    yield Sample(COVERAGE, (model,), report.coverage)
    yield Sample(LABELS_PENDING, (model,), float(report.outcomes.pending))
    whole = [row for row in report.realised if row.role is None and row.slice is None]
    expected = [row for row in report.estimated if row.slice is None]
    for family, rows in ((REALISED, whole), (ESTIMATED, expected)):
        for row in rows:
            for metric, measured in row.metrics.items():
                yield Sample(family, (model, str(row.version), metric), None if measured is None else measured.estimate)
    for error in report.estimate_errors:
        yield Sample(ESTIMATE_ERROR, (model, str(error.version), error.metric), error.error)


def of_drift(settings: Settings, model: ModelName) -> list[Sample]:
    """The newest drift report; nothing before the first one."""
    file = newest_file(settings.data_dir / "documents" / model / "drift_report")
    if file is None:
        return []
    report = DriftReport.model_validate_json(file.read_bytes())
    age = HomeClock(settings.clock_file(model)).now() - report.window_end
    return [
        Sample(REPORT_AGE, (model,), age.total_seconds()),
        Sample(REPORT_PERIOD, (model,), period_named(report.period).length.total_seconds()),
        *(Sample(DRIFT_SCORE, (model, feature), psi) for feature, psi in report.feature_psi.items()),
        *_gates(model, report),
    ]


def newest_file(folder: Path) -> Path | None:
    """The document of the newest period in a folder: keys of periods sort as text."""
    return max(folder.glob("*.json"), key=lambda file: file.stem, default=None)


def _gates(model: ModelName, report: DriftReport) -> Iterator[Sample]:
    for gate in report.gates:
        labels = (model, gate.name)
        yield Sample(GATE_MEASURED, labels, gate.measured)
        yield Sample(GATE_LIMIT, labels, gate.limit)
        yield Sample(GATE_USED, labels, gate.used())
        for verdict in Verdict:
            yield Sample(GATE_VERDICT, (*labels, verdict), float(gate.verdict is verdict))
