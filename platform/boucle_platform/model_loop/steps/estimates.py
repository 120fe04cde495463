"""Estimated performance of one window, and what became of earlier estimates."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from boucle.contracts.ids import ModelVersion
from boucle.contracts.performance import (
    Estimate,
    EstimateError,
    Measured,
    Metric,
    PerformanceReference,
    PerformanceReport,
    Recalibration,
)
from boucle.contracts.verdict import Gate
from boucle.policy.performance import MatureGates, why_not_estimated
from boucle.stats.estimation import calibrated, estimate_metrics, expected_confusion
from boucle.stats.performance import realised_metrics
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.performance_rows import answered_by, entities_of, sliced
from boucle_platform.model_loop.steps.prediction_log import naive

_NO_METRIC: Mapping[Metric, Measured | None] = dict.fromkeys(Metric)


def estimates_of(
    spec: LoopSpec,
    version: ModelVersion,
    rows: pd.DataFrame,
    reference: PerformanceReference | None,
    *,
    judged: Gate | None,
    mature: MatureGates,
) -> list[Estimate]:
    """What the version's answers promise of themselves, whole and by slice; or one line that says why nothing."""
    refused = why_not_estimated(spec.performance, reference, judged, mature)
    learnt = None if reference is None else reference.recalibration
    asked = {"calibration": mature.calibration, "slope": mature.slope, "error": mature.error}
    if refused or learnt is None:
        return [_nothing(version, rows, refused).model_copy(update=asked)]
    whole = _estimate(spec, version, rows, learnt).model_copy(update=asked)
    if whole.refused:
        return [whole]
    parts = [(name, _estimate(spec, version, own, learnt)) for name, own in sliced(rows, reference)]
    return [whole, *(part.model_copy(update={"slice": name}) for name, part in parts)]


def estimate_errors(
    spec: LoopSpec, report: PerformanceReport, served: pd.DataFrame, known: pd.DataFrame, *, by: datetime
) -> list[EstimateError]:
    """The error of each estimate of a window, once all of its predictions are due and enough outcomes are known.

    Args:
        spec: The model.
        report: Of the window, as it was first reported or restated: its estimates are the same.
        served: What was answered in it.
        known: Predictions with their outcomes, of that window and those since.
        by: The moment of knowledge.
    """
    estimated = {one.version: one for one in report.estimated if one.slice is None and not one.refused}
    errors: list[EstimateError] = []
    for version, own in answered_by(served):
        due = own["features_as_of"].fillna(own["as_of"]) + timedelta(days=spec.horizon_days)
        if version not in estimated or due.max() > naive(by):
            continue
        found = known[known["prediction_id"].isin(own["prediction_id"])]
        if len(found) >= spec.performance.min_matured * len(own):
            errors += _errors(spec, report, estimated[version], found)
    return errors


def _errors(spec: LoopSpec, report: PerformanceReport, one: Estimate, found: pd.DataFrame) -> list[EstimateError]:
    labels, scores = (found[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
    realised = realised_metrics(labels, scores, entities_of(found), level=spec.monitoring.confidence)
    return [
        EstimateError(
            period=report.period,
            version=one.version,
            metric=metric,
            predictions=one.predictions,
            known=len(found),
            estimated=estimated,
            realised=came.estimate,
            error=estimated.estimate - came.estimate,
            covered=estimated.low <= came.estimate <= estimated.high,
        )
        for metric, came in realised.items()
        if came is not None and (estimated := one.metrics[metric]) is not None
    ]


def _estimate(spec: LoopSpec, version: ModelVersion, rows: pd.DataFrame, learnt: Recalibration) -> Estimate:
    scores = rows["proba"].to_numpy(dtype=np.float64)
    p, least = calibrated(learnt, scores), spec.performance.min_positives
    if min(float(p.sum()), float((1 - p).sum())) < least:
        few = f"{len(rows)} predictions promise {p.sum():.1f} positives; {least} of either kind are asked."
        return _nothing(version, rows, few)
    costs = spec.promotion.costs
    threshold = learnt.positives / learnt.rows if costs is None else costs.threshold
    return Estimate(
        version=version,
        predictions=len(rows),
        mean_score=float(scores.mean()),
        expected_positive_rate=float(p.mean()),
        metrics=estimate_metrics(scores, learnt, entities_of(rows), level=spec.monitoring.confidence),
        confusion=expected_confusion(scores, learnt, threshold=threshold),
    )


def _nothing(version: ModelVersion, rows: pd.DataFrame, refused: str) -> Estimate:
    return Estimate(
        version=version,
        predictions=len(rows),
        mean_score=float(rows["proba"].mean()),
        metrics=dict(_NO_METRIC),
        refused=refused,
    )
