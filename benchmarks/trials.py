"""A/B, interleaving and bandit on simulated traffic whose truth is known: errors, power, regret, coverage, sensitivity.

    python benchmarks/trials.py [--quick] [--json] [--plot FILE]

A/B: one value an entity, a look after every tick of 250 entities, until three times as many entities as the policy asks
for. Equal sides may be told apart at any look in `alpha` of the tests; a challenger better by the minimum effect must
have won by the number asked for in `power` of them. Beside it what the usual test of one look does when one looks
at every tick, and what happens when the requests of an entity are counted one by one. The split is judged at every tick
as well: a right one, and one of 48 to 52.

Bandit: four arms with rewards of 10 (production), 8, 12 and 15 per cent, each known three hours later; a new plan every
hour. Regret is what the best arm would have earned more, in expectation. Off-policy estimates of every arm are from the
log of the whole run, whose propensities followed the rewards; beside them the plain mean of each arm's own rewards.
`falling`: rewards fall to a third during the run; weights from plain counts against counts balanced by propensities.
`returning`: 300 entities ask everything, each with a level of its own; each is drawn once for all and keeps its arm as
long as the weights let it, against drawn anew for every plan; errors of the estimates by request, or by entity.

Interleaving: ten items a request, a user who looks at place k with probability 1 / k and clicks what attracts. Both
rankers see the attraction through noise, the challenger through less. Looks every 100 requests (A/B: 1,000). The A/B
tests have the true effect as their declared minimum, which is the best case for them; the ratio is to the fastest.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from trials_ab import ab_figures  # type: ignore[import-not-found]
from trials_bandit import MEANS, bandit_figures  # type: ignore[import-not-found]
from trials_interleaving import interleaving_figures  # type: ignore[import-not-found]

Json = dict[str, Any]
LEVEL = 0.95


def missed(value: Json) -> list[str]:
    """Targets that were missed; three standard errors of the simulation are allowed for."""
    ab, bandit, ranking = value["ab"], value["bandit"], value["interleaving"]

    def at_most(share: float, of: int, *, limit: float) -> bool:
        return share <= limit + 3 * math.sqrt(limit * (1 - limit) / of)

    splits = ab["split"]
    found = {
        "equal sides told apart": all(
            at_most(one["false_positives"], ab["simulations"], limit=ab["alpha"]) for one in ab["tests"]
        ),
        "power": all(at_most(1 - one["power"], ab["simulations"], limit=1 - ab["power_asked"]) for one in ab["tests"]),
        "right splits called wrong": all(
            at_most(share, splits["simulations"], limit=float(alpha)) for alpha, share in splits["false_alarms"].items()
        ),
        "off-policy coverage": all(
            at_most(1 - bandit["off_policy"][name]["coverage_of_all"], bandit["simulations"], limit=1 - LEVEL)
            for name in ("ips", "snips")
        ),
        "regret below the uniform split": bandit["regret"]["interval"][1] < bandit["regret"]["uniform"],
        "equal rankers told apart": at_most(
            ranking["equal_told_apart"], ranking["equal_simulations"], limit=ranking["alpha"]
        ),
        "interleaving faster than A/B": ranking["ratio_ab_to_interleaving"] > 1,
    }
    return [name for name, is_met in found.items() if not is_met]


def report_ab(value: Json) -> list[Table]:
    """Errors and power."""
    tests = Table("A/B on", "entities asked for", "told apart if equal", "by one-look tests", "won by then", "median")
    for one in value["tests"]:
        tests.add_row(
            *(one["metric"], f"{one['needed']:,}", f"{one['false_positives']:.1%}"),
            *(f"{one['false_positives_of_one_look_tests']:.1%}", f"{one['power']:.1%}"),
            f"{one['median_entities_to_win']:,.0f}",
        )
    more = Table("equal sides with returning entities, and splits", "share of tests")
    for how, share in value["told_apart_with_repeated_requests"].items():
        more.add_row(f"told apart, {how}", f"{share:.1%}")
    for alpha, share in value["split"]["false_alarms"].items():
        more.add_row(f"a right split called wrong, alpha {alpha}", f"{share:.2%}")
    median = value["split"]["median_entities_to_find_48_to_52"]
    more.add_row(f"48 to 52 found, after {median:,.0f} entities (median)", f"{value['split']['found_48_to_52']:.0%}")
    return [tests, more]


def report_bandit(value: Json) -> list[Table]:
    """Regret, the end, and coverage."""
    regret, stop = value["regret"], value["stop"]
    figures = Table(f"bandit, {value['requests']:,} requests", "")
    low, high = regret["interval"]
    figures.add_row("regret in rewards (95 % interval of the mean)", f"{regret['bandit']:.0f} [{low:.0f}, {high:.0f}]")
    figures.add_row("regret of the uniform split", f"{regret['uniform']:.0f}")
    figures.add_row("rewards over those of the best fixed arm", f"{regret['reward_over_best_fixed_arm']:.1%}")
    figures.add_row("stopped: with the best arm, with another", f"{stop['best_won']:.1%}, {stop['another_won']:.1%}")
    figures.add_row(
        "loss of the winner, mean (allowed)", f"{stop['mean_loss_of_winner']:.4f} ({stop['max_expected_loss']})"
    )
    for name, one in value["falling"].items():
        figures.add_row(f"falling rewards, {name}: last weight of the best", f"{one['last_weight_of_best']:.1%}")
    held = Table("95 % intervals hold the truth", *(f"{mean:.0%} arm" for mean in MEANS), "all")
    several = {"one request an entity": value["off_policy"], **value["returning"]}
    for world, estimators in several.items():
        for name, one in estimators.items():
            if name == "plain mean" and world != "one request an entity":
                continue
            shares = (f"{share:.1%}" for share in (*one["coverage"], one["coverage_of_all"]))
            held.add_row(f"{name}; {world}", *shares)
    return [figures, held]


def report_interleaving(value: Json) -> Table:
    """Requests until a decision."""
    table = Table("until the better ranker has won", "requests (median)", "won")
    won, requests = f"{value['interleaving_won']:.0%}", value["interleaving_requests"]
    table.add_row("interleaving", f"{requests:,.0f}", won)
    table.add_row("interleaving, one draw a list", f"{value['interleaving_requests_with_one_draw_a_list']:,.0f}", "")
    for name, count in value["ab_requests"].items():
        table.add_row(f"A/B by {name}", f"{count:,.0f} ({count / requests:.1f} x)", f"{value['ab_won'][name]:.0%}")
    table.add_row("equal rankers told apart", "", f"{value['equal_told_apart']:.1%}")
    return table


def plot(value: Json, file: Path) -> None:
    """The regret curve."""
    import matplotlib.pyplot as plt

    curve = value["bandit"]["regret"]["curve"]
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.fill_between(curve["hour"], curve["p5"], curve["p95"], color="#2563eb", alpha=0.15, label="90 % of runs")
    axes.fill_between(curve["hour"], curve["low"], curve["high"], color="#2563eb", alpha=0.4, label="95 % of the mean")
    axes.plot(curve["hour"], curve["bandit"], color="#2563eb", label="bandit")
    axes.plot(curve["hour"], curve["uniform"], color="#9ca3af", label="uniform split")
    axes.plot(curve["hour"], curve["best_fixed_arm"], color="#16a34a", label="best fixed arm")
    axes.set_xlabel("hours, one plan each")
    axes.set_ylabel("regret in rewards")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def main() -> int:
    """Print tables, or JSON; the exit code is 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer and shorter simulations")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, help="where to draw the regret curve")
    arguments = parser.parse_args()
    value: Json = {
        "ab": ab_figures(arguments.quick),
        "bandit": bandit_figures(arguments.quick),
        "interleaving": interleaving_figures(arguments.quick),
    }
    value["missed"] = missed(value)
    if arguments.plot:
        plot(value, arguments.plot)
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        console = Console()
        for table in (*report_ab(value["ab"]), *report_bandit(value["bandit"])):
            console.print(table)
        console.print(report_interleaving(value["interleaving"]))
        console.print(f"targets missed: {', '.join(value['missed']) or 'none'}")
    return bool(value["missed"])


if __name__ == "__main__":
    sys.exit(main())
