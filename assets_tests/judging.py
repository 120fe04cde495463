"""Facts about a candidate that passes every gate; a test changes the one thing that it is about."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from boucle.contracts.bundle import BundleContract, FeatureSpec, OutputSpec
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import ModelMetrics
from boucle.contracts.facts import (
    ApiFacts,
    EvaluationFacts,
    Interval,
    LatencyFacts,
    LiveFacts,
    RobustnessFacts,
    ScoreFacts,
    SliceFacts,
    SlicesFacts,
)
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.profile import CalibrationProfile, ColumnProfile, ReferenceProfile
from boucle.contracts.trigger import Trigger, TriggerOutcome
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.features.profiles import profile_column
from boucle.stats.calibration import build_calibration

MODEL = ModelName("repurchase")


ROBUST = RobustnessFacts(rows=10_000, useless=0, worst_missing="freq", worst_missing_ratio=0.97, missing_rows=2_000)
ANSWERS = ApiFacts(requests=340, violations=(), timed=300, p99_ms=4.0)


def day(text: str) -> datetime:
    """Midnight UTC of a date."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def contract(*names: str, entity: str = "user_id", **changes: Any) -> BundleContract:
    """A contract with float features that may be missing."""
    features = tuple(
        FeatureSpec(**{"name": name, "dtype": "float64", "nullable": True} | changes)
        for name in names or ("recency", "freq")
    )
    output = OutputSpec(description="buys within 30 days")
    return BundleContract(model=MODEL, entity=entity, features=features, output=output, max_feature_age_days=31)


def interval(estimate: float, low: float, high: float, n: int = 10_000) -> Interval:
    """An interval over as many entities as rows."""
    return Interval(estimate=estimate, low=low, high=high, sample_size=n, entities=n)


def scored(log_loss: float = 0.22, *, auc: float = 0.8, mean_score: float = 0.08, brier: float = 0.07) -> ModelMetrics:
    """Metrics of one set of scores where 8 % are positive."""
    return ModelMetrics(
        log_loss=log_loss, auc=auc, brier=brier, calibration_error=mean_score - 0.08, mean_score=mean_score
    )


def evaluation(**changes: Any) -> EvaluationFacts:
    """A candidate that is surely better than production, on 10,000 rows with 800 positives."""
    facts: dict[str, Any] = {
        "rows": 10_000,
        "positives": 800,
        "candidate": scored(0.22),
        "production": scored(0.23),
        "baseline": scored(0.28, auc=0.5, brier=0.074),
        "gain": interval(0.01, 0.008, 0.012),
        "cost_gain": None,
        "slices": SlicesFacts(
            judged=(SliceFacts(name="freq = 1", gain=interval(0.004, 0.001, 0.007)),), small=0, level=0.95
        ),
        "calibration": interval(0.0, -0.004, 0.004),
        "scores": ScoreFacts(rows=10_000, not_a_number=0, outside=0, spread=0.7),
        "score_shift": 0.05,
        "robustness": ROBUST,
        "latency": LatencyFacts(requests=500, median_ms=0.03, p99_ms=0.1),
        "api": ANSWERS,
        "contract": contract(),
        "declared": contract(),
        "served": contract(),
    }
    return EvaluationFacts(**facts | changes)


def column(*counts: int, nulls: int = 0) -> ColumnProfile:
    """So many values below 0, in [0, 1), [1, 2), ..., evenly spread, and so many missing ones."""
    values = [np.linspace(place - 1, place, count, endpoint=False) for place, count in enumerate(counts)]
    edges = [float(edge) for edge in range(len(counts) - 1)]
    return profile_column(np.concatenate([*values, np.full(nulls, np.nan)]), edges)


SAME = column(0, 250, 250, 250, 250)
MOVED = column(0, 10, 40, 150, 800)


def known(n: int = 4_000, *, gap: float = 0.0, positives_scored: float | None = None) -> CalibrationProfile:
    """Outcomes of which 8 % are positive: all scored 0.08 + gap, or the positives otherwise, with the same mean."""
    positives = n * 8 // 100
    labels = np.repeat([1.0, 0.0], [positives, n - positives])
    scores = np.full(n, 0.08 + gap)
    if positives_scored is not None:
        mean = (n * (0.08 + gap) - positives * positives_scored) / (n - positives)
        scores = np.where(labels == 1, positives_scored, mean)
    return build_calibration(labels, scores, np.arange(n), (0.0, 0.05, 0.1, 1.0))


def live(**changes: Any) -> LiveFacts:
    """A window of 1,000 predictions in which nothing drifted, and 4,000 outcomes."""
    reference = ReferenceProfile(
        model=MODEL,
        version=ModelVersion(1),
        window_start=day("1997-04-01"),
        window_end=day("1997-05-01"),
        rows=1_000,
        features={"recency": SAME.histogram, "freq": SAME.histogram},
        scores=SAME.histogram,
        mean_score=0.08,
        positive_rate=0.08,
        log_loss=0.2788,
        importance={"recency": 0.75, "freq": 0.25},
        details={"recency": SAME.details, "freq": SAME.details},
        score_details=SAME.details,
        outcomes=known(),
    )
    facts: dict[str, Any] = {
        "reference": reference,
        "predictions": 1_000,
        "scores": SAME,
        "features": {"recency": SAME, "freq": SAME},
        "outcomes": known(),
    }
    return LiveFacts(**facts | changes)


def gate(name: str, verdict: Verdict) -> Gate:
    """A gate that says this, with some numbers."""
    return Gate(
        name=name,
        verdict=verdict,
        measured=0.03,
        bound=Bound.AT_MOST,
        limit=0.005,
        unit="probability",
        sample_size=2_000,
    )


def drift_report(**changes: Any) -> DriftReport:
    """August 1997: five mature as_of, version 2 in production, trained up to June, July is new, nothing drifted."""
    facts: dict[str, Any] = {
        "model": MODEL,
        "period": "1997-08",
        "window_start": day("1997-08-01"),
        "window_end": day("1997-09-01"),
        "production_version": ModelVersion(2),
        "predictions": 2_000,
        "labelled": 2_000,
        "gates": (gate("calibration_drift", Verdict.PASSED),),
        "feature_psi": {},
        "newest_mature_as_of": day("1997-07-01"),
        "mature_periods": 5,
        "trained_up_to": day("1997-06-01"),
        "created_at": day("1997-09-01"),
    }
    return DriftReport(**facts | changes)


def trigger(period: str, outcome: TriggerOutcome, *, production: int | None = 2) -> Trigger:
    """An earlier trigger."""
    return Trigger.model_validate(
        {
            "model": MODEL,
            "period": period,
            "production_version": production,
            "outcome": outcome,
            "reason": "",
            "run_key": period,
        }
    )


def training_manifest(
    *, train: Sequence[str] = ("1997-04-01",), holdout: Sequence[str] = ("1997-06-01",)
) -> TrainingManifest:
    """A training set of 100 rows and 100 of holdout, by the days of their as_of."""
    return TrainingManifest(
        model=MODEL,
        watermark=day("1997-07-01"),
        horizon_days=30,
        train_as_of=tuple(day(text) for text in train),
        holdout_as_of=tuple(day(text) for text in holdout),
        holdout_from=day(holdout[0]),
        snapshots={},
        feature_names=("recency",),
        train_rows=100,
        train_positives=10,
        holdout_rows=100,
        holdout_positives=10,
        content_digest=Digest("a" * 64),
        file="data/rows.parquet",
        gates=(),
    )
