"""How often drift monitoring cries wolf, which real shifts it finds, and what a check costs beside Evidently.

    python benchmarks/monitoring.py [--quick] [--json]

A simulated model (`monitoring_world.py`) of 20 features: correlated, skewed, categories, with missing values. Profiles,
gates and the decision about a retraining are the loop's own (`boucle.features.profiles`, `boucle.policy.monitoring`,
`boucle.policy.retraining`), with the defaults of a new model.

quiet      nothing changes. A model lives ten windows after a reference of 10,000 rows, then a new one is drawn; after
           each window the trigger is asked, and every time it fires is a false retraining (new labels are always there,
           nothing cools down). `any_gate` is windows in which a gate failed. Beside it, on the same reference and the
           same windows but fewer of them, Evidently's rule "any column drifted".
shifts     two windows of 2,000 rows after a real shift, with mature labels. Found: within them the trigger fired or, of
           an input that stands still, refused to learn from it (`broken_input`): then a person has to mend the source.
check      one window of many rows against a reference of as many: making the profile, and the check of all gates and
           all statistics of all columns from it, beside Evidently's DataDriftPreset on the same columns. In processor
           time, so that what else the machine does is nobody's; the reference's profile is made once, in training.
history    the step `measure_drift` over seven days in a home with 10 and with 500 days of profiles.
agreement  statistics from 30 merged profiles of 30 bins against exact ones from the raw rows, the largest difference
           over the features that are numbers and shifts of 0, 0.1 and 0.5 SD.
"""

import argparse
import json
import sys
from typing import Any

import numpy as np
from monitoring_cost import (  # type: ignore[import-not-found]
    STATISTICS,
    agreement,
    check_cost,
    evidently_columns,
    history_cost,
    say,
)
from monitoring_world import (  # type: ignore[import-not-found]
    NAMES,
    REFERENCE_ROWS,
    SHIFTS,
    Shift,
    decide,
    draw,
    facts_of,
    failed_gates,
    reference_of,
    report_of,
)
from rich.console import Console
from rich.table import Table

from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import TriggerOutcome, TriggerRule
from boucle.contracts.verdict import Verdict
from boucle.policy.monitoring import MonitoringPolicy
from boucle.policy.retraining import RetrainingPolicy

QUIET_ROWS = (200, 500, 2_000, 10_000, 50_000)
ASKED_OFTEN = ((2_000, 5), (10_000, 10))
"""Rows of a window, and how many of them are about the same entity."""
EVIDENTLY_ROWS, AGREEMENT_ROWS, RATIO_ROWS = 500, 20_000, 1_000_000
LIFE, FOUND_ROWS, WINDOWS_TO_FIND = 10, 2_000, 2
MONITORING, RETRAINING = MonitoringPolicy(), RetrainingPolicy()
TARGETS = {
    "false_retrainings_per_100_quiet_windows": ("at most", 1.0),
    "real_shifts_found": ("at least", 0.95),
    "ratio_evidently_to_boucle": ("at least", 50.0),
    "psi_apart": ("at most", 0.005),
    "history_ratio": ("at most", 1.5),
}
Json = dict[str, Any]


