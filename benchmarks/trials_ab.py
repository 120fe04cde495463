"""A/B tests on simulated entities: errors however often one looks, power at the number asked for, and the split."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from boucle.contracts.rollout import Scores
from boucle.contracts.trials import AbCounts, Outcome, SideCounts
from boucle.contracts.verdict import Verdict
from boucle.policy.ab import AbPolicy, Better, ab_gates, ab_outcome, samples_needed, srm

Json = dict[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]
LATER = 7.0
"""Days: after the least time of a trial, before the most."""
ENTITIES = 250
LOSS = AbPolicy(metric="loss", unit="nats", better=Better.LOWER, min_effect=0.025)
REWARD = AbPolicy(metric="reward", unit="share", better=Better.HIGHER, min_effect=0.01)
LOSS_MEAN, REWARD_MEAN = 0.25, 0.02


@dataclass(frozen=True, kw_only=True)
class Values:
    """One value for each entity, in order of arrival, and its side."""

    value: Floats
    challenger: np.ndarray[Any, np.dtype[np.bool_]]

    def looks(self) -> list[AbCounts]:
        """What is known after each tick."""
        sides = [self._sums(self.challenger), self._sums(~self.challenger)]
        return [AbCounts(challenger=one, production=other) for one, other in zip(*sides, strict=True)]

    def _sums(self, mine: np.ndarray[Any, np.dtype[np.bool_]]) -> list[SideCounts]:
        ends = slice(ENTITIES - 1, None, ENTITIES)
        n, total, squares = (
            np.cumsum(np.where(mine, part, 0.0))[ends] for part in (np.ones_like(self.value), self.value, self.value**2)
        )
        mean = total / np.maximum(n, 1)
        variance = np.maximum(squares / np.maximum(n, 1) - mean**2, 0)
        return [
            SideCounts(assigned=int(a), scores=Scores(n=int(a), mean=float(m), variance=float(v)))
            for a, m, v in zip(n, mean, variance, strict=True)
        ]


def skewed_losses(rng: np.random.Generator, n: int, effect: float) -> Values:
    """Exponential losses; the challenger's mean is lower by the effect."""
    challenger = rng.random(n) < LOSS.weight / 100
    return Values(value=rng.exponential(LOSS_MEAN - effect * challenger), challenger=challenger)


def rare_rewards(rng: np.random.Generator, n: int, effect: float) -> Values:
    """Rewards of 2 per cent; the challenger has more by the effect."""
    challenger = rng.random(n) < REWARD.weight / 100
    value = (rng.random(n) < REWARD_MEAN + effect * challenger).astype(np.float64)
    return Values(value=value, challenger=challenger)


def repeated_losses(rng: np.random.Generator, n: int, *, singly: bool) -> Values:
    """Equal sides; each entity asks twenty times, with a level of its own; its requests singly, or its first one."""
    people = n // 20
    level, side = rng.exponential(LOSS_MEAN, people), rng.random(people) < LOSS.weight / 100
    who = rng.permutation(np.repeat(np.arange(people), 20)) if singly else np.arange(people)
    return Values(value=level[who] * rng.uniform(0.8, 1.2, len(who)), challenger=side[who])


@dataclass(frozen=True, kw_only=True)
class End:
    """How a test ends and after how many entities; whether at any look, also later, its interval left out zero, and
    whether the usual test of one look (|z| above 1.96) did."""

    outcome: Outcome
    entities: int
    ever_apart: bool
    ever_apart_at_one_look: bool


def ends(policy: AbPolicy, values: Values) -> End:
    """A look after each tick."""
    outcome, at, apart, naive = Outcome.CONTINUE, len(values.value), False, False
    for look, counts in enumerate(values.looks(), 1):
        result = ab_outcome(policy, ab_gates(policy, counts), days=LATER)
        if outcome is Outcome.CONTINUE and result.is_final:
            outcome, at = result.outcome, look * ENTITIES
        apart |= result.gates[-1].verdict is not Verdict.INCONCLUSIVE
        one, other = counts.challenger.scores, counts.production.scores
        if min(one.n, other.n) >= policy.min_samples:
            squared = one.variance / one.n + other.variance / other.n
            naive |= squared > 0 and abs(one.mean - other.mean) > 1.96 * math.sqrt(squared)
    return End(outcome=outcome, entities=at, ever_apart=apart, ever_apart_at_one_look=naive)


