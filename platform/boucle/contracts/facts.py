"""Facts that gates judge: measured by training and monitoring, read by policy, and never a decision themselves."""

from collections.abc import Mapping
from dataclasses import dataclass

from boucle.contracts.bundle import BundleContract
from boucle.contracts.evidence import ModelMetrics
from boucle.contracts.profile import CalibrationProfile, ColumnProfile, ReferenceProfile


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its confidence interval `[low, high]`, and what it rests on."""

    estimate: float
    low: float
    high: float
    sample_size: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class ServiceFacts:
    """Requests that one version answered in a window: all, those that ended as its error, and those that were slow.

    A call of many rows is one request: its rows are no independent witnesses. It failed to the share of its rows that
    did. `asked` and `refused` are of the replicas as a whole: all requests, and those turned away because one was full.
    """

    requests: int
    failed: int
    slow: int
    asked: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class BurnFacts:
    """What was answered in the long and in the short window of a burn rule; the short one is the end of the long."""

    long: ServiceFacts
    short: ServiceFacts


@dataclass(frozen=True, kw_only=True)
class LoadFacts:
    """What was asked of replicas, and what they turned away because they were full, in so many seconds."""

    asked: int
    refused: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class OutputFacts:
    """What production and the version before it answer to the same rows, each row counted once.

    `commonest` rows got the answer of production that most rows got, `commonest_before` that of the version before.
    `shift` is the mean of the differences, `deviation` the standard deviation of the answers of the version before.
    """

    rows: int
    commonest: int
    commonest_before: int
    shift: Interval
    deviation: float


@dataclass(frozen=True, kw_only=True)
class ScoreFacts:
    """Whether scores are probabilities at all. `spread` is the largest usable score minus the smallest."""

    rows: int
    not_a_number: int
    outside: int
    spread: float


@dataclass(frozen=True, kw_only=True)
class SliceFacts:
    """One slice: its rows' loss(reference) - loss(candidate) in nats."""

    name: str
    gain: Interval


@dataclass(frozen=True, kw_only=True)
class SlicesFacts:
    """The slices that have enough rows, and how many have not.

    Each interval covers `level`, so that all of them together hold at the level that was asked for (Bonferroni).
    """

    judged: tuple[SliceFacts, ...]
    small: int
    level: float


@dataclass(frozen=True, kw_only=True)
class RobustnessFacts:
    """What the model answers to rows with one value missing, at an end of its range, or far beyond it.

    `useless` counts answers among `rows` that are no probability. `worst_missing` is the feature without which the log
    loss is highest, `worst_missing_ratio` that loss over the one of the base rate, measured on `missing_rows` rows.
    """

    rows: int
    useless: int
    worst_missing: str
    worst_missing_ratio: float
    missing_rows: int


@dataclass(frozen=True, kw_only=True)
class ApiFacts:
    """How the serving app did with the candidate's bundle, over HTTP.

    `requests` were sent, `timed` of them were predictions that count for `p99_ms`; `violations` are sentences.
    """

    requests: int
    violations: tuple[str, ...]
    timed: int
    p99_ms: float | None


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
    production where there is one, else the baseline; `slices` are the same by slice, `cost_gain` the same in cost (None
    where no cost matrix is declared). `score_shift` is the mean distance of the scores from production's on these
    rows, or from those on training rows. `calibration` is mean score - positive rate. `declared` is the contract that
    the model's schema promises, `served` the one of production (None before the first promotion).
    """

    rows: int
    positives: int
    candidate: ModelMetrics
    production: ModelMetrics | None
    baseline: ModelMetrics
    gain: Interval
    cost_gain: Interval | None
    slices: SlicesFacts
    calibration: Interval
    scores: ScoreFacts
    score_shift: float
    robustness: RobustnessFacts
    latency: LatencyFacts
    api: ApiFacts
    contract: BundleContract
    declared: BundleContract
    served: BundleContract | None


@dataclass(frozen=True, kw_only=True)
class LiveFacts:
    """What the production version saw and answered in one window, against its reference; profiles on its bins.

    `outcomes` are those that became known in the window; None when there is none.
    """

    reference: ReferenceProfile
    predictions: int
    scores: ColumnProfile
    features: Mapping[str, ColumnProfile]
    outcomes: CalibrationProfile | None
