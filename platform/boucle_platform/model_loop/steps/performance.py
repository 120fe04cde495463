"""How the live versions did and are expected to do, by window; restated, never written over (ADR 22)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from boucle.contracts.facts import Interval
from boucle.contracts.ids import Digest, ModelVersion, PeriodKey
from boucle.contracts.performance import Estimate, EstimateError, PerformanceReference, PerformanceReport, Recalibration
from boucle.contracts.verdict import Gate, Verdict, overall
from boucle.contracts.windows import Period
from boucle.errors import NotEnoughDataError
from boucle.policy.performance import (
    MatureGates,
    calibration_of_probabilities,
    error_of_estimate,
    performance_gates,
    slope_of_probabilities,
)
from boucle.stats.estimation import calibrated, gap_of_probabilities, log_loss_error, slope_interval
from boucle.stats.metrics import Vector
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.estimates import estimate_errors, estimates_of
from boucle_platform.model_loop.steps.ground_truth import (
    newest_statement,
    outcomes,
    restatable,
    stated_rows,
    statements,
)
from boucle_platform.model_loop.steps.monitoring import newest_failed
from boucle_platform.model_loop.steps.performance_reference import reference_of
from boucle_platform.model_loop.steps.performance_rows import answered_by, entities_of, realised_rows, whole_row
from boucle_platform.model_loop.steps.prediction_log import joined_up, predictions_of

CHECK = "performance_within_tolerance"


@dataclass(frozen=True, kw_only=True)
class Reported:
    """The newest report of each period of a run, and what it restated of earlier windows."""

    reports: dict[PeriodKey, PerformanceReport]
    restated: tuple[PerformanceReport, ...]


def live_performance(home: Home, spec: LoopSpec, periods: Sequence[Period]) -> Reported:
    """Report each period; restate earlier windows whose outcomes were restated since they were reported.

    An earlier window whose outcomes are gone keeps the report that it has.

    Raises:
        NotEnoughDataError: The ground truth of one of the periods is not there.
    """
    reports = {period.key: _reported(home, spec, period) for period in periods}
    behind = [
        window
        for window in restatable(spec, periods)
        if window not in periods
        and (before := home.monitoring.statements(spec.name, window.key))
        and (told := statements(home, spec, window.key))
        and before[-1].outcomes.restatement < told[-1].restatement
    ]
    return Reported(reports=reports, restated=tuple(_reported(home, spec, window) for window in behind))


def tolerance_check(reports: Sequence[PerformanceReport]) -> dg.AssetCheckResult:
    """Of several windows the newest that failed, else the newest. It warns: what follows is decided elsewhere."""
    report = newest_failed(reports)
    verdict = overall(report.gates)
    sentences = "; ".join(gate.sentence() for gate in report.gates)
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=verdict is Verdict.PASSED,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentences or "nothing to measure: no version is in production",
        metadata={"verdict": verdict.value, "period": report.period, "known_at": report.outcomes.known_at.isoformat()},
    )


def _reported(home: Home, spec: LoopSpec, window: Period) -> PerformanceReport:
    """The newest report of a window, written now unless it says the same as the one before."""
    before = home.monitoring.statements(spec.name, window.key)
    report = _measured(home, spec, window, before)
    if before and _said(before[-1]) == _said(report):
        return before[-1]
    home.monitoring.write(report)
    return report


def _said(report: PerformanceReport) -> tuple[object, ...]:
    return report.outcomes, report.realised, report.gates


def _measured(home: Home, spec: LoopSpec, window: Period, before: tuple[PerformanceReport, ...]) -> PerformanceReport:
    """An estimate is what was said at the time: a restatement keeps it, and the version that was production then."""
    production = before[0].production_version if before else home.state.production(spec.name)
    knowledge = newest_statement(home, spec, window.key)
    rows = stated_rows(home, spec, knowledge)
    pooled = joined_up([outcomes(home, spec, part.key) for part in spec.judged_with(window)])
    realised = tuple(
        row
        for version, own in answered_by(rows)
        for row in realised_rows(spec, version, own, _reference(home, spec, version, own))
    )
    report = PerformanceReport(
        model=spec.name,
        period=window.key,
        window_start=window.start,
        window_end=window.end,
        restatement=before[-1].restatement + 1 if before else 0,
        production_version=production,
        outcomes=knowledge,
        realised=realised,
        estimated=before[0].estimated if before else _estimated(home, spec, window, pooled),
        estimate_errors=before[-1].estimate_errors if before else (),
        gates=() if production is None else _gates(home, spec, production, pooled),
        created_at=home.clock(spec.name).now(),
    )
    if before:
        return report
    return report.model_copy(update={"estimate_errors": _matured(home, spec, window, report)})


def _gates(home: Home, spec: LoopSpec, production: ModelVersion, pooled: pd.DataFrame) -> tuple[Gate, ...]:
    own = pooled[pooled["model_version"] == production]
    if own.empty:
        return performance_gates(spec.monitoring, None, None)
    row = whole_row(spec, production, own)
    return performance_gates(spec.monitoring, row, _reference(home, spec, production, own))


def _estimated(home: Home, spec: LoopSpec, window: Period, pooled: pd.DataFrame) -> tuple[Estimate, ...]:
    served = predictions_of(home, spec, window)
    found: list[Estimate] = []
    for version, own in answered_by(served[~served["pinned"].astype(bool)]):
        reference = _reference(home, spec, version, own)
        mature = _mature_gates(spec, reference, pooled[pooled["model_version"] == version])
        evidence = home.evidence.newest(spec.name, version)
        judged = next((gate for gate in evidence.gates if gate.name == "calibration"), None) if evidence else None
        found += estimates_of(spec, version, own, reference, judged=judged, mature=mature)
    return tuple(found)


def _mature_gates(spec: LoopSpec, reference: PerformanceReference | None, rows: pd.DataFrame) -> MatureGates:
    """Whether the version's probabilities meant what they said in the newest mature windows."""
    entities = entities_of(rows)
    enough = len(rows) >= spec.performance.min_labels and len(np.unique(entities)) > 1
    gap, slope, error = None, None, None
    if reference is not None and reference.recalibration is not None and enough:
        labels, scores = (rows[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
        learnt, level = reference.recalibration, spec.monitoring.confidence
        if _either_kind(labels, calibrated(learnt, scores)) >= spec.performance.min_positives:
            gap = gap_of_probabilities(labels, scores, learnt, entities, level=level)
            slope = _slope(labels, scores, learnt, entities, level=level)
            error = log_loss_error(labels, scores, learnt, entities, level=level)
    return MatureGates(
        calibration=calibration_of_probabilities(spec.monitoring, gap),
        slope=slope_of_probabilities(spec.performance, slope),
        error=error_of_estimate(spec.monitoring, error),
    )


def _either_kind(labels: Vector, p: Vector) -> float:
    """Rows of the rarer kind, known or expected: of few an interval is too narrow, and of none it has no width."""
    return min(max(float(known.sum()), float(due.sum())) for known, due in ((labels, p), (1 - labels, 1 - p)))


def _slope(
    labels: Vector, scores: Vector, learnt: Recalibration, entities: ArrayLike, *, level: float
) -> Interval | None:
    try:
        return slope_interval(labels, scores, learnt, entities, level=level)
    except NotEnoughDataError:
        return None


def _matured(home: Home, spec: LoopSpec, window: Period, report: PerformanceReport) -> tuple[EstimateError, ...]:
    """The errors of estimates, this window's and earlier ones', all of whose predictions are due by now."""
    # The last answer of a window is due a horizon after its end, and found in the window that is open then.
    due = timedelta(days=spec.horizon_days) + (window.end - window.start)
    earliest = window.end - max(timedelta(days=spec.outcomes.restate_days), due)
    before = [one for one in home.monitoring.newest(spec.name) if earliest < one.window_end <= window.start]
    recorded = {(error.period, error.version) for one in before for error in one.estimate_errors}
    windows, found = (*before, report), list[EstimateError]()
    for place, one in enumerate(windows):
        asked = tuple(each for each in one.estimated if not each.refused and (one.period, each.version) not in recorded)
        if not asked:
            continue
        served = predictions_of(home, spec, spec.period(one.period))
        known = joined_up([outcomes(home, spec, since.period) for since in windows[place:]])
        found += estimate_errors(
            spec,
            one.model_copy(update={"estimated": asked}),
            served[~served["pinned"].astype(bool)],
            known,
            by=window.end,
        )
    return tuple(found)


def _reference(home: Home, spec: LoopSpec, version: ModelVersion, rows: pd.DataFrame) -> PerformanceReference | None:
    return reference_of(home, spec, version, Digest(str(rows["bundle_digest"].iloc[0])))