def quiet(n: int, windows: int, by_evidently: int, rng: np.random.Generator, *, asked: int = 1) -> Json:
    """False alarms of windows of n rows in which nothing changed, each entity asked about so many times."""
    fired = failed = inconclusive = drifted = looked = 0
    reports: list[DriftReport] = []
    for number in range(windows):
        if number % LIFE == 0:
            before = draw(rng, REFERENCE_ROWS)
            reference, reports = reference_of(before), []
        rows = draw(rng, n, asked=asked)
        reports.append(report_of(MONITORING, facts_of(reference, rows), number))
        fired += decide(RETRAINING, reports).outcome is TriggerOutcome.FIRED
        failed += bool(failed_gates(reports[-1]))
        inconclusive += any(gate.verdict is Verdict.INCONCLUSIVE for gate in reports[-1].gates)
        if number % max(1, windows // max(by_evidently, 1)) == 0 and looked < by_evidently:
            looked += 1
            drifted += evidently_columns(before, rows) > 0
    return {
        "rows": n,
        "asked": asked,
        "windows": windows,
        "false_retrainings_per_100": 100 * fired / windows,
        "any_gate_per_100": 100 * failed / windows,
        "inconclusive_per_100": 100 * inconclusive / windows,
        "evidently_windows": looked,
        "evidently_per_100": 100 * drifted / looked if looked else None,
    }


def found(shift: Shift, times: int, rng: np.random.Generator) -> Json:
    """How often a shift is found within two windows after a quiet one."""
    hits = first = 0
    gates: dict[str, int] = {}
    for _ in range(times):
        reference = reference_of(draw(rng, REFERENCE_ROWS))
        reports = [report_of(MONITORING, facts_of(reference, draw(rng, FOUND_ROWS)), 0)]
        decisions = []
        for number in range(1, WINDOWS_TO_FIND + 1):
            reports.append(report_of(MONITORING, facts_of(reference, draw(rng, FOUND_ROWS, shift)), number))
            decisions.append(decide(RETRAINING, reports))
        hits += any(
            decision.outcome is TriggerOutcome.FIRED or decision.rule is TriggerRule.BROKEN_INPUT
            for decision in decisions
        )
        failed = failed_gates(reports[1])
        first += bool(failed)
        for name in failed:
            gates[name] = gates.get(name, 0) + 1
    return {
        "shift": shift.name,
        "rows": FOUND_ROWS,
        "times": times,
        "found": hits / times,
        "gate_failed_in_first_window": first / times,
        "gates": {name: count / times for name, count in sorted(gates.items())},
    }


def summary(value: Json) -> Json:
    """The figures that have targets: the worst of each."""
    return {
        "false_retrainings_per_100_quiet_windows": max(one["false_retrainings_per_100"] for one in value["quiet"]),
        "real_shifts_found": min(one["found"] for one in value["shifts"]),
        "ratio_evidently_to_boucle": value["check"]["ratio_evidently_to_boucle"],
        "psi_apart": max(value["agreement"]["psi"].values()),
        "history_ratio": value["history"]["history_ratio"],
    }


def missed(value: Json) -> list[str]:
    """Targets that were not reached; the ratio to Evidently, which grows with the rows, is asked of a million."""
    return [
        name
        for name, (bound, limit) in TARGETS.items()
        if (value[name] > limit if bound == "at most" else value[name] < limit)
        and (name != "ratio_evidently_to_boucle" or value["check"]["rows"] >= RATIO_ROWS)
    ]


def report(value: Json) -> None:
    """Tables for people."""
    calm = Table(
        "rows a window",
        "of an entity",
        "windows",
        "false retrainings",
        "any gate",
        "inconclusive",
        "Evidently, any column",
    )
    for one in value["quiet"]:
        shown = "-" if one["evidently_per_100"] is None else f"{one['evidently_per_100']:.0f}"
        calm.add_row(
            f"{one['rows']:,}",
            str(one["asked"]),
            f"{one['windows']:,}",
            *(f"{one[key]:.2f}" for key in ("false_retrainings_per_100", "any_gate_per_100", "inconclusive_per_100")),
            f"{shown} (of {one['evidently_windows']} windows)",
        )
    shifts = Table("real shift", "found in 2 windows", "a gate failed in the first", "gates that failed there")
    for one in value["shifts"]:
        names = ", ".join(f"{name} {share:.0%}" for name, share in one["gates"].items())
        shifts.add_row(one["shift"], f"{one['found']:.1%}", f"{one['gate_failed_in_first_window']:.1%}", names)
    apart = Table("shift, SD", *STATISTICS)
    for shift, row in value["agreement"]["by_shift"].items():
        apart.add_row(shift, *(f"{row[name]:.4f}" for name in STATISTICS))
    console = Console()
    console.print("Quiet windows: alarms in 100 of them", calm, f"Real shifts at {FOUND_ROWS:,} rows", shifts)
    console.print("Largest difference to exact statistics from raw rows", apart)
    cost, days = value["check"], value["history"]["milliseconds_by_days"]
    console.print(
        f"{cost['rows']:,} rows x {len(NAMES)} features: profile {cost['boucle_profile_seconds']:.2f} s, made once, "
        f"check {cost['boucle_check_seconds']:.3f} s; Evidently {cost['evidently_seconds']:.1f} s"
    )
    console.print("check by days of history: " + ", ".join(f"{count}: {ms:.1f} ms" for count, ms in days.items()))
    for name, (bound, limit) in TARGETS.items():
        console.print(f"{name}: {value[name]:.4g} ({bound} {limit:g})")
    console.print(f"targets missed: {', '.join(value['missed']) or 'none'}")


def main() -> int:
    """Print tables, or JSON; the exit code is 1 when a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 quiet windows and 100k rows, in a minute")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rng = np.random.default_rng(2024)
    windows, times, rows, by_evidently = (40, 40, 100_000, 4) if arguments.quick else (1_000, 400, RATIO_ROWS, 20)
    value: Json = {"quiet": [], "shifts": []}
    for n in QUIET_ROWS:
        say(f"{windows:,} quiet windows of {n:,} rows")
        # Evidently takes a second or more a window: in the quick run it looks at the small ones only.
        few = by_evidently if n <= EVIDENTLY_ROWS or not arguments.quick else 0
        value["quiet"].append(quiet(n, windows, few, rng))
    for n, asked in ASKED_OFTEN:
        say(f"{windows:,} quiet windows of {n:,} rows, {asked} of each entity")
        value["quiet"].append(quiet(n, windows, 0, rng, asked=asked))
    for shift in SHIFTS:
        say(f"{times} times: {shift.name}")
        value["shifts"].append(found(shift, times, rng))
    value["agreement"], value["history"] = agreement(rng, rows=min(rows, AGREEMENT_ROWS)), history_cost(rng)
    value["check"] = check_cost(rows, rng)
    value = summary(value) | value
    value["missed"] = missed(value)
    if arguments.json:
        print(json.dumps(value, indent=1))
    else:
        report(value)
    return bool(value["missed"])


if __name__ == "__main__":
    sys.exit(main())
