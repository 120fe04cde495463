"""How often a canary stops bad challengers and completes good ones, looking at every tick; and what trials find.

    python benchmarks/traffic.py [--quick] [--json]

Each simulation is one rollout of the default policy (`boucle.policy.canary`): 1, 5 and 25 per cent, with shadow before
them and without. In a tick 2,000 entities ask; the challenger answers its share, every request is shadowed, and its
outcome is known. Judged at every tick. A challenger that is bad is one of: failed requests + 2 points; p99 x 3; scores
shifted by 0.2 standard deviations; log loss + 5 per cent. Good ones are equal to production, or better by 2 per cent of
its log loss. A bad one is caught when the rollout aborts before it answers more than 5 per cent of the entities.

Latencies are log-normal. p99 x 3 is simulated twice: all latencies three times as long, and only the slowest hundredth,
which is the least that makes a 99th percentile three times as high. Slow is what `rollout_facts.canary_steps` counts:
longer than `slow_factor` times production's 99th percentile in the same step so far, and nothing in shadow.

Then the figures of `trials.py` (A/B, bandit, interleaving), and those of `router_cost.py`: what a version on trial
costs the callers of a real replica. These depend on the machine, and on what else it does: none is a target here.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from trials import missed as missed_by_trials  # type: ignore[import-not-found]
from trials import report_ab, report_bandit, report_interleaving
from trials_ab import ab_figures  # type: ignore[import-not-found]
from trials_bandit import bandit_figures  # type: ignore[import-not-found]
from trials_interleaving import interleaving_figures  # type: ignore[import-not-found]

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.rollout import ArmCounts, Phase, Rollout, Scores, StepCounts
from boucle.policy.canary import CanaryPolicy, canary_gates, requests_needed
from boucle.policy.rollout import FINAL, first_rollout, next_rollout

TICK = timedelta(minutes=5)
ENTITIES = 2_000
FAILED, SCORE_DEVIATION, LOSS, LOSS_DEVIATION = 0.005, 0.15, 0.25, 0.3
"""Production: share of requests, standard deviation of scores, log loss in nats; and the standard deviation of the
paired difference of losses over production's loss (two models that largely agree)."""
MEDIAN_MS, SPREAD = 2.0, 0.6
"""Of production's log-normal latency: the 99th percentile is 4 medians; twice that is exceeded by 0.02 per cent."""
SLOWEST_MS = MEDIAN_MS * float(np.exp(NormalDist().inv_cdf(0.99) * SPREAD))
MOST_EXPOSED = 5.0
TARGET = 0.95
Json = dict[str, Any]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """How it differs from production. `slower` is a factor, for latencies from `slow_from_ms` on."""

    name: str
    is_good: bool
    failed: float = 0.0
    slower: float = 1.0
    slow_from_ms: float = 0.0
    shift: float = 0.0
    loss: float = 0.0

    def latencies(self, rng: np.random.Generator, n: int) -> Floats:
        """Milliseconds of so many requests."""
        usual = rng.lognormal(np.log(MEDIAN_MS), SPREAD, n)
        return np.where(usual >= self.slow_from_ms, usual * self.slower, usual)


CHALLENGERS = (
    Challenger(name="failed requests + 2 points", is_good=False, failed=0.02),
    Challenger(name="p99 x 3, as all latencies", is_good=False, slower=3),
    Challenger(name="p99 x 3, the slowest 1 % only", is_good=False, slower=3, slow_from_ms=SLOWEST_MS),
    Challenger(name="scores shifted by 0.2 SD", is_good=False, shift=0.2),
    Challenger(name="log loss + 5 %", is_good=False, loss=0.05),
    Challenger(name="equal", is_good=True),
    Challenger(name="log loss - 2 %", is_good=True, loss=-0.02),
)


ARMS = ("challenger", "production")
PRODUCTION = Challenger(name="production", is_good=True)


