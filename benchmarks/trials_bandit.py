"""Bandits on simulated requests: regret, what the log says of every arm, and how they end."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from boucle.contracts.ids import ModelVersion
from boucle.contracts.trials import ArmRewards, Outcome
from boucle.policy.bandit import BanditPolicy, Logged, arm_rewards, bandit_outcome, seeded, weights
from boucle.stats.off_policy import OffPolicyEstimate, every_arm

Json = dict[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Whole = np.ndarray[Any, np.dtype[np.int64]]
LATER = 7.0
MEANS = np.array([0.10, 0.08, 0.12, 0.15])
"""The first arm is production."""
VERSIONS = [ModelVersion(arm + 1) for arm in range(len(MEANS))]
BEST = VERSIONS[int(MEANS.argmax())]
POLICY = BanditPolicy(draws=1_000, reward_window_hours=3, min_rewards=100, max_expected_loss=0.005)
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class World:
    """Simulated traffic: how long, how much, and what differs from plain, constant rewards."""

    hours: int
    requests: int
    """An hour."""
    falling: bool = False
    balanced: bool = True
    returning: int = 0
    """So many entities ask all the requests; 0: each asks once."""
    drawn_anew: bool = True

    def level(self, hour: int) -> float:
        """What the rewards of an hour are multiplied with: constant, or falling to a third."""
        return 1.5 - hour / self.hours if self.falling else 1.0


@dataclass(kw_only=True)
class Requests:
    """The log of one run as it grows."""

    n: int
    rows: dict[str, Floats]
    entities: Whole

    def log(self, hour: float) -> Logged:
        """What is known at this hour."""
        rows = {name: column[: self.n] for name, column in self.rows.items()}
        age = hour - rows.pop("hour")
        return Logged(version=rows.pop("version").astype(np.int64), age_hours=age, **rows)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one bandit went: weights by hour (shape [hours, arms], ratio), its log, and how the stop rule ended it."""

    weights: Floats
    log: Logged
    entities: Whole
    outcome: Outcome
    winner: ModelVersion | None
    stopped_after: int


def course(world: World, seed: int) -> Course:
    """One run; it goes on after the stop rule has spoken, so that all runs are of one length."""
    rng, total = np.random.default_rng(seed), world.hours * world.requests
    names = ("version", "propensity", "hour", "reward", "delay_hours")
    seen = Requests(n=0, rows={name: np.zeros(total) for name in names}, entities=np.zeros(total, dtype=np.int64))
    drawn, planned = Drawn(world, rng), []
    end: tuple[Outcome, ModelVersion | None, int] = (Outcome.CONTINUE, None, world.hours)
    for hour in range(world.hours):
        log = seen.log(hour)
        arms = arm_rewards(POLICY, log, VERSIONS) if world.balanced else plain_counts(log)
        if end[0] is Outcome.CONTINUE:
            result = bandit_outcome(POLICY, arms, seeded(f"stop {seed}", arms), production=VERSIONS[0], days=LATER)
            end = (result.outcome, result.winner, hour) if result.is_final else end
        planned.append(np.array(list(weights(POLICY, arms, seeded(str(seed), arms)).values())) / 100)
        drawn.add(seen, hour, planned[-1])
    outcome, winner, stopped_after = end
    return Course(
        weights=np.array(planned),
        log=seen.log(world.hours + POLICY.reward_window_hours),
        entities=seen.entities,
        outcome=outcome,
        winner=winner,
        stopped_after=stopped_after,
    )