def ab_figures(quick: bool) -> Json:  # noqa: FBT001 - as all figures are asked for
    """Errors and power of the A/B policy, and of its split."""
    times = 40 if quick else 1_000
    loss_deviations = (LOSS_MEAN, LOSS_MEAN - LOSS.min_effect)
    better = REWARD_MEAN + REWARD.min_effect
    reward_deviations = (math.sqrt(REWARD_MEAN * (1 - REWARD_MEAN)), math.sqrt(better * (1 - better)))
    return {
        "simulations": times,
        "alpha": LOSS.alpha,
        "power_asked": LOSS.power,
        "tests": [
            {"metric": "skewed losses", **errors(LOSS, loss_deviations, skewed_losses, times)},
            {"metric": "rare rewards", **errors(REWARD, reward_deviations, rare_rewards, times)},
        ],
        "told_apart_with_repeated_requests": {
            how: rate(
                ends(LOSS, repeated_losses(np.random.default_rng(seed), 40_000, singly=singly)).ever_apart
                for seed in range(times)
            )
            for how, singly in (("one value an entity", False), ("every request singly", True))
        },
        "split": split_figures(times * 4),
    }


def errors(
    policy: AbPolicy,
    deviations: tuple[float, float],
    draw: Callable[[np.random.Generator, int, float], Values],
    times: int,
) -> Json:
    """How often equal sides are told apart, and a challenger better by the minimum effect is found.

    `deviations` are of production and of this challenger.
    """
    needed = samples_needed(policy, deviation=deviations[0], challenger_deviation=deviations[1])
    n = math.ceil(needed / ENTITIES) * ENTITIES
    equal = [ends(policy, draw(np.random.default_rng(seed), 3 * n, 0.0)) for seed in range(times)]
    better = [ends(policy, draw(np.random.default_rng(seed), n, policy.min_effect)) for seed in range(times)]
    return {
        "needed": needed,
        "false_positives": rate(one.ever_apart for one in equal),
        "false_positives_of_one_look_tests": rate(one.ever_apart_at_one_look for one in equal),
        "equal_ended": rate(one.outcome is Outcome.NO_DIFFERENCE for one in equal),
        "power": rate(one.outcome is Outcome.WON for one in better),
        "median_entities_to_win": float(np.median([one.entities for one in better if one.outcome is Outcome.WON])),
    }


def rate(found: Iterable[bool]) -> float:
    """How often it was so."""
    return float(np.mean([bool(one) for one in found]))


def split_figures(times: int) -> Json:
    """How often a right split is called wrong, at looks of 250 entities up to 50,000, and when 48 to 52 is found."""
    looks = 200
    alarms = {"0.001": 0, "0.05": 0}
    rng = np.random.default_rng(3)
    for walk in rng.binomial(ENTITIES, 0.5, (times, looks)).cumsum(axis=1):
        p = [srm(LOSS, _assigned(int(hits), look)).measured for look, hits in enumerate(walk, 1)]
        least = min(one for one in p if one is not None)
        alarms = {alpha: count + (least < float(alpha)) for alpha, count in alarms.items()}
    found = []
    for walk in rng.binomial(ENTITIES, 0.48, (50, looks)).cumsum(axis=1):
        verdicts = (srm(LOSS, _assigned(int(hits), look)).verdict == "failed" for look, hits in enumerate(walk, 1))
        found.append(next((look * ENTITIES for look, is_wrong in enumerate(verdicts, 1) if is_wrong), None))
    seen = [one for one in found if one is not None]
    return {
        "simulations": times,
        "false_alarms": {alpha: count / times for alpha, count in alarms.items()},
        "found_48_to_52": len(seen) / len(found),
        "median_entities_to_find_48_to_52": float(np.median(seen)),
    }


def _assigned(challenger: int, looks: int) -> AbCounts:
    return AbCounts(
        challenger=SideCounts(assigned=challenger), production=SideCounts(assigned=looks * ENTITIES - challenger)
    )
