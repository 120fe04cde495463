"""How often a canary stops bad challengers and completes good ones, looking at every tick.

    python benchmarks/traffic.py [--quick] [--json]

Each simulation is one rollout of the default policy (`boucle.policy.canary`): 1, 5 and 25 per cent, with shadow before
them and without. In a tick 2,000 entities ask; the challenger answers its share, every request is shadowed, and its
outcome is known. Judged at every tick. A challenger that is bad is one of: failed requests + 2 points; p99 x 3 (the
slowest requests take longer: the share of slow ones goes up from 1 to 3 per cent); scores shifted by 0.2 standard
deviations; log loss + 5 per cent. Good ones are equal to production, or better by 2 per cent of its log loss.

A bad one is caught when the rollout aborts before it answers more than 5 per cent of the entities.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.rollout import ArmCounts, Phase, Rollout, Scores, StepCounts
from boucle.policy.canary import CanaryPolicy, canary_gates, requests_needed
from boucle.policy.rollout import FINAL, first_rollout, next_rollout

TICK = timedelta(minutes=5)
ENTITIES = 2_000
FAILED, SLOW, SCORE_DEVIATION, LOSS, LOSS_DEVIATION = 0.005, 0.01, 0.15, 0.25, 0.3
"""Production: shares of requests, standard deviation of scores, log loss in nats; and the standard deviation of the
paired difference of losses over production's loss (two models that largely agree)."""
MOST_EXPOSED = 5.0
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Challenger:
    """How it differs from production."""

    name: str
    is_good: bool
    failed: float = 0.0
    slow: float = 0.0
    shift: float = 0.0
    loss: float = 0.0


CHALLENGERS = (
    Challenger(name="failed requests + 2 points", is_good=False, failed=0.02),
    Challenger(name="p99 x 3", is_good=False, slow=0.02),
    Challenger(name="scores shifted by 0.2 SD", is_good=False, shift=0.2),
    Challenger(name="log loss + 5 %", is_good=False, loss=0.05),
    Challenger(name="equal", is_good=True),
    Challenger(name="log loss - 2 %", is_good=True, loss=-0.02),
)


class Tally:
    """Counts of one step, added up tick by tick; scores by their sums."""

    def __init__(self) -> None:
        self.arms = {"challenger": np.zeros(3, dtype=np.int64), "production": np.zeros(3, dtype=np.int64)}
        self.scores = {"challenger": np.zeros(3), "production": np.zeros(3), "loss": np.zeros(3)}

    def add(self, rng: np.random.Generator, challenger: Challenger, weight: float) -> None:
        """One tick."""
        answered = int(rng.binomial(ENTITIES, weight / 100))
        # In shadow the challenger sees every request, and answers none.
        seen = {"challenger": answered or ENTITIES, "production": ENTITIES - answered}
        worse = {"challenger": challenger, "production": Challenger(name="", is_good=True)}
        for arm, n in seen.items():
            one = worse[arm]
            self.arms[arm] += (n, rng.binomial(n, FAILED + one.failed), rng.binomial(n, SLOW + one.slow))
            self._scores(arm, rng.normal(0.3 + one.shift * SCORE_DEVIATION, SCORE_DEVIATION, n))
        self._scores("loss", rng.normal(challenger.loss * LOSS, LOSS_DEVIATION * LOSS, ENTITIES))

    def counts(self) -> StepCounts:
        """As the policy takes them."""
        arms = {
            arm: ArmCounts(requests=int(n), failed=int(failed), slow=int(slow), scores=self._moments(arm))
            for arm, (n, failed, slow) in self.arms.items()
        }
        return StepCounts(**arms, loss=self._moments("loss"), production_loss=LOSS)

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
    tally, exposed, ticks, answered = Tally(), 0.0, 0, 0
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
            tally = Tally()
        state = after
    return Course(end=state, exposed=exposed, ticks=ticks, answered=answered)


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
        "false_aborts": max(1 - one["completed"] for one in found if one["good"]),
    }


def report(value: Json) -> None:
    """Tables for people."""
    table = Table("challenger", "begins with", "caught at 5 % or less", "completed", "hours", "requests it answered")
    for one in value["rollouts"]:
        table.add_row(
            *(one["challenger"], one["begins"]),
            *(f"{one['caught']:.1%}", f"{one['completed']:.1%}"),
            *(f"{one['median_hours']:.1f}", f"{one['median_answered']:,.0f}"),
        )
    needed = Table("metric", "requests of the challenger at 5 per cent (for loss: pairs)")
    for name, count in value["requests_needed"].items():
        needed.add_row(name, f"{count:,}")
    console = Console()
    console.print(table)
    console.print(needed)
    console.print(f"errors allowed: {value['alpha']:.0%} a rollout, looking every {TICK}")


def main() -> int:
    """Print tables, or JSON; the exit code is 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 simulations each instead of 200")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    policy = CanaryPolicy()
    times = 40 if arguments.quick else 200
    found = rollouts(policy, times) + rollouts(policy.model_copy(update={"shadow": None}), times)
    needed: Mapping[str, int] = requests_needed(
        policy, weight=MOST_EXPOSED, failed=FAILED, slow=SLOW, loss_deviation=LOSS_DEVIATION
    )
    value = {**summary(found), "alpha": policy.alpha, "requests_needed": dict(needed), "rollouts": found}
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        report(value)
    good = value["bad_challengers_caught"] >= 0.95 and value["good_challengers_completed"] >= 0.95
    return not (good and value["false_aborts"] <= policy.alpha)


if __name__ == "__main__":
    sys.exit(main())
