"""The drift report of a window, and what its check says."""

from pathlib import Path

import dagster as dg

from boucle.contracts.monitoring import DriftReport
from boucle.contracts.verdict import Verdict, overall
from boucle.contracts.windows import Period, previous_period
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.ground_truth import outcomes
from boucle_platform.model_loop.steps.prediction_log import joined_up, predictions_of


def drift(home: Home, spec: LoopSpec, period: Period, *, draw: bool = True) -> tuple[DriftReport, Path | None]:
    """The drift report of the window that ends with the period, and Evidently's page where there is one to draw."""
    parts = [period]
    while len(parts) < spec.monitoring.window_periods and not spec.starts(parts[0]):
        parts.insert(0, previous_period(parts[0], spec.cadence))
    window = period.model_copy(update={"start": parts[0].start})
    seen = joined_up([predictions_of(home, spec, part) for part in parts])
    judged = joined_up([outcomes(home, spec, part.key) for part in parts])
    return measure_drift(home, spec, window, seen, judged, draw=draw)


def drift_check(report: DriftReport) -> dg.AssetCheckResult:
    """Drift warns: it asks for retraining, it blocks nothing."""
    verdict = overall(report.gates)
    sentences = "; ".join(gate.sentence() for gate in report.gates)
    return dg.AssetCheckResult(
        check_name="drift_within_limits",
        passed=verdict is Verdict.PASSED,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentences or "nothing to compare: no version is in production",
        metadata={"verdict": verdict.value},
    )
