"""How often the gates are wrong: promotions of candidates that are no better, refusals of candidates that are.

A simulated holdout: 2,500 entities with two rows each, which share their probability (8 % on average) and what a model
gets wrong about them. Production and candidate see the true log odds with noise. With as much noise both are equally
good: a promotion then is false. With less noise the candidate is better by a known gain: not promoting it is a false
refusal. The gates are the real ones, `no_regression` at its default limit of 0 nats and `slices` over four features.

    python benchmarks/promotion.py [--quick] [--json]
"""

import argparse
import json
import sys

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from boucle.contracts.verdict import Verdict
from boucle.policy import gates
from boucle.policy.limits import PromotionPolicy
from boucle.stats.intervals import paired_gain
from boucle.stats.metrics import Vector, log_loss_rows
from boucle.training.slices import slice_gains

ENTITIES, ROWS_EACH, SIMULATIONS = 2_500, 2, 1_000
GAINS = (0.0, 0.002, 0.004, 0.01)
"""Nats; .0044 is what retraining gains on the replayed history of `repurchase`."""
PRODUCTION_NOISE = 0.6
ALPHA = 0.05
POLICY = PromotionPolicy()


def sigmoid(values: Vector) -> Vector:
    """The probability of log odds."""
    return np.asarray(1 / (1 + np.exp(-values)), dtype=np.float64)


def expected_loss(noise: float, rng: np.random.Generator, rows: int = 400_000) -> float:
    """The log loss of scores with this noise in the log odds, in nats, over many rows."""
    odds = log_odds(rng, rows)
    truth, scores = sigmoid(odds), sigmoid(odds + noise * rng.normal(size=rows))
    return float(-(truth * np.log(scores) + (1 - truth) * np.log1p(-scores)).mean())


def log_odds(rng: np.random.Generator, rows: int) -> Vector:
    """True log odds; about 8 % positive."""
    return np.asarray(-2.9 + 0.9 * rng.normal(size=rows), dtype=np.float64)


def noise_of(gain: float) -> float:
    """The candidate's noise with which it is better by `gain`."""
    if gain == 0:
        return PRODUCTION_NOISE
    reference = expected_loss(PRODUCTION_NOISE, np.random.default_rng(0))
    low, high = 0.0, PRODUCTION_NOISE
    for _ in range(30):
        middle = (low + high) / 2
        if reference - expected_loss(middle, np.random.default_rng(0)) > gain:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def one(seed: int, noise: float) -> tuple[Verdict, Verdict]:
    """What `no_regression` and `slices` say of one holdout."""
    rng = np.random.default_rng(seed)
    odds = log_odds(rng, ENTITIES)
    seen = [odds + size * rng.normal(size=ENTITIES) for size in (PRODUCTION_NOISE, noise)]
    entities = np.repeat(np.arange(ENTITIES), ROWS_EACH)
    labels = (rng.random(len(entities)) < sigmoid(odds)[entities]).astype(np.float64)
    reference, candidate = (sigmoid(values)[entities] for values in seen)
    gain = paired_gain(labels, reference=reference, candidate=candidate, entities=entities, seed=seed)
    contest = gates.surely_at_least("no_regression", gain, POLICY.gates.no_regression)
    features = np.column_stack([odds[entities], rng.normal(size=(len(entities), 3))])
    difference = log_loss_rows(labels, reference) - log_loss_rows(labels, candidate)
    apart = slice_gains(difference, features, ("odds", "a", "b", "c"), entities, POLICY.slicing, level=0.95)
    worst = [gates.not_surely_below("slices", found.gain, POLICY.gates.slices).verdict for found in apart.judged]
    said = next((verdict for verdict in (Verdict.FAILED, Verdict.INCONCLUSIVE) if verdict in worst), Verdict.PASSED)
    return contest.verdict, said


def measure(simulations: int) -> list[dict[str, float]]:
    """Shares of verdicts for each true gain."""
    found = []
    for gain in GAINS:
        noise = noise_of(gain)
        seeds = track(range(simulations), f"gain of {gain:g} nats", console=Console(stderr=True), transient=True)
        said = [one(seed, noise) for seed in seeds]
        contest, slices = ([verdicts[place] for verdicts in said] for place in (0, 1))
        found.append(
            {
                "true_gain_nats": gain,
                "promoted": share(contest, Verdict.PASSED),
                "inconclusive": share(contest, Verdict.INCONCLUSIVE),
                "failed": share(contest, Verdict.FAILED),
                "slices_failed": share(slices, Verdict.FAILED),
                "slices_inconclusive": share(slices, Verdict.INCONCLUSIVE),
            }
        )
    return found


def share(verdicts: list[Verdict], wanted: Verdict) -> float:
    """Ratio of the verdicts that are this one."""
    return sum(verdict is wanted for verdict in verdicts) / len(verdicts)


def main() -> int:
    """Print a table, or JSON; the exit code is 1 when more candidates were promoted falsely than the level allows."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="200 simulations of each gain instead of 1,000")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    simulations = 200 if chosen.quick else SIMULATIONS
    rows = measure(simulations)
    false_promotions = rows[0]["promoted"]
    if chosen.json:
        result = {"simulations": simulations, "false_promotions": false_promotions, "alpha": ALPHA, "by_gain": rows}
        sys.stdout.write(json.dumps(result, indent=1) + "\n")
    else:
        table = Table(*rows[0], title=f"{simulations} simulated candidates of each gain", title_justify="left")
        for row in rows:
            table.add_row(*(f"{value:g}" for value in row.values()))
        console = Console()
        console.print(table)
        console.print(f"False promotions {false_promotions:g}, at most {ALPHA:g}.")
    return false_promotions > ALPHA


if __name__ == "__main__":
    sys.exit(main())
