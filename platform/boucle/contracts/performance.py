"""Documents of performance: how the live versions did, how they are expected to do, and how good that estimate was."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion, PeriodKey
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.outcomes import WindowOutcomes
from boucle.contracts.verdict import Gate


class Metric(StrEnum):
    """What is measured of scores; less is better but for `auc`, and `calibration` is best at 0."""

    LOG_LOSS = "log_loss"
    """Mean log loss, nats."""
    BRIER = "brier"
    """Mean squared difference of score and label."""
    AUC = "auc"
    """Share of pairs ranked right."""
    CALIBRATION = "calibration"
    """Mean score - positive rate, probability."""


class Measured(Document):
    """A value with its interval `[low, high]`."""

    estimate: float
    low: float
    high: float


class SliceBins(Document):
    """How one feature cuts rows into slices: at each of `values`, or, where there are none, between `cuts`."""

    feature: str
    values: tuple[float, ...] = ()
    cuts: tuple[float, ...] = ()


class Recalibration(Document):
    """Probability of a score by what came of such scores on the holdout: `logit p = intercept + slope * logit score`.

    `covariance` is of (intercept, slope), by entity.
    """

    intercept: float
    slope: float
    covariance: tuple[tuple[float, float], tuple[float, float]]
    rows: int
    positives: int


class PerformanceReference(Document):
    """What live performance of one version is held against and cut by, from its holdout.

    `recalibration` is None where the holdout is too small for one; `sliced_by` says which slices were declared.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    log_loss: float
    recalibration: Recalibration | None
    feature_names: tuple[str, ...]
    sliced_by: tuple[str, ...]
    slices: tuple[SliceBins, ...]


class Performance(Document):
    """Realised performance of one version on predictions whose outcome was due in the window and is known.

    One row of the whole version, one for each role in which it answered, one for each slice. `fallbacks` are answers in
    place of another arm. Metrics and rate are None, and `note` says why, where there are too few labels: never 0.
    """

    version: ModelVersion
    role: str | None = None
    slice: str | None = None
    predictions: int
    entities: int
    positives: int
    fallbacks: int
    mean_score: float
    positive_rate: float | None
    metrics: dict[Metric, Measured | None]
    note: str = ""


class Confusion(Document):
    """Expected counts where one acts at scores of at least `threshold`."""

    threshold: float
    true_positives: float
    false_positives: float
    false_negatives: float
    true_negatives: float


class Estimate(Document):
    """Expected performance of one version on the predictions that it answered in the window, without their labels.

    `refused` says why there is none; then every metric is None. `calibration`, `slope` and `error` are the gates that
    the newest mature predictions were asked; None for a slice, and for what earlier releases did not ask.
    """

    version: ModelVersion
    slice: str | None = None
    predictions: int
    mean_score: float
    expected_positive_rate: float | None = None
    metrics: dict[Metric, Measured | None]
    confusion: Confusion | None = None
    calibration: Gate | None = None
    slope: Gate | None = None
    error: Gate | None = None
    refused: str = ""


class EstimateError(Document):
    """An estimate as it was made, against what came of the same predictions.

    `error` is estimated - realised; `covered` says whether the realised value is in the estimate's interval. `known`
    of the `predictions` have an outcome by now.
    """

    period: PeriodKey
    version: ModelVersion
    metric: Metric
    predictions: int
    known: int
    estimated: Measured
    realised: float
    error: float
    covered: bool


class PerformanceReport(Document):
    """Performance in one window. `restatement` 0 is as it was first reported, and stays; later ones rest on more.

    `outcomes` is the knowledge that `realised` rests on. `estimated` is of the predictions served in the window,
    `realised` of those whose outcome was due in it. `estimate_errors` are of estimates that matured in the window.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    period: PeriodKey
    window_start: AwareDatetime
    window_end: AwareDatetime
    restatement: int = Field(ge=0)
    production_version: ModelVersion | None
    outcomes: WindowOutcomes
    realised: tuple[Performance, ...]
    estimated: tuple[Estimate, ...]
    estimate_errors: tuple[EstimateError, ...]
    gates: tuple[Gate, ...]
    created_at: AwareDatetime

    @property
    def coverage(self) -> float | None:
        """Share of the due predictions whose outcome is known; None when none was due."""
        return self.outcomes.coverage


class EstimateAccuracy(Document):
    """How far off the estimates of a metric were, over windows.

    `bias` is estimated - realised on average; `covered` the share whose interval held the realised value.
    """

    metric: Metric
    estimates: int
    mean_absolute_error: float
    bias: float
    covered: float


class MonitoredWindow(Document):
    """The newest report of a window, and its drift; None where there is no drift report."""

    performance: PerformanceReport
    drift: DriftReport | None


class MonitoringHistory(Document):
    """What monitoring knows of a model over its last windows, oldest first."""

    model: ModelName
    windows: tuple[MonitoredWindow, ...]
    estimate_accuracy: tuple[EstimateAccuracy, ...]
