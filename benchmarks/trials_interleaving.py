"""Interleaving against A/B tests on the same simulated clicks, with a challenger that is known to rank better."""

import math
from typing import Any

import numpy as np

from boucle.contracts.rollout import Scores
from boucle.contracts.trials import AbCounts, Outcome, Preference, Preferences, SideCounts, Team
from boucle.policy.ab import AbPolicy, Better, ab_gates, ab_outcome
from boucle.policy.interleaving import (
    InterleavingPolicy,
    decided_requests_needed,
    first_team,
    first_teams,
    interleaving_gates,
    interleaving_outcome,
    preference,
    team_draft,
)

Json = dict[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
POLICY = InterleavingPolicy()
LATER, ITEMS, LOOK = 7.0, 10, 100
PRODUCTION_NOISE, CHALLENGER_NOISE = 1.0, 0.7
"""Standard deviation of what a ranker adds to the logit of an item's attraction; that of attractions is 1."""
BETWEEN_REQUESTS = 1.5
"""Standard deviation of the mean logit of a request: some users find a lot of what they want, others nothing."""
METRICS = ("any click", "clicks", "reciprocal rank of the first click")
MOST = 400_000
EXAMINED = 1 / np.arange(1, ITEMS + 1)


class Users:
    """Requests one after the other: what attracts, both rankings, and the luck of each place and item."""

    def __init__(self, seed: int, *, challenger_noise: float) -> None:
        self.rng, self.noise = np.random.default_rng(seed), challenger_noise

    def ask(self, n: int) -> tuple[Floats, Whole, Whole, Floats]:
        """Attraction of each item (shape [n, ITEMS]), production's ranking, the challenger's, and luck: users click the
        item at place k when its luck is below attraction / k."""
        logit = self.rng.normal(self.rng.normal(-1.5, BETWEEN_REQUESTS, (n, 1)), 1.0, (n, ITEMS))
        rankings = [
            np.argsort(-(logit + self.rng.normal(0, noise, logit.shape)), axis=1)
            for noise in (PRODUCTION_NOISE, self.noise)
        ]
        return 1 / (1 + np.exp(-logit)), rankings[0], rankings[1], self.rng.random((n, ITEMS))


def outcomes(attraction: Floats, ranking: Whole, luck: Floats) -> Floats:
    """What users do with whole lists of one ranker, by metric, shape [metrics, n]."""
    clicked = np.take_along_axis(luck, ranking, 1) < np.take_along_axis(attraction, ranking, 1) * EXAMINED
    return np.array([clicked.any(axis=1), clicked.sum(axis=1), (clicked * EXAMINED).max(axis=1)], dtype=np.float64)


def by_interleaving(seed: int, *, one_draw: bool = False, noise: float = CHALLENGER_NOISE, most: int = MOST) -> Json:
    """Until a decision: the outcome, and the requests it took."""
    users, won = Users(seed, challenger_noise=noise), dict.fromkeys(Preference, 0)
    for asked in range(0, most, LOOK):
        for place, (attraction, a, b, luck) in enumerate(zip(*users.ask(LOOK), strict=True)):
            name = f"{seed}/{asked + place}"
            first = first_team("benchmark", name) if one_draw else first_teams("benchmark", name)
            drafted = team_draft(first, a.tolist(), b.tolist())
            items = [item for item, _ in drafted]
            won[preference(drafted, np.array(items)[luck[items] < attraction[items] * EXAMINED].tolist())] += 1
        counts = Preferences(challenger=won[_TEAM_B], production=won[Preference.A], ties=won[Preference.TIE])
        result = interleaving_outcome(POLICY, interleaving_gates(POLICY, counts), days=LATER)
        if result.outcome in {Outcome.WON, Outcome.LOST}:
            return {"outcome": result.outcome, "requests": asked + LOOK, "ties": won[Preference.TIE] / (asked + LOOK)}
    return {"outcome": Outcome.CONTINUE, "requests": most, "ties": won[Preference.TIE] / most}


_TEAM_B = Preference(Team.B.value)


def true_effects(requests: int) -> Floats:
    """How much more the challenger earns, by metric."""
    attraction, a, b, luck = Users(10**6, challenger_noise=CHALLENGER_NOISE).ask(requests)
    return np.asarray((outcomes(attraction, b, luck) - outcomes(attraction, a, luck)).mean(axis=1))


def by_ab(seed: int, effects: Floats) -> list[int]:
    """Requests until each metric's test is won (or `MOST`); each request is of another entity."""
    users, side = Users(seed, challenger_noise=CHALLENGER_NOISE), np.random.default_rng(seed + 10**6)
    policies = [
        AbPolicy(metric="reward", unit="a request", better=Better.HIGHER, min_effect=float(effect))
        for effect in effects
    ]
    sums, found = np.zeros((len(METRICS), 2, 3)), [MOST] * len(METRICS)
    step = 10 * LOOK
    for asked in range(step, MOST + 1, step):
        attraction, a, b, luck = users.ask(step)
        challenger = side.random(step) < 0.5
        values = outcomes(attraction, np.where(challenger[:, None], b, a), luck)
        for place, mine in enumerate((challenger, ~challenger)):
            part = values[:, mine]
            sums[:, place] += np.stack([np.full(len(METRICS), mine.sum()), part.sum(axis=1), (part**2).sum(axis=1)], 1)
        for metric, policy in enumerate(policies):
            if found[metric] == MOST and _is_won(policy, sums[metric]):
                found[metric] = asked
        if max(found) < MOST:
            break
    return found


def _is_won(policy: AbPolicy, sums: Floats) -> bool:
    one, other = (
        SideCounts(assigned=int(n), scores=Scores(n=int(n), mean=total / n, variance=squares / n - (total / n) ** 2))
        for n, total, squares in sums
    )
    return ab_outcome(
        policy, ab_gates(policy, AbCounts(challenger=one, production=other)), days=LATER
    ).asks_for_promotion


def interleaving_figures(quick: bool) -> Json:  # noqa: FBT001 - as all figures are asked for
    """Requests until a decision, by interleaving and by A/B; and how often equal rankers are told apart."""
    times, equal = (10, 10) if quick else (200, 200)
    most = 2_000 if quick else 5_000
    effects = true_effects(200_000)
    drafts = [by_interleaving(seed) for seed in range(times)]
    ab = np.array([by_ab(seed, effects) for seed in range(times)])
    same = [by_interleaving(seed, noise=PRODUCTION_NOISE, most=most) for seed in range(equal)]
    median = float(np.median([one["requests"] for one in drafts]))
    by_metric = dict(zip(METRICS, np.median(ab, axis=0).tolist(), strict=True))
    return {
        "simulations": times,
        "decided_requests_needed_at_least_preference": decided_requests_needed(POLICY),
        "interleaving_won": float(np.mean([one["outcome"] is Outcome.WON for one in drafts])),
        "interleaving_requests": median,
        "interleaving_requests_with_one_draw_a_list": float(
            np.median([by_interleaving(seed, one_draw=True)["requests"] for seed in range(times)])
        ),
        "ties": float(np.mean([one["ties"] for one in drafts])),
        "ab_true_effect": dict(zip(METRICS, effects.tolist(), strict=True)),
        "ab_requests": by_metric,
        "ab_won": dict(zip(METRICS, (ab < MOST).mean(axis=0).tolist(), strict=True)),
        "ratio_ab_to_interleaving": min(by_metric.values()) / median,
        "alpha": POLICY.alpha,
        "equal_simulations": equal,
        "equal_looks": math.ceil(most / LOOK),
        "equal_told_apart": float(np.mean([one["outcome"] is not Outcome.CONTINUE for one in same])),
    }
