"""What Dagster costs: one loop pass (a month landed, features, candidate, report, alias, served), three ways.

    python benchmarks/loop.py [--repeats 3] [--json]

bare      the same steps called one after the other by a script, in one process, without Dagster
dagster   the jobs `repurchase_period` and `repurchase_retrain`, in process
sensor    the same, requested by the two sensors, evaluated with their real cursors

Each pass starts from a copy of one prepared home (1997-01 to 1997-04 landed, version 1 served by a running API) and
ends when the API answers with version 2. One process does all passes; each way has one pass before the clock starts, so
that imports and definitions count for none of them. Ways alternate; the table shows medians and ratios of one run.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from boucle.contracts.ids import ModelVersion
from boucle.contracts.verdict import Verdict
from boucle.operations import promotion
from boucle_adapters.home import Home
from boucle_adapters.replicas import wait_until_served
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli.demo.run import serving
from boucle_cli.demo.traffic import Caller, wait_for_version
from boucle_cli.services import free_port, running, wait_healthy
from boucle_platform.instance import Runner
from boucle_platform.model_loop import dbt_build, dbt_project
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import evaluation, features, landing, monitoring, training

PREPARED = ("1997-01", "1997-02", "1997-03", "1997-04")
MEASURED = "1997-05"
EXPECTED = ModelVersion(2)


@dataclass
class Pass:
    """One home with a running API, ready for one pass."""

    runner: Runner
    home: Home
    spec: LoopSpec
    caller: Caller


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    quiet_environment()
    with tempfile.TemporaryDirectory(prefix="boucle-benchmark-") as folder:
        prepared = prepare(Path(folder) / "prepared")
        seconds = measure(Path(folder), prepared, arguments.repeats)
    report(seconds, as_json=arguments.json)


def prepare(home: Path) -> Path:
    """A home with four months landed and version 1 in production."""
    runner, spec = Runner(Settings(home=home)), spec_of("repurchase")
    for key in PREPARED:
        landing.feed(runner.home, spec, key)
        expect(runner.run(f"{spec.model}_period", partition=key).succeeded, f"period {key}")
    expect(runner.run(f"{spec.model}_retrain").succeeded, "first retraining")
    return home


def measure(folder: Path, prepared: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds of every pass by way; the first pass of each way is not kept."""
    ways: dict[str, Callable[[Pass], None]] = {"bare": bare, "dagster": dagster, "sensor": sensor}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(repeats + 1):
        for name, way in ways.items():
            with ready(prepared, folder / f"{name}-{number}") as prepared_pass:
                start = time.perf_counter()
                way(prepared_pass)
                answered = wait_for_version(
                    prepared_pass.caller,
                    "00001",
                    prepared_pass.spec.period(MEASURED).end,
                    EXPECTED,
                    timeout=30,
                )
                spent = time.perf_counter() - start
                expect(answered, f"version {EXPECTED} served after the {name} pass")
                if number:
                    seconds[name].append(spent)
    return seconds


@contextmanager
def ready(prepared: Path, home: Path) -> Iterator[Pass]:
    """A copy of the prepared home with a running API."""
    shutil.copytree(prepared, home)
    settings = Settings(home=home)
    os.environ.update(dbt_project.dbt_environment(settings))
    api = serving(free_port(0))
    with running([api], logs=home / "logs", environment={"BOUCLE_HOME": str(home)}) as processes:
        wait_healthy(api, processes[0], logs=home / "logs")
        spec, runner = spec_of("repurchase"), Runner(settings)
        _ = runner.definitions
        caller = Caller("127.0.0.1", int(api.url.rsplit(":", 1)[1]), spec.name, spec.entity)
        served = wait_for_version(caller, "00001", spec.period(PREPARED[-1]).end, ModelVersion(1), timeout=30)
        expect(served, "version 1 served")
        yield Pass(runner, runner.home, spec, caller)
        caller.close()
    shutil.rmtree(home, ignore_errors=True)


