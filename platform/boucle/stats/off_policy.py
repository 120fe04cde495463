"""What another policy would have earned, from the log of the one that decided.

Each decision was drawn with a known propensity, and got its reward. The decisions that the target policy would have
taken too stand for those that were not drawn, weighted by `w = target / propensity`:

IPS is the mean of `w * reward` over all decisions (Horvitz and Thompson 1952). It has no bias, whatever the
propensities were, also where they followed earlier rewards: then the terms are a martingale around the truth, and their
sum of squares is its variance. SNIPS divides by the mean of `w` (Swaminathan and Joachims 2015, The Self-Normalized
Estimator for Counterfactual Learning, section 5; Hajek's estimator): a small bias, never outside the rewards that were
seen, and most often the narrower of the two.

Intervals are normal. With propensities that fall towards zero the normal law fails (Hadad, Hirshberg, Zhan, Wager and
Athey 2021, Confidence intervals for policy evaluation in adaptive experiments, PNAS 118): keep a floor under them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
MOST_PROPENSITY = 1 + 1e-9


@dataclass(frozen=True, kw_only=True)
class OffPolicyEstimate:
    """A mean reward with its normal interval; no interval (None) where nothing varies.

    `matched` decisions have a weight above 0; `effective_n` says how many evenly weighted ones they are worth (Kish
    1965: the squared sum of the weights over the sum of their squares); `n` is all decisions.
    """

    estimate: float
    standard_error: float
    low: float | None
    high: float | None
    n: int
    matched: int
    effective_n: float


@dataclass(frozen=True, kw_only=True)
class ArmEstimates:
    """What an arm would have earned alone, by both estimators."""

    ips: OffPolicyEstimate
    snips: OffPolicyEstimate


def ips(
    target: Floats, propensity: Floats, reward: Floats, *, level: float = 0.95, entities: ArrayLike | None = None
) -> OffPolicyEstimate | None:
    """The mean reward of a target policy by inverse propensities; None where it would have taken no logged decision.

    Args:
        target: Probability with which the target policy takes each decision that was taken; 1 or 0 for a fixed arm.
        propensity: With which each was taken, in (0, 1].
        reward: Of each. Leave decisions out whose reward is not known yet: they are not zeros.
        level: Coverage of the interval, in (0, 1).
        entities: Whom each decision is about, where those of one entity are not independent.

    Raises:
        ValueError: Lengths differ, or a value is impossible.
    """
    w = _weights(target, propensity, reward)
    if not w.any():
        return None
    mean = float(np.mean(w * reward))
    return _estimate(w, mean, (w * reward - mean) / len(w), level=level, entities=entities)


def snips(
    target: Floats, propensity: Floats, reward: Floats, *, level: float = 0.95, entities: ArrayLike | None = None
) -> OffPolicyEstimate | None:
    """As `ips`, divided by the mean weight: never outside the rewards that were seen. Its error by the delta method.

    >>> found = snips(np.array([1.0, 0.0, 1.0]), np.array([0.5, 0.5, 0.25]), np.array([1.0, 1.0, 0.0]))
    >>> round(found.estimate, 4) if found else None
    0.3333
    """
    w = _weights(target, propensity, reward)
    if not w.any():
        return None
    mean = float(np.average(reward, weights=w))
    return _estimate(w, mean, w * (reward - mean) / w.sum(), level=level, entities=entities)


def every_arm(
    arms: Sequence[int],
    taken: NDArray[np.int64],
    propensity: Floats,
    reward: Floats,
    *,
    level: float = 0.95,
    entities: ArrayLike | None = None,
) -> Mapping[int, ArmEstimates | None]:
    """Both estimates for each arm as if it had answered alone; None for an arm that was never taken.

    Args:
        arms: To estimate.
        taken: The arm of each decision.
        propensity: Of the arm taken, in (0, 1].
        reward: Of each decision.
        level: Coverage of each interval, in (0, 1).
        entities: Whom each decision is about, where those of one entity are not independent.
    """
    found: dict[int, ArmEstimates | None] = {}
    for arm in arms:
        target = (taken == arm).astype(np.float64)
        one, other = (of(target, propensity, reward, level=level, entities=entities) for of in (ips, snips))
        found[arm] = None if one is None or other is None else ArmEstimates(ips=one, snips=other)
    return found


def _weights(target: Floats, propensity: Floats, reward: Floats) -> Floats:
    if not len(target) == len(propensity) == len(reward):
        raise ValueError(
            f"There are {len(target)} decisions, {len(propensity)} propensities and {len(reward)} rewards; "
            "each decision has one of each."
        )
    wrong = ~((propensity > 0) & (propensity <= MOST_PROPENSITY))
    if wrong.any():
        raise ValueError(
            f"A decision that was taken cannot have a propensity of {propensity[wrong][0]:g}, it must be in (0, 1]; "
            "look where it was logged."
        )
    if not np.isfinite(reward).all() or not ((target >= 0) & (target <= 1)).all():
        raise ValueError("Rewards must be finite and target probabilities in [0, 1]; leave unknown rewards out.")
    return np.asarray(target / propensity, dtype=np.float64)


def _estimate(w: Floats, mean: float, parts: Floats, *, level: float, entities: ArrayLike | None) -> OffPolicyEstimate:
    """With the error of a sum of `parts`, which are independent, or whose sums by entity are."""
    if entities is not None:
        _, place = np.unique(np.asarray(entities), return_inverse=True)
        parts = np.asarray(np.bincount(place, weights=parts), dtype=np.float64)
    error = float(np.sqrt(np.sum(parts**2)))
    reach = NormalDist().inv_cdf((1 + level) / 2) * error
    relative = w / w.max()
    return OffPolicyEstimate(
        estimate=mean,
        standard_error=error,
        low=mean - reach if error > 0 else None,
        high=mean + reach if error > 0 else None,
        n=len(w),
        matched=int(np.count_nonzero(w)),
        effective_n=float(relative.sum() ** 2 / np.sum(relative**2)),
    )
