"""The drift report of a window, and what its check says."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import dagster as dg

from boucle.contracts.monitoring import DriftReport
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.verdict import Gate, Verdict, overall
from boucle.contracts.windows import Period
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.store import drift_reports

R = TypeVar("R", DriftReport, PerformanceReport)
SHOWN_PERIODS = 36
SHOWN_GATES = ("score_drift", "feature_drift")


def drift(home: Home, spec: LoopSpec, period: Period, *, draw: bool = True) -> tuple[DriftReport, Path | None]:
    """The drift report of the window that ends with the period, and Evidently's page where there is one to draw."""
    return measure_drift(home, spec, spec.judged_with(period), draw=draw)


def drift_history(home: Home, spec: LoopSpec, newest: Sequence[DriftReport]) -> dict[str, dict[str, Gate]]:
    """The drift gates of distributions that measured something, by name and period: the last periods and the newest.

    Reports without answers are left out: nothing measured is not a zero.
    """
    reports = {report.period: report for report in drift_reports(home, spec, last=SHOWN_PERIODS)}
    reports |= {report.period: report for report in newest}
    history: dict[str, dict[str, Gate]] = {name: {} for name in SHOWN_GATES}
    for period in sorted(reports):
        for gate in reports[period].gates:
            if gate.name in history and gate.measured is not None:
                history[gate.name][period] = gate
    return history


def newest_failed(reports: Sequence[R]) -> R:
    """The newest report in which a gate failed; where none did, the newest."""
    return ([one for one in reports if overall(one.gates) is Verdict.FAILED] or list(reports))[-1]


def drift_check(reports: Sequence[DriftReport]) -> dg.AssetCheckResult:
    """Of several windows the newest that failed, else the newest. It warns: drift asks for retraining, no more."""
    report = newest_failed(reports)
    verdict = overall(report.gates)
    sentences = "; ".join(gate.sentence() for gate in report.gates)
    return dg.AssetCheckResult(
        check_name="drift_within_limits",
        passed=verdict is Verdict.PASSED,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentences or "nothing to compare: no version is in production",
        metadata={"verdict": verdict.value, "period": report.period},
    )
