"""Candidate, production and baseline on the same holdout: what the gates need to know, measured."""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import ArrayLike

from boucle.contracts.bundle import BundleContract
from boucle.contracts.evidence import ModelMetrics
from boucle.contracts.facts import ApiFacts, EvaluationFacts, LatencyFacts, RobustnessFacts, ScoreFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.measuring import CostMatrix, Slicing
from boucle.contracts.profile import ReferenceProfile
from boucle.features.profiles import profile_reference
from boucle.stats.calibration import build_calibration
from boucle.stats.intervals import calibration_interval, paired_cost_gain, paired_gain
from boucle.stats.metrics import Vector, log_loss, log_loss_rows, model_metrics
from boucle.training.fit import Matrix
from boucle.training.slices import slice_gains

REFERENCE_BINS = 30
"""Statistics of 30 bins are within .01 of exact ones (`platform/docs/monitoring.md`)."""


def baseline_scores(training_labels: Vector, rows: int) -> Vector:
    """The positive rate of the training labels for every row: what knowing nothing but that would answer."""
    return np.full(rows, float(training_labels.mean()))


@dataclass(frozen=True, kw_only=True)
class Holdout:
    """Rows that no model learnt from: features [rows, features], labels 0 or 1, whom each row is about."""

    features: Matrix
    feature_names: Sequence[str]
    labels: Vector
    entities: ArrayLike


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Scores of the same holdout rows, in the same order; `production` is None before the first promotion.

    `learnt` are the candidate's scores of rows that it learnt from.
    """

    candidate: Vector
    production: Vector | None
    baseline: Vector
    learnt: Vector


@dataclass(frozen=True, kw_only=True)
class Contracts:
    """The candidate's contract, the one its schema declares, and the one production serves (None: nothing yet)."""

    candidate: BundleContract
    declared: BundleContract
    served: BundleContract | None


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What was measured by asking the candidate, alone and in the serving app."""

    robustness: RobustnessFacts
    latency: LatencyFacts
    api: ApiFacts


def evaluate(
    holdout: Holdout,
    scores: Scores,
    contracts: Contracts,
    trials: Trials,
    *,
    seed: int,
    level: float = 0.95,
    slicing: Slicing,
    costs: CostMatrix | None = None,
) -> EvaluationFacts:
    """Measure all that the promotion gates judge.

    Scores of the candidate that are no probabilities are counted (`ScoreFacts`) and taken for 0.5 in everything else,
    so that the report can still be written; the gate `output_sanity` fails on them.
    """
    labels, entities = holdout.labels, holdout.entities
    usable = _usable(scores.candidate)
    reference = scores.baseline if scores.production is None else scores.production
    gained = log_loss_rows(labels, reference) - log_loss_rows(labels, usable)
    return EvaluationFacts(
        rows=len(labels),
        positives=int(labels.sum()),
        candidate=model_metrics(labels, usable),
        production=None if scores.production is None else model_metrics(labels, scores.production),
        baseline=model_metrics(labels, scores.baseline),
        gain=paired_gain(labels, reference=reference, candidate=usable, entities=entities, seed=seed, level=level),
        cost_gain=None
        if costs is None
        else paired_cost_gain(
            labels, reference=reference, candidate=usable, costs=costs, entities=entities, seed=seed, level=level
        ),
        slices=slice_gains(gained, holdout.features, holdout.feature_names, entities, slicing, level=level),
        calibration=calibration_interval(labels, usable, entities, seed=seed, level=level),
        scores=score_facts(scores.candidate),
        score_shift=score_shift(_usable(scores.learnt) if scores.production is None else scores.production, usable),
        robustness=trials.robustness,
        latency=trials.latency,
        api=trials.api,
        contract=contracts.candidate,
        declared=contracts.declared,
        served=contracts.served,
    )


def score_facts(scores: Vector) -> ScoreFacts:
    """Whether the scores are probabilities, and whether they differ."""
    missing = np.isnan(scores)
    outside = ~missing & ((scores < 0) | (scores > 1))
    usable = scores[~missing & ~outside]
    return ScoreFacts(
        rows=len(scores),
        not_a_number=int(missing.sum()),
        outside=int(outside.sum()),
        spread=float(usable.max() - usable.min()) if len(usable) else 0.0,
    )


def score_shift(reference: Vector, candidate: Vector) -> float:
    """How far, on average, scores must be moved to turn the one distribution into the other, in probability.

    The Wasserstein distance of order 1 (Villani 2003, 2.2). Unlike an index over bins it does not mind that the scores
    of trees sit in few places.
    """
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(reference, candidate))


def permutation_importance(
    answer: Callable[[Matrix], Vector], holdout: Holdout, *, seed: int, repeats: int = 2, max_rows: int = 4_000
) -> dict[str, float]:
    """Share of each feature in the log loss that shuffling it costs (Breiman 2001); a gain counts as 0.

    `answer` gives the score of each row. All shares are 1 / features when no feature matters. Measured on at most
    `max_rows` seeded rows.
    """
    rng = np.random.default_rng(seed)
    features, labels = holdout.features, holdout.labels
    if len(labels) > max_rows:
        chosen = np.sort(rng.choice(len(labels), max_rows, replace=False))
        features, labels = features[chosen], labels[chosen]
    base = log_loss(labels, answer(features))
    cost = np.zeros(features.shape[1])
    for _ in range(repeats):
        for column in range(features.shape[1]):
            shuffled = features.copy()
            shuffled[:, column] = rng.permutation(shuffled[:, column])
            cost[column] += log_loss(labels, answer(shuffled)) - base
    cost = np.maximum(cost, 0)
    share = cost / cost.sum() if cost.sum() > 0 else np.full(len(cost), 1 / len(cost))
    return {name: float(value) for name, value in zip(holdout.feature_names, share, strict=True)}


def reference_profile(
    holdout: Holdout,
    scores: Vector,
    *,
    model: ModelName,
    version: ModelVersion,
    window: tuple[datetime, datetime],
    importance: Mapping[str, float],
    categories: Mapping[str, Sequence[float]] | None = None,
    bins: int = REFERENCE_BINS,
) -> ReferenceProfile:
    """How features and scores looked on the holdout `[window[0], window[1])`; edges are quantiles of these rows.

    `categories` are the values of the features that are places in a list of names.
    """
    declared = categories or {}
    _, entities = np.unique(np.asarray(holdout.entities), return_inverse=True)
    columns = {
        name: profile_reference(holdout.features[:, column], bins, declared.get(name, ()), entities=entities)
        for column, name in enumerate(holdout.feature_names)
    }
    scored = profile_reference(scores, bins, entities=entities)
    return ReferenceProfile(
        model=model,
        version=version,
        window_start=window[0],
        window_end=window[1],
        rows=len(holdout.labels),
        features={name: column.histogram for name, column in columns.items()},
        scores=scored.histogram,
        mean_score=float(scores.mean()),
        positive_rate=float(holdout.labels.mean()),
        log_loss=log_loss(holdout.labels, scores),
        importance=dict(importance),
        details={name: column.details for name, column in columns.items() if column.details},
        score_details=scored.details,
        outcomes=build_calibration(holdout.labels, scores, holdout.entities, scored.histogram.edges),
    )


def metric_rows(
    candidate: ModelMetrics, production: ModelMetrics | None, baseline: ModelMetrics
) -> list[dict[str, str | float]]:
    """One row per set of scores, for tables."""
    named = (("candidate", candidate), ("production", production), ("baseline", baseline))
    return [{"scores": name, **metrics.model_dump()} for name, metrics in named if metrics is not None]


def _usable(scores: Vector) -> Vector:
    return np.where(np.isfinite(scores) & (scores >= 0) & (scores <= 1), scores, 0.5)
