"""What a version on trial costs the callers of one replica: drawn among, shadowing, and crashing.

    python benchmarks/router_cost.py [--quick] [--json]

One serving process as people run it (prediction log and look-up on), asked without a pause over 8 connections. Plans
change in the state store meanwhile. Every stretch under a plan with a trial lies between two of the same length under a
direct plan with one arm, and is compared with the mean of these two; figures are medians over all such comparisons, so
that what else the machine does weighs on both sides. The first moments of a stretch are left out.

router_*     a challenger that is the same model answers 25 per cent of the entities (`_at_5`: 5), shadow off
shadow_*     production answers everybody, the same model scores every request as well; `shadow_p99_ratio` at about a
             third of what the replica can answer, where callers pause between requests (a replica that is asked without
             a pause has nothing left for shadows but its callers' time: `shadow_p99_ratio_at_full_load`)
crashing_*   a challenger at 25 per cent whose ONNX graph raises at each of these callers' rows, and passes its warm-up

`router_p99_ms` is a difference in milliseconds; `cpu` is processor time of the replica for each request, which other
people's work on the machine disturbs least; `_ratio` is with the trial over without. `challenger_share_at_*` are
the requests that the challenger really answered. `crashing_challenger_noticed` are requests that fell back because it
failed, or because it had failed too often just before; `stalled` are those of the sound challenger whose time was over.
`alone_cores` is how much of a core the replica had without a trial: where others took the rest, times within their
limits are inconclusive, since callers then wait for a core and not for the trial.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from load import Measured, http_request, load  # type: ignore[import-not-found]
from onnx import TensorProto, helper, numpy_helper
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table
from serving_world import MODEL, World  # type: ignore[import-not-found]

from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MODEL_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    WARMUP_FILE,
    RecordedRequest,
    WarmUp,
)
from boucle.contracts.ids import Digest, EntityKey
from boucle.contracts.traffic_plan import TrafficPlan
from boucle_cli.services import Service, free_port, python, running, wait_healthy

LEAST_CORES = 0.8
"""A replica that is asked without a pause and has less was held up by others, and what a trial costs hides in that."""
TIMED = ("router_throughput_cost", "router_p99_ms", "shadow_p99_ratio")
CONNECTIONS, CALLED_ABOUT = 8, 4_000
PAUSE_SECONDS = 0.002
SKIPPED_SECONDS, PLAN_SECONDS = 0.1, 30.0
IMPOSSIBLE = 1_000.0
"""A value of the first feature that no entity has: features are drawn from a normal distribution."""
TRIALS: Mapping[str, tuple[float, float]] = {"at_25": (25, 0), "at_5": (5, 0), "shadow": (0, 100)}
"""Weight and shadow share, per cent."""
TARGETS: Mapping[str, float] = {
    "router_throughput_cost": 0.15,
    "router_p99_ms": 0.2,
    "shadow_p99_ratio": 1.2,
    "crashing_challenger_failed_requests": 0,
    "failed_requests": 0,
}


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """What callers saw for a while under one plan, and what it took: processor time of the replica for each request.

    `by_challenger` counts answers, and like `requests` those of the first moments too.
    """

    per_second: float
    p99_ms: float
    cpu_microseconds: float
    requests: int
    failed: int
    by_challenger: float

    @property
    def cores(self) -> float:
        """How much of a processor core the replica had; near 1 when nothing but itself held it up."""
        return self.per_second * self.cpu_microseconds / 1e6


@dataclass(kw_only=True)
class Replica:
    """A serving process, and what it is asked."""

    port: int
    requests: Sequence[bytes]
    turned: int = 0
    """Where in the requests the next stretch begins: each is long enough for a part of the entities only."""

    def follows(self, plan: TrafficPlan) -> None:
        """Return once the replica serves this plan."""
        deadline = time.monotonic() + PLAN_SECONDS
        while self.metric("boucle_plan_revision") != plan.revision:
            if time.monotonic() > deadline:
                raise SystemExit(f"Revision {plan.revision} is not served after {PLAN_SECONDS:g} s.")
            time.sleep(0.01)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families for sample in family.samples if sample.name == name]
        return sum(sample.value for sample in samples if labels.items() <= sample.labels.items())

    def stretch(self, plan: TrafficPlan, seconds: float, *, pause_seconds: float = 0.0) -> Stretch:
        """Ask for so long under this plan; with a pause, each connection rests between requests."""
        self.follows(plan)
        answered, cpu = self._by_challenger(), self._cpu_seconds()
        requests = [*self.requests[self.turned :], *self.requests[: self.turned]]
        found: Measured = load(
            self.port,
            requests,
            connections=CONNECTIONS,
            seconds=seconds + SKIPPED_SECONDS,
            pause_seconds=pause_seconds,
        )
        self.turned = (self.turned + len(found.seconds) // CONNECTIONS) % len(requests)
        start = found.began + SKIPPED_SECONDS
        return Stretch(
            per_second=sum(at >= start for at in found.at) / seconds,
            p99_ms=found.quantile_ms(0.99, start=start),
            cpu_microseconds=(self._cpu_seconds() - cpu) / len(found.seconds) * 1e6,
            requests=len(found.seconds) + found.failures.total(),
            failed=found.failures.total(),
            by_challenger=self._by_challenger() - answered,
        )

    def _by_challenger(self) -> float:
        return self.metric("boucle_requests_total", route="challenger", code="200")

    def _cpu_seconds(self) -> float:
        return self.metric("process_cpu_seconds_total")


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A stretch with a trial, and what the two beside it without one say together."""

    trial: Stretch
    beside: tuple[Stretch, Stretch]

    @property
    def throughput_ratio(self) -> float:
        """With the trial over without."""
        return self.trial.per_second / statistics.mean(one.per_second for one in self.beside)

    @property
    def cpu_ratio(self) -> float:
        """Of the processor time for a request: with the trial over without."""
        return self.trial.cpu_microseconds / statistics.mean(one.cpu_microseconds for one in self.beside)

    @property
    def p99_ratio(self) -> float:
        """With the trial over without."""
        return self.trial.p99_ms / self._p99_beside

    @property
    def p99_more_ms(self) -> float:
        """With the trial minus without, milliseconds."""
        return self.trial.p99_ms - self._p99_beside

    @property
    def _p99_beside(self) -> float:
        return statistics.mean(one.p99_ms for one in self.beside)


