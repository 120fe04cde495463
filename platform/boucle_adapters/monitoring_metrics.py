"""What monitoring tells Prometheus: the newest documents that the period's runs wrote, read at each scrape."""

from collections.abc import Iterator
from pathlib import Path

from boucle.contracts.ids import ModelName
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.verdict import Verdict
from boucle_adapters.clock import HomeClock
from boucle_adapters.exposition import Family, Sample
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
REPORT_WINDOW = Family(
    name="boucle_drift_report_window_seconds", text="How long the newest monitored window is", labels=("model",)
)


def of_drift(settings: Settings, model: ModelName) -> list[Sample]:
    """The newest drift report; nothing before the first one."""
    file = newest_file(settings.data_dir / "documents" / model / "drift_report")
    if file is None:
        return []
    report = DriftReport.model_validate_json(file.read_bytes())
    age = HomeClock(settings.clock_file(model)).now() - report.window_end
    return [
        Sample(REPORT_AGE, (model,), age.total_seconds()),
        Sample(REPORT_WINDOW, (model,), (report.window_end - report.window_start).total_seconds()),
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
        for verdict in Verdict:
            yield Sample(GATE_VERDICT, (*labels, verdict), float(gate.verdict is verdict))
