"""Facts that gates judge: measured by training and monitoring, read by policy, and never a decision themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from boucle.contracts.bundle import BundleContract
from boucle.contracts.evidence import ModelMetrics
from boucle.contracts.profile import Histogram, ReferenceProfile


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval `[low, high]`, and what it rests on."""

    estimate: float
    low: float
    high: float
    sample_size: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class ScoreFacts:
    """Whether scores are probabilities at all. `spread` is the largest usable score minus the smallest."""

    rows: int
    not_a_number: int
    outside: int
    spread: float


@dataclass(frozen=True, kw_only=True)
class LatencyFacts:
    """Times of single-row requests through the exported model, in milliseconds."""

    requests: int
    median_ms: float
    p99_ms: float


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """How many rows and positive labels each part of a training set has, and how many training labels came too late."""

    train_rows: int
    train_positives: int
    holdout_rows: int
    holdout_positives: int
    late_labels: int


@dataclass(frozen=True, kw_only=True)
class ParityFacts:
    """Largest absolute difference between estimator and export, over `rows` rows of which `probes` were made up.

    NaN when an answer was NaN on one side only: that is no parity.
    """

    max_difference: float
    rows: int
    probes: int


@dataclass(frozen=True, kw_only=True)
class EvaluationFacts:
    """What was measured of a candidate on a holdout that no model learnt from.

    `gain` is loss(reference) - loss(candidate) per row in nats, paired, resampled by entity; the reference is
    production where there is one, else the baseline. `calibration` is mean score - positive rate. `declared` is the
    contract that the model's schema promises, `served` the one of production (None before the first promotion).
    """

    rows: int
    positives: int
    candidate: ModelMetrics
    production: ModelMetrics | None
    baseline: ModelMetrics
    gain: Interval
    calibration: Interval
    scores: ScoreFacts
    latency: LatencyFacts
    contract: BundleContract
    declared: BundleContract
    served: BundleContract | None


@dataclass(frozen=True, kw_only=True)
class LiveFacts:
    """What the production version saw and answered in one window, against its reference.

    `calibration` (mean score - positive rate) and `log_loss` (nats) are of the predictions whose labels are mature;
    None when there is none. `positives` counts the positive ones among those labels.
    """

    reference: ReferenceProfile
    predictions: int
    positives: int
    scores: Histogram
    features: Mapping[str, Histogram]
    calibration: Interval | None
    log_loss: Interval | None