def crashing(world: World) -> Digest:
    """A bundle that answers its recorded request, and whose graph raises for every row that callers ask about."""
    nodes = [
        helper.make_node("Gather", [ONNX_INPUT, "first"], ["value"], axis=1),
        helper.make_node("Equal", ["value", "impossible"], ["is_recorded"]),
        helper.make_node("Not", ["is_recorded"], ["is_asked"]),  # so is a missing value, which equals nothing
        helper.make_node("Cast", ["is_asked"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], [ONNX_OUTPUT]),  # the table has no place 1
    ]
    constants = [
        numpy_helper.from_array(np.array(0, dtype=np.int64), "first"),
        numpy_helper.from_array(np.array(IMPOSSIBLE), "impossible"),
        numpy_helper.from_array(np.array([0.5]), "table"),
    ]
    width = len(world.rows.columns)
    rows = helper.make_tensor_value_info(ONNX_INPUT, TensorProto.DOUBLE, [None, width])
    answers = helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.DOUBLE, [None])
    graph = helper.make_graph(nodes, "crashing", [rows], [answers], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    recorded = RecordedRequest(
        entity_key=EntityKey("recorded"), features=(IMPOSSIBLE, *[0.0] * (width - 1)), expected=0.5
    )
    directory = world.folder / "crashing"
    directory.mkdir()
    (directory / MODEL_FILE).write_bytes(model.SerializeToString())
    (directory / CONTRACT_FILE).write_bytes((world.bundles.fetch(world.digests[0]) / CONTRACT_FILE).read_bytes())
    (directory / WARMUP_FILE).write_bytes(WarmUp(requests=(recorded,)).canonical())
    found: Digest = world.bundles.put(directory, MODEL)
    return found


@contextmanager
def replica(world: World) -> Iterator[Replica]:
    """One serving process of this world, once it answers."""
    port = free_port(0)
    service = Service(
        name="replica",
        command=[python(), "-m", "boucle_serving.main"],
        url=f"http://127.0.0.1:{port}",
        health=f"http://127.0.0.1:{port}/readyz",
        environment={**world.environment(), "BOUCLE_PORT": str(port)},
    )
    bodies = [
        json.dumps({"entity": f"{number:06d}", "as_of": "2026-01-01"}, separators=(",", ":")).encode()
        for number in range(CALLED_ABOUT)
    ]
    logs = world.folder / "logs"
    with running([service], logs=logs, environment={}) as (process,):
        wait_healthy(service, process, logs=logs)
        yield Replica(port=port, requests=[http_request("/predict", body) for body in bodies])


def compare(
    asked: Replica, world: World, *, rounds: int, seconds: float
) -> tuple[dict[str, list[Comparison]], list[Stretch]]:
    """Each trial so often, each time between two stretches without one; and all of these."""
    alone = [asked.stretch(world.end_trial(), seconds)]
    found: dict[str, list[Comparison]] = defaultdict(list)
    for number in range(rounds):
        for name, (weight, shadow_share) in TRIALS.items():
            trial = asked.stretch(world.try_out(weight=weight, shadow_share=shadow_share), seconds)
            alone.append(asked.stretch(world.end_trial(), seconds))
            found[name].append(Comparison(trial=trial, beside=(alone[-2], alone[-1])))
        found["shadow_paced"].append(_paced(asked, world, seconds))
        sys.stderr.write(f"\r{number + 1} of {rounds} rounds")
    sys.stderr.write("\n")
    return found, alone


def _paced(asked: Replica, world: World, seconds: float) -> Comparison:
    """The shadow once more, while callers leave the replica time."""
    before = asked.stretch(world.end_trial(), seconds, pause_seconds=PAUSE_SECONDS)
    trial = asked.stretch(world.try_out(weight=0, shadow_share=100), seconds, pause_seconds=PAUSE_SECONDS)
    after = asked.stretch(world.end_trial(), seconds, pause_seconds=PAUSE_SECONDS)
    return Comparison(trial=trial, beside=(before, after))


def measure(quick: bool) -> dict[str, float]:  # noqa: FBT001
    """Every figure."""
    rounds, seconds = (2, 0.45) if quick else (20, 1.2)
    with tempfile.TemporaryDirectory(prefix="boucle-router-", ignore_cleanup_errors=True) as folder:
        world = World(Path(folder))
        world.promote(100)
        broken = crashing(world)
        load_average = os.getloadavg()[0]
        with replica(world) as asked:
            load(asked.port, asked.requests, connections=CONNECTIONS, seconds=0.5)
            found, alone = compare(asked, world, rounds=rounds, seconds=seconds)
            skipped = asked.metric("boucle_shadow_skipped_total")
            crash = asked.stretch(world.try_out(broken, weight=25), 1.0 if quick else 10.0)
        everything = [*alone, *(one.trial for trials in found.values() for one in trials)]
        return {
            "alone_per_second": round(statistics.median(one.per_second for one in alone)),
            "alone_p99_ms": round(statistics.median(one.p99_ms for one in alone), 3),
            "alone_cpu_microseconds": round(statistics.median(one.cpu_microseconds for one in alone), 1),
            **router_figures(found),
            **shadow_figures(world, found, skipped),
            **crash_figures(world, crash),
            "alone_cores": round(statistics.median(one.cores for one in alone), 2),
            "requests": sum(one.requests for one in everything),
            "failed_requests": sum(one.failed for one in everything),
            "comparisons": rounds,
            "load_average_before": round(load_average, 2),
        }


def router_figures(found: Mapping[str, Sequence[Comparison]]) -> dict[str, float]:
    """What drawing costs, and how much of the comparisons lay how near the median (the middle half)."""
    whole, little = found["at_25"], found["at_5"]
    low, _, high = statistics.quantiles((1 - one.throughput_ratio for one in whole), n=4, method="inclusive")
    return {
        "router_throughput_cost": round(1 - statistics.median(one.throughput_ratio for one in whole), 3),
        "router_throughput_cost_quarter": round(low, 3),
        "router_throughput_cost_three_quarters": round(high, 3),
        "router_throughput_cost_at_5": round(1 - statistics.median(one.throughput_ratio for one in little), 3),
        "router_p99_ms": round(statistics.median(one.p99_more_ms for one in whole), 3),
        "router_p99_ms_at_5": round(statistics.median(one.p99_more_ms for one in little), 3),
        "router_cpu_ratio": round(statistics.median(one.cpu_ratio for one in whole), 3),
        "router_cpu_ratio_at_5": round(statistics.median(one.cpu_ratio for one in little), 3),
        "challenger_share_at_25": round(_by_challenger(whole), 4),
        "challenger_share_at_5": round(_by_challenger(little), 4),
    }


def shadow_figures(world: World, found: Mapping[str, Sequence[Comparison]], skipped: float) -> dict[str, float]:
    """What shadows cost whoever is answered by production, and how many were scored."""
    full, paced = found["shadow"], found["shadow_paced"]
    asked = sum(one.trial.requests for one in [*full, *paced])
    return {
        "shadow_p99_ratio": round(statistics.median(one.p99_ratio for one in paced), 3),
        "shadow_paced_per_second": round(statistics.median(one.trial.per_second for one in paced)),
        "shadow_p99_ratio_at_full_load": round(statistics.median(one.p99_ratio for one in full), 3),
        "shadow_throughput_ratio": round(statistics.median(one.throughput_ratio for one in full), 3),
        "shadow_cpu_ratio": round(statistics.median(one.cpu_ratio for one in full), 3),
        "shadow_skipped_share": round(skipped / asked, 4),
        "shadow_scored_share": round(lines_with(world.settings.shadow_dir, b'"error":null') / asked, 4),
    }


def crash_figures(world: World, crash: Stretch) -> dict[str, float]:
    """What callers noticed of a challenger that fails, and that it did."""
    log = world.settings.log_dir
    failed, cut = lines_with(log, b'"fallback":"failed"'), lines_with(log, b'"fallback":"cut"')
    return {
        "crashing_challenger_failed_requests": crash.failed,
        "crashing_challenger_requests": crash.requests,
        "crashing_challenger_answered": crash.by_challenger,
        "crashing_challenger_noticed": failed + cut,
        "stalled": lines_with(log, b'"fallback":"stalled"'),
    }


def lines_with(log: Path, words: bytes) -> int:
    """How many records of a log have these words."""
    return sum(file.read_bytes().count(words) for file in log.rglob("*.jsonl"))


def _by_challenger(found: Sequence[Comparison]) -> float:
    return sum(one.trial.by_challenger for one in found) / sum(one.trial.requests for one in found)


def missed(found: Mapping[str, float]) -> list[str]:
    """Figures above their limit."""
    return [name for name, most in TARGETS.items() if not found[name] <= most]


def inconclusive(found: Mapping[str, float]) -> list[str]:
    """Figures within their limit that say nothing, because the machine was too busy."""
    return [name for name in TIMED if found["alone_cores"] < LEAST_CORES and name not in missed(found)]


def main() -> int:
    """Print a table, or JSON; the exit code is 1 when a limit was missed, 2 when none was but some say nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two short rounds instead of twenty")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.quick)
    over, unsure = missed(found), inconclusive(found)
    if arguments.json:
        print(json.dumps({**found, "targets": TARGETS, "missed": over, "inconclusive": unsure}, indent=1))
    else:
        table = Table("figure", "measured", "at most")
        for name, value in found.items():
            style = "red" if name in over else "yellow" if name in unsure else None
            table.add_row(name, f"{value:,g}", f"{TARGETS[name]:g}" if name in TARGETS else "", style=style)
        Console().print(table)
    if found["alone_cores"] < LEAST_CORES:
        sys.stderr.write(
            f"The replica had {found['alone_cores']:g} of a core where it should have {LEAST_CORES:g}: the machine was "
            "too busy to say what a trial costs. Measure again when it is quiet.\n"
        )
    return 1 if over else 2 if unsure else 0


if __name__ == "__main__":
    sys.exit(main())