class Tally:
    """Counts of one step, added up tick by tick; scores by their sums."""

    def __init__(self, *, slow_factor: float, in_shadow: bool) -> None:
        self.slow_factor, self.in_shadow = slow_factor, in_shadow
        self.arms = {arm: np.zeros(2, dtype=np.int64) for arm in ARMS}
        self.latencies: dict[str, list[Floats]] = {arm: [] for arm in ARMS}
        self.scores = {name: np.zeros(3) for name in (*ARMS, "loss")}

    def add(self, rng: np.random.Generator, challenger: Challenger, weight: float) -> None:
        """One tick."""
        answered = int(rng.binomial(ENTITIES, weight / 100))
        # In shadow the challenger sees every request, and answers none.
        seen = {"challenger": ENTITIES if self.in_shadow else answered, "production": ENTITIES - answered}
        for arm, one in (("challenger", challenger), ("production", PRODUCTION)):
            n = seen[arm]
            self.arms[arm] += (n, rng.binomial(n, FAILED + one.failed))
            self.latencies[arm].append(one.latencies(rng, n))
            self._scores(arm, rng.normal(0.3 + one.shift * SCORE_DEVIATION, SCORE_DEVIATION, n))
        self._scores("loss", rng.normal(challenger.loss * LOSS, LOSS_DEVIATION * LOSS, ENTITIES))

    def counts(self) -> StepCounts:
        """As the policy takes them."""
        slow = self._slow()
        arms = {
            arm: ArmCounts(requests=int(n), failed=int(failed), slow=slow[arm], scores=self._moments(arm))
            for arm, (n, failed) in self.arms.items()
        }
        return StepCounts(**arms, in_shadow=self.in_shadow, loss=self._moments("loss"), production_loss=LOSS)

    def _slow(self) -> dict[str, int]:
        """As `boucle_adapters.rollout_facts.canary_steps` counts them."""
        if self.in_shadow:
            return dict.fromkeys(ARMS, 0)
        latencies = {arm: np.concatenate(ticks) for arm, ticks in self.latencies.items()}
        limit_ms = self.slow_factor * np.quantile(latencies["production"], 0.99)
        return {arm: int(np.count_nonzero(took > limit_ms)) for arm, took in latencies.items()}

    def _scores(self, name: str, values: np.ndarray) -> None:
        self.scores[name] += (len(values), values.sum(), (values**2).sum())

    def _moments(self, name: str) -> Scores:
        n, total, squares = self.scores[name]
        if n == 0:
            return Scores()
        mean = total / n
        return Scores(n=int(n), mean=mean, variance=max(0.0, squares / n - mean**2))


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one rollout went."""

    end: Rollout
    exposed: float
    ticks: int
    answered: int


def simulate(policy: CanaryPolicy, challenger: Challenger, seed: int) -> Course:
    """One rollout, until its end."""
    rng, at = np.random.default_rng(seed), datetime(2026, 1, 1, tzinfo=UTC)
    state = first_rollout(policy, ModelName("benchmark"), challenger=ModelVersion(2), production=ModelVersion(1), at=at)
    done: list[StepCounts] = []
    tally, exposed, ticks, answered = _tally(policy, state), 0.0, 0, 0
    while state.phase not in FINAL:
        tally.add(rng, challenger, state.weight)
        at, ticks, exposed = at + TICK, ticks + 1, max(exposed, state.weight)
        counts = tally.counts()
        after = next_rollout(
            policy, state, canary_gates(policy, [*done, counts]), requests=counts.challenger.requests, at=at
        )
        if after != state:
            answered += counts.challenger.requests if state.phase is Phase.CANARY else 0
            done.append(counts)
            tally = _tally(policy, after)
        state = after
    return Course(end=state, exposed=exposed, ticks=ticks, answered=answered)


def _tally(policy: CanaryPolicy, state: Rollout) -> Tally:
    return Tally(slow_factor=policy.slow_factor, in_shadow=state.phase is Phase.SHADOW)


def rollouts(policy: CanaryPolicy, times: int) -> list[Json]:
    """Each challenger so many times."""
    found = []
    begins = "shadow" if policy.shadow else "1 per cent"
    for challenger in CHALLENGERS:
        courses = [simulate(policy, challenger, seed) for seed in range(times)]
        caught = [one for one in courses if one.end.phase is Phase.ABORTED and one.exposed <= MOST_EXPOSED]
        completed = [one for one in courses if one.end.phase is Phase.COMPLETE]
        found.append(
            {
                "challenger": challenger.name,
                "begins": begins,
                "good": challenger.is_good,
                "caught": len(caught) / times,
                "completed": len(completed) / times,
                "aborted": sum(one.end.phase is Phase.ABORTED for one in courses) / times,
                "median_hours": float(np.median([one.ticks for one in courses]) * TICK / timedelta(hours=1)),
                "median_answered": float(np.median([one.answered for one in courses])),
            }
        )
    return found


def summary(found: list[Json]) -> Json:
    """The figures that targets are about: the worst of each kind."""
    return {
        "bad_challengers_caught": min(one["caught"] for one in found if not one["good"]),
        "good_challengers_completed": min(one["completed"] for one in found if one["good"]),
        "false_aborts": max(one["aborted"] for one in found if one["good"]),
    }


def missed(value: Json) -> list[str]:
    """Targets that were missed."""
    found = {
        "bad challengers caught": value["bad_challengers_caught"] >= TARGET,
        "good challengers completed": value["good_challengers_completed"] >= TARGET,
        "false aborts": value["false_aborts"] <= value["alpha"],
    }
    return [*(name for name, is_met in found.items() if not is_met), *missed_by_trials(value["trials"])]


def router_figures(*, quick: bool) -> dict[str, float]:
    """What a version on trial costs; nothing where the other benchmark is not there."""
    if not Path(__file__).with_name("router_cost.py").exists():
        return {}
    from router_cost import measure  # type: ignore[import-not-found]

    found: dict[str, float] = measure(quick)
    return found


def canary_needs(policy: CanaryPolicy) -> dict[str, int]:
    """The requests that each metric needs at the largest exposure."""
    beyond = NormalDist(np.log(MEDIAN_MS), SPREAD).cdf(np.log(policy.slow_factor * SLOWEST_MS))
    needed: Mapping[str, int] = requests_needed(
        policy, weight=MOST_EXPOSED, failed=FAILED, slow=1 - beyond, loss_deviation=LOSS_DEVIATION
    )
    return dict(needed)


def report(value: Json) -> None:
    """Tables for people."""
    table = Table("challenger", "begins with", "caught at 5 % or less", "completed", "hours", "requests it answered")
    table.columns[0].no_wrap = True
    for one in value["rollouts"]:
        table.add_row(
            *(one["challenger"], one["begins"]),
            *(f"{one['caught']:.1%}", f"{one['completed']:.1%}"),
            *(f"{one['median_hours']:.1f}", f"{one['median_answered']:,.0f}"),
        )
    needed = Table("metric", "requests of the challenger at 5 per cent (for loss: pairs)")
    for name, count in value["requests_needed"].items():
        needed.add_row(name, f"{count:,}")
    router = Table("a version on trial on a real replica", "")
    for name, figure in value["router"].items():
        router.add_row(name, f"{figure:,g}")
    trials = value["trials"]
    others = [*report_ab(trials["ab"]), *report_bandit(trials["bandit"]), report_interleaving(trials["interleaving"])]
    console = Console()
    for one in (table, needed, *([router] if value["router"] else []), *others):
        console.print(one)
    console.print(f"errors allowed: {value['alpha']:.0%} a rollout, looking every {TICK}")
    for name in ("bad_challengers_caught", "good_challengers_completed", "false_aborts"):
        console.print(f"{name}: {value[name]:.1%}, the worst of {value['simulations']} simulations each")
    console.print(f"targets missed: {', '.join(value['missed']) or 'none'}")


def main() -> int:
    """Print tables, or JSON; the exit code is 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="12 simulations each instead of 200, and shorter trials")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    policy = CanaryPolicy()
    times = 12 if arguments.quick else 200
    router = router_figures(quick=arguments.quick)
    found = rollouts(policy, times) + rollouts(policy.model_copy(update={"shadow": None}), times)
    value = {
        **summary(found),
        "router_throughput_cost": router.get("router_throughput_cost"),
        "alpha": policy.alpha,
        "simulations": times,
        "requests_needed": canary_needs(policy),
        "rollouts": found,
        "router": router,
        "trials": {
            "ab": ab_figures(arguments.quick),
            "bandit": bandit_figures(arguments.quick),
            "interleaving": interleaving_figures(arguments.quick),
        },
    }
    value["missed"] = missed(value)
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        report(value)
    return bool(value["missed"])


if __name__ == "__main__":
    sys.exit(main())
