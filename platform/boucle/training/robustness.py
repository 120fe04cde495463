"""What a model answers where values are missing or extreme: such rows come, and an answer must be a probability."""

import numpy as np

from boucle.contracts.bundle import FeatureSpec
from boucle.contracts.facts import RobustnessFacts
from boucle.stats.metrics import Vector, log_loss
from boucle.training.fit import Matrix
from boucle.training.parity import Answer

FAR = 1e9
"""A value that no feature has, in either direction."""


def robustness(
    answer: Answer,
    features: Matrix,
    labels: Vector,
    specs: tuple[FeatureSpec, ...],
    *,
    baseline_rate: float,
    seed: int,
    max_rows: int = 2_000,
) -> RobustnessFacts:
    """Ask the model about at most `max_rows` seeded rows, with one feature of all of them changed at a time.

    Changed to: missing, the ends of its declared range (of its values where it has none), and `FAR` beyond. The worst
    missing one is among the features that may be missing, or all where none may. `baseline_rate` is the score of the
    base rate.
    """
    chosen = np.random.default_rng(seed).permutation(len(features))[:max_rows]
    rows, outcome = features[chosen], labels[chosen]
    baseline_log_loss = log_loss(outcome, np.full(len(outcome), baseline_rate))
    may_miss = [spec.name for spec in specs if spec.nullable] or [spec.name for spec in specs]
    useless, ratios = 0, {}
    for column, spec in enumerate(specs):
        for value in (np.nan, *_extremes(spec, features[:, column])):
            changed = rows.copy()
            changed[:, column] = value
            scores = answer(changed)
            bad = ~(np.isfinite(scores) & (scores >= 0) & (scores <= 1))
            useless += int(bad.sum())
            if np.isnan(value) and spec.name in may_miss:
                ratios[spec.name] = log_loss(outcome, np.where(bad, 0.5, scores)) / baseline_log_loss
    worst = max(ratios, key=lambda name: ratios[name])
    return RobustnessFacts(
        rows=len(rows) * 5 * len(specs),
        useless=useless,
        worst_missing=worst,
        worst_missing_ratio=ratios[worst],
        missing_rows=len(rows),
    )


def _extremes(spec: FeatureSpec, values: Vector) -> tuple[float, float, float, float]:
    present = values[np.isfinite(values)]
    low, high = (float(present.min()), float(present.max())) if len(present) else (0.0, 0.0)
    return (
        low if spec.minimum is None else spec.minimum,
        high if spec.maximum is None else spec.maximum,
        -FAR,
        FAR,
    )