class Drawn:
    """Draws the requests of an hour: who asks, who answers (by races, as serving does), and what comes of it."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.world, self.rng = world, rng
        levels = rng.uniform(0, 2, world.returning) if world.returning else np.ones(1)
        self.levels = levels / levels.mean()
        self.races = rng.exponential(size=(len(levels), len(MEANS)))

    def add(self, seen: Requests, hour: int, share: Floats) -> None:
        """One hour at these weights."""
        n, rng = self.world.requests, self.rng
        who = rng.integers(0, len(self.levels), n)
        if not self.world.returning:
            arm = (rng.exponential(size=(n, len(MEANS))) / share).argmin(axis=1)
        else:
            self.races = rng.exponential(size=self.races.shape) if self.world.drawn_anew else self.races
            arm = (self.races / share).argmin(axis=1)[who]
        came = rng.random(n) < MEANS[arm] * self.world.level(hour) * self.levels[who]
        delay = np.where(came, rng.uniform(0, POLICY.reward_window_hours, n), np.nan)
        new = {"version": arm + 1.0, "propensity": share[arm], "hour": np.full(n, float(hour))}
        new |= {"reward": np.where(came, 1.0, np.nan), "delay_hours": delay}
        rows = slice(seen.n, seen.n + n)
        for name, column in new.items():
            seen.rows[name][rows] = column
        seen.entities[rows] = who
        seen.n += n


def plain_counts(log: Logged) -> tuple[ArmRewards, ...]:
    """The known rewards of each arm as they are, not balanced by propensities."""
    known = log.age_hours >= POLICY.reward_window_hours
    found = []
    for version in VERSIONS:
        mine = log.version == version
        total = float(np.nansum(log.reward[mine & known]))
        n = int((mine & known).sum())
        found.append(ArmRewards(version=version, answered=int(mine.sum()), rewarded=n, reward_sum=total))
    return tuple(found)


def bandit_figures(quick: bool) -> Json:  # noqa: FBT001 - as all figures are asked for
    """Regret, off-policy coverage and stop rule; then the same with falling rewards and with entities that return."""
    times = 50 if quick else 400
    world = World(hours=30, requests=250) if quick else World(hours=100, requests=400)
    runs = [course(world, seed) for seed in range(times)]
    winners = [run.winner for run in runs if run.outcome is Outcome.WON]
    return {
        "simulations": times,
        "hours": world.hours,
        "requests": world.hours * world.requests,
        "floor": POLICY.floor,
        "regret": regret(world, runs),
        "off_policy": coverage(runs),
        "stop": {
            "stopped": float(np.mean([run.outcome is not Outcome.CONTINUE for run in runs])),
            "best_won": winners.count(BEST) / times,
            "another_won": (len(winners) - winners.count(BEST)) / times,
            "mean_loss_of_winner": float(
                np.mean([MEANS.max() - MEANS[run.winner - 1] for run in runs if run.winner is not None])
            ),
            "max_expected_loss": POLICY.max_expected_loss,
            "median_hours": float(np.median([run.stopped_after for run in runs])),
        },
        "falling": falling(world, times // 2),
        "returning": returning(world, times // 2),
    }


def regret(world: World, runs: list[Course]) -> Json:
    """What the best fixed arm would have earned more in expectation: by hour, and at the end, in rewards."""
    lost = np.array([(run.weights @ (MEANS.max() - MEANS)) * world.requests for run in runs]).cumsum(axis=1)
    uniform = float((MEANS.max() - MEANS).mean()) * world.requests * np.arange(1, world.hours + 1)
    mean, error = lost.mean(axis=0), lost.std(axis=0, ddof=1) / np.sqrt(len(runs))
    best = MEANS.max() * world.requests * world.hours
    return {
        "curve": {
            "hour": list(range(1, world.hours + 1)),
            "bandit": mean.tolist(),
            "low": (mean - 1.96 * error).tolist(),
            "high": (mean + 1.96 * error).tolist(),
            "p5": np.quantile(lost, 0.05, axis=0).tolist(),
            "p95": np.quantile(lost, 0.95, axis=0).tolist(),
            "uniform": uniform.tolist(),
            "best_fixed_arm": [0.0] * world.hours,
        },
        "bandit": float(mean[-1]),
        "interval": [float((mean - 1.96 * error)[-1]), float((mean + 1.96 * error)[-1])],
        "uniform": float(uniform[-1]),
        "ratio_to_uniform": float(mean[-1] / uniform[-1]),
        "reward_over_best_fixed_arm": float(1 - mean[-1] / best),
        "last_weight_of_best": float(np.mean([run.weights[-1, MEANS.argmax()] for run in runs])),
    }


def coverage(runs: list[Course], *, by_entity: bool = False) -> Json:
    """How often the intervals of each arm hold its true mean, how wide and how biased they are; and of plain means."""
    found: dict[str, list[list[OffPolicyEstimate]]] = {"ips": [], "snips": []}
    plain = []
    for run in runs:
        reward = np.nan_to_num(run.log.reward)
        by_arm = every_arm(
            VERSIONS,
            run.log.version,
            run.log.propensity,
            reward,
            level=LEVEL,
            entities=run.entities if by_entity else None,
        )
        each = [one for one in by_arm.values() if one is not None]
        found["ips"].append([one.ips for one in each])
        found["snips"].append([one.snips for one in each])
        plain.append([_mean(reward[run.log.version == version]) for version in VERSIONS])
    estimates = {name: np.array([[_ends(one) for one in run] for run in of]) for name, of in found.items()}
    return {name: _held(values) for name, values in {**estimates, "plain mean": np.array(plain)}.items()}


def falling(world: World, times: int) -> Json:
    """Rewards that fall to a third: what the two ways of counting them do to the choice of an arm."""
    found = {}
    for name, balanced in (("balanced", True), ("plain counts", False)):
        one = World(hours=world.hours, requests=world.requests, falling=True, balanced=balanced)
        runs = [course(one, seed) for seed in range(times)]
        found[name] = {
            "last_weight_of_best": float(np.mean([run.weights[-1, MEANS.argmax()] for run in runs])),
            "last_best_has_most": float(np.mean([run.weights[-1].argmax() == MEANS.argmax() for run in runs])),
            "another_won": float(np.mean([run.winner not in {BEST, None} for run in runs])),
        }
    return found


def returning(world: World, times: int) -> Json:
    """Coverage where 300 entities ask everything: drawn once or for every plan, errors by request or by entity."""
    found = {}
    for name, anew in (("an entity keeps its draw", False), ("drawn anew for every plan", True)):
        one = World(hours=world.hours, requests=world.requests, returning=300, drawn_anew=anew)
        runs = [course(one, seed) for seed in range(times)]
        found[f"{name}, errors by request"] = coverage(runs)
        found[f"{name}, errors by entity"] = coverage(runs, by_entity=True)
    return found


def _ends(one: OffPolicyEstimate) -> tuple[float, float, float]:
    low, high = (np.nan if end is None else end for end in (one.low, one.high))
    return one.estimate, low, high


def _mean(values: Floats) -> tuple[float, float, float]:
    mean, reach = float(values.mean()), 1.96 * float(values.std()) / np.sqrt(len(values))
    return mean, mean - reach, mean + reach


def _held(values: Floats) -> Json:
    """Of estimates and both ends, shape [runs, arms, 3]."""
    estimate, low, high = np.moveaxis(values, -1, 0)
    inside = (low <= MEANS) & (high >= MEANS)
    return {
        "coverage": inside.mean(axis=0).tolist(),
        "coverage_of_all": float(inside.mean()),
        "bias": (estimate.mean(axis=0) - MEANS).tolist(),
        "width": np.nanmean(high - low, axis=0).tolist(),
    }
