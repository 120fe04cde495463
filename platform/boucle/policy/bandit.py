"""How traffic follows rewards: each arm's weight is the probability that it is the best one.

Rewards in [0, 1] with a Beta posterior for each arm's mean (Thompson 1933). The weights of a plan are the posterior
probabilities of being best, which is Thompson sampling for all decisions until the next plan (Scott 2010, A modern
Bayesian look at the multi-armed bandit, section 3: randomized probability matching), above a floor that keeps every arm
measurable: the inverse of a propensity is at most 100 / floor. Rewards come late, which a randomised rule stands well
(Chapelle and Li 2011, An Empirical Evaluation of Thompson Sampling, section 4).

It stops when one arm costs at most so much against the best one in expectation, `E[max_j theta_j - theta_i]`: the mean
of what Scott 2015 (Multi-armed bandit experiments in the online service economy, section 3) calls value remaining. This
limits what a wrong choice costs, not how often one is wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from boucle.contracts.ids import ModelVersion
from boucle.contracts.trials import ArmRewards, Outcome, TrialResult
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.errors import ConfigurationError
from boucle.policy.ab import TrialLength
from boucle.stats.off_policy import snips

Floats = NDArray[np.float64]
HUNDREDTHS = 10_000
"""Weights are in whole hundredths of a per cent: so many are everything."""


class BanditPolicy(TrialLength):
    """The floor, what is believed before the first reward, and when it is enough."""

    floor: float = Field(default=5, gt=0, le=50, description="per cent of decisions that every arm keeps")
    prior_rewards: float = Field(default=1, gt=0, description="rewards and misses believed in before the first one:")
    prior_misses: float = Field(default=1, gt=0, description="1 and 1 is any mean alike")
    draws: int = Field(default=10_000, ge=100, description="of the posterior; 10,000 give weights within 1 point")
    reward_window_hours: float = Field(default=24, gt=0, description="after which no reward means zero")
    max_expected_loss: float = Field(default=0.001, gt=0, description="a decision, for choosing an arm; in reward")
    min_rewards: int = Field(default=1_000, ge=1, description="known ones of each arm, before any arm is chosen")

    @field_validator("floor")
    @classmethod
    def _floor_is_in_hundredths(cls, floor: float) -> float:
        if abs(floor * 100 - round(floor * 100)) > 1e-6:
            raise ValueError(f"the floor ({floor:g}) must be in whole hundredths of a per cent")
        return floor


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What the log knows of answered requests, one place each: the version that answered, its propensity in (0, 1],
    hours since the answer, the reward in [0, 1] and its delay in hours (both NaN where none came)."""

    version: NDArray[np.int64]
    propensity: Floats
    age_hours: Floats
    reward: Floats
    delay_hours: Floats


def settled(policy: BanditPolicy, log: Logged) -> tuple[NDArray[np.bool_], Floats]:
    """Which requests have a known reward, and the rewards of all of them (those that are not known: 0).

    Known is what has its whole window behind it; what came within the window is the reward, else zero. A reward that
    came early waits for the window as the misses of its day do: they can be seen only then, and rewards counted without
    them would look better the more of an arm's requests are new.
    """
    came = log.delay_hours <= policy.reward_window_hours
    return log.age_hours >= policy.reward_window_hours, np.where(came, log.reward, 0.0)


def arm_rewards(policy: BanditPolicy, log: Logged, versions: Sequence[ModelVersion]) -> tuple[ArmRewards, ...]:
    """The rewards of each arm from the log, each request weighted by its inverse propensity.

    While weights move, plain counts give an arm more of the hours in which it had more traffic, and compare good hours
    with bad ones. So the mean is the self-normalised one of `boucle.stats.off_policy`, worth as many plain requests as
    its effective sample size; with constant weights both are the plain counts.
    """
    known, rewards = settled(policy, log)
    found = []
    for version in versions:
        mine = log.version == version
        estimate = snips(mine[known].astype(np.float64), log.propensity[known], rewards[known])
        n, mean = (0.0, 0.0) if estimate is None else (estimate.effective_n, estimate.estimate)
        found.append(ArmRewards(version=version, answered=int(mine.sum()), rewarded=n, reward_sum=n * mean))
    return tuple(found)


