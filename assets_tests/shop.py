"""A small shop whose truth is known: 8,000 seeded customers, four features, a fifth of one of them missing."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from assets_tests.judging import ANSWERS, ROBUST, contract
from boucle.contracts.bundle import BundleContract
from boucle.contracts.facts import LatencyFacts
from boucle.stats.metrics import Vector
from boucle.training import fit as training
from boucle.training.evaluate import Holdout, Scores, Trials, baseline_scores
from boucle_platform.defs.repurchase.estimator import build

NAMES = ("recency", "freq", "usd", "noise")
CONTRACT: BundleContract = contract(*NAMES)
LATENCY = LatencyFacts(requests=500, median_ms=0.03, p99_ms=0.1)
TRIALS = Trials(robustness=ROBUST, latency=LATENCY, api=ANSWERS)


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Rows to learn from and a holdout."""

    features: training.Matrix
    labels: Vector
    holdout: Holdout


@cache
def shop() -> Shop:
    """The shop; about a quarter of the customers buy."""
    rng = np.random.default_rng(11)
    rows = 8_000
    recency = rng.integers(0, 200, rows).astype(float)
    freq = 1.0 + rng.poisson(2, rows)
    usd = np.where(rng.random(rows) < 0.2, np.nan, np.round(rng.gamma(2, 20, rows), 2))
    features = np.column_stack([recency, freq, usd, rng.normal(size=rows)])
    logit = -1.5 - recency / 60 + 0.5 * freq + np.nan_to_num(usd, nan=10) / 60
    labels = (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
    half = rows // 2
    holdout = Holdout(
        features=features[half:],
        feature_names=NAMES,
        labels=labels[half:],
        entities=np.array([f"u{number}" for number in range(half, rows)], dtype=object),
    )
    return Shop(features=features[:half], labels=labels[:half], holdout=holdout)


@cache
def fitted(seed: int = 7, *, shuffled: bool = False) -> training.Classifier:
    """The estimator of `repurchase`, fitted on the shop; with shuffled labels it has nothing to learn."""
    labels = shop().labels
    if shuffled:
        labels = np.random.default_rng(5).permutation(labels)
    return training.fit(build, shop().features, labels, seed=seed).estimator


def scores_of(candidate: Vector, *, production: Vector | None = None) -> Scores:
    """Scores on the holdout beside the base rate; rows that were learnt from score as the estimator's do."""
    baseline = baseline_scores(shop().labels, len(shop().holdout.labels))
    learnt = training.predict(fitted(), shop().features)
    return Scores(candidate=candidate, production=production, baseline=baseline, learnt=learnt)


def answers(estimator: training.Classifier) -> Vector:
    """What an estimator says of the holdout."""
    return training.predict(estimator, shop().holdout.features)