def bare(ready_pass: Pass) -> None:
    """The steps, one after the other."""
    import mlflow

    home, spec = ready_pass.home, ready_pass.spec
    period = spec.period(MEASURED)
    landing.feed(home, spec, MEASURED)
    landing.load(home, spec, period)
    os.environ.update(
        BOUCLE_PERIOD_START=f"{period.start:%Y-%m-%d}",
        BOUCLE_PERIOD_END=f"{period.end:%Y-%m-%d}",
        BOUCLE_HORIZON_DAYS=str(spec.horizon_days),
    )
    with home.warehouse.lock():
        _, error = dbt_build.run_dbt([*dbt_build.SILENT, *dbt_build.BUILD])
    expect(not error, error)
    features.validate(home, spec, period)
    features.publish_online(home, spec, period)
    monitoring.collect_predictions(home, spec, period)
    monitoring.join_outcomes(home, spec, period)
    monitoring.live_performance(home, spec, period)
    monitoring.drift(home, spec, period)
    manifest, _ = training.assemble(home, spec)
    home.registry.ensure_experiment(spec.model)
    mlflow.set_tracking_uri(home.registry.tracking_uri)
    mlflow.set_experiment(spec.model)
    with mlflow.start_run():
        made = training.make_candidate(home, spec, manifest, "benchmark")
    evidence = evaluation.evaluate(home, spec, manifest, made.candidate, "benchmark").evidence
    expect(evidence.verdict is Verdict.PASSED, "gates of the bare pass")
    actor = home.actor("benchmark")
    promotion.promote(home.state, home.registry, evidence=evidence, policy=spec.promotion.mode, actor=actor)
    plan = promotion.start_traffic(home.state, spec.name, actor=actor)
    wait_until_served(home.state, spec.name, plan.revision, timeout_seconds=10, replica_timeout_seconds=3)


def dagster(ready_pass: Pass) -> None:
    """The two jobs."""
    landing.feed(ready_pass.home, ready_pass.spec, MEASURED)
    period = ready_pass.runner.run(f"{ready_pass.spec.model}_period", partition=MEASURED)
    expect(period.succeeded, period.error)
    retrain = ready_pass.runner.run(f"{ready_pass.spec.model}_retrain")
    expect(retrain.succeeded, retrain.error)


def sensor(ready_pass: Pass) -> None:
    """The sensors ask for the two jobs; retraining is run whatever drift says, as both other ways do."""
    runner, model = ready_pass.runner, ready_pass.spec.model
    landing.feed(ready_pass.home, ready_pass.spec, MEASURED)
    pending = True
    while pending:
        # The prepared home was loaded by jobs, so the sensor asks for its four files first: only the new one is run.
        requests = runner.tick(f"{model}_landing").run_requests or []
        pending = bool(requests) and requests[0].partition_key != MEASURED
    expect(len(requests) == 1, "the landing sensor asks for the new month")
    period = runner.run(f"{model}_period", partition=MEASURED, tags=requests[0].tags)
    expect(period.succeeded, period.error)
    runner.tick(f"{model}_drift")
    retrain = runner.run(f"{model}_retrain")
    expect(retrain.succeeded, retrain.error)


def report(seconds: dict[str, list[float]], *, as_json: bool) -> None:
    """Medians and ratios, as a table or as JSON."""
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {name: median / medians["bare"] for name, median in medians.items()}
    if as_json:
        value = {
            "ratio_to_bare_script": round(ratios["dagster"], 3),
            "ratio_from_sensor": round(ratios["sensor"], 3),
            "median_seconds": {name: round(median, 3) for name, median in medians.items()},
            "seconds": {name: [round(value, 3) for value in values] for name, values in seconds.items()},
        }
        print(json.dumps(value, indent=1))
        return
    table = Table(title="One loop pass, from the landed month to the new version's answer", title_justify="left")
    for column in ("way", "median seconds", "all", "ratio to the bare script"):
        table.add_column(column)
    for name, values in seconds.items():
        passes = ", ".join(f"{value:.2f}" for value in values)
        table.add_row(name, f"{medians[name]:.2f}", passes, f"{ratios[name]:.2f}")
    Console().print(table)


def expect(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Stop when a pass did not do what it is measured for."""
    if not condition:
        raise SystemExit(f"The benchmark is void: {what}.")


if __name__ == "__main__":
    main()