def seeded(rollout: str, arms: Sequence[ArmRewards]) -> np.random.Generator:
    """A generator for the draws: the same for all who know the same of the same rollout, in any order of arms."""
    facts = b"/".join(arm.canonical() for arm in _in_order(arms))
    digest = blake2b(rollout.encode() + b"/" + facts, digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def win_probabilities(
    policy: BanditPolicy, arms: Sequence[ArmRewards], rng: np.random.Generator
) -> dict[ModelVersion, float]:
    """How probable it is that an arm has the highest mean reward, by version.

    Args:
        policy: With the prior and the number of draws.
        arms: At least one.
        rng: Of `seeded`, so that equal facts give equal plans.
    """
    best = np.bincount(_draws(policy, arms, rng).argmax(axis=1), minlength=len(arms)) / policy.draws
    return {arm.version: float(p) for arm, p in zip(_in_order(arms), best, strict=True)}


def weights(policy: BanditPolicy, arms: Sequence[ArmRewards], rng: np.random.Generator) -> dict[ModelVersion, float]:
    """The weight of each arm in per cent: its floor, and of the rest the probability that it is the best.

    In whole hundredths of a per cent that sum to 100, by largest remainders. A weight is the propensity of its arm.

    Raises:
        ConfigurationError: There is no arm, or the floors of all of them are more than everything.
    """
    least = round(policy.floor * 100)
    free = HUNDREDTHS - least * len(arms)
    if not arms or free < 0:
        raise ConfigurationError(
            f"{len(arms)} arms cannot have {policy.floor:g} per cent each; lower the floor or the number of arms."
        )
    wins = win_probabilities(policy, arms, rng)
    whole = {version: math.floor(free * p) for version, p in wins.items()}
    by_remainder = sorted(wins, key=lambda version: (whole[version] - free * wins[version], version))
    for version in by_remainder[: free - sum(whole.values())]:
        whole[version] += 1
    return {version: (least + count) * 100 / HUNDREDTHS for version, count in whole.items()}


def expected_losses(
    policy: BanditPolicy, arms: Sequence[ArmRewards], rng: np.random.Generator
) -> dict[ModelVersion, float]:
    """What choosing an arm costs in a decision against the best one, in expectation, in reward; by version."""
    draws = _draws(policy, arms, rng)
    losses = (draws.max(axis=1, keepdims=True) - draws).mean(axis=0)
    return {arm.version: float(loss) for arm, loss in zip(_in_order(arms), losses, strict=True)}


def bandit_gates(policy: BanditPolicy, arms: Sequence[ArmRewards], rng: np.random.Generator) -> tuple[Gate, ...]:
    """The expected loss of each arm, in the order of versions; inconclusive before every arm has its rewards."""
    losses = expected_losses(policy, arms, rng)
    is_early = any(arm.rewarded < policy.min_rewards for arm in arms)
    few = f"An arm has fewer than {policy.min_rewards} known rewards: none is chosen yet." if is_early else ""
    verdicts = {
        version: Verdict.PASSED if loss <= policy.max_expected_loss else Verdict.FAILED
        for version, loss in losses.items()
    }
    return tuple(
        Gate(
            name=f"expected_loss_of_{arm.version}",
            verdict=Verdict.INCONCLUSIVE if is_early else verdicts[arm.version],
            measured=losses[arm.version] if arm.rewarded else None,
            bound=Bound.AT_MOST,
            limit=policy.max_expected_loss,
            unit="reward a decision",
            sample_size=math.floor(arm.rewarded),
            detail=few,
        )
        for arm in _in_order(arms)
    )


def bandit_outcome(
    policy: BanditPolicy,
    arms: Sequence[ArmRewards],
    rng: np.random.Generator,
    *,
    production: ModelVersion,
    days: float,
) -> TrialResult:
    """Whether an arm may be chosen: the one with the least expected loss, once that is below its limit.

    Where production itself may be chosen nothing changes: the trial ends as lost when no other may, else without a
    difference. After `max_days` production stays.

    Args:
        policy: With the limits.
        arms: Each with its known rewards.
        rng: Of `seeded`.
        production: The version in production, one of the arms.
        days: Since the bandit began.
    """
    gates = bandit_gates(policy, arms, rng)
    by_version = {arm.version: gate for arm, gate in zip(_in_order(arms), gates, strict=True)}
    good = {version: gate.measured or 0.0 for version, gate in by_version.items() if gate.verdict is Verdict.PASSED}
    outcome, reason, winner = Outcome.CONTINUE, "No arm can be chosen yet", None
    if good and days >= policy.min_days:
        winner = production if production in good else min(good, key=lambda version: good[version])
        outcome, reason = _chosen(winner, production, good)
    elif days >= policy.max_days:
        known = min((arm.rewarded for arm in arms), default=0)
        outcome = Outcome.NO_DIFFERENCE if known >= policy.min_rewards else Outcome.INVALID
        reason = f"No arm could be chosen in {days:.3g} days, so production stays"
    figures = "; ".join(gate.figures() for gate in gates)
    return TrialResult(outcome=outcome, reason=f"{reason}; {figures}.", winner=winner, gates=gates)


def _chosen(winner: ModelVersion, production: ModelVersion, good: Mapping[ModelVersion, float]) -> tuple[Outcome, str]:
    if winner != production:
        return Outcome.WON, f"Version {winner} is the best arm, within the expected loss that is allowed"
    if len(good) == 1:
        return Outcome.LOST, f"Version {production}, in production, is the best arm"
    return Outcome.NO_DIFFERENCE, f"Version {production}, in production, is as good as the best arm"


def _draws(policy: BanditPolicy, arms: Sequence[ArmRewards], rng: np.random.Generator) -> Floats:
    """Draws of the mean reward of each arm, shape (draws, arms), arms in the order of their versions.

    A reward between 0 and 1 counts as that part of a hit, whose variance is at least that of the reward itself.
    """
    ordered = _in_order(arms)
    hits = np.array([policy.prior_rewards + arm.reward_sum for arm in ordered])
    misses = np.array([policy.prior_misses + max(0.0, arm.rewarded - arm.reward_sum) for arm in ordered])
    return rng.beta(hits, misses, size=(policy.draws, len(ordered)))


def _in_order(arms: Sequence[ArmRewards]) -> list[ArmRewards]:
    return sorted(arms, key=lambda arm: arm.version)
