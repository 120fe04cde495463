"""What Dagster costs: one loop pass (a month landed, features, candidate, report, alias, served), three ways.

    python benchmarks/loop.py [--repeats 3] [--daemon] [--json]

bare      the same steps called one after the other by a script, in one process, without Dagster
dagster   the jobs `repurchase_period` and `repurchase_retrain`, in process
sensor    the same two jobs, each requested by its sensor, which is evaluated with the cursor it left before
daemon    with --daemon, once: Dagster's own daemon with both sensors on, from the file's appearance to the answer

Each pass starts from a copy of the same prepared home (1997-01 to 1997-04 landed, version 1 promoted, 2,000 predictions
served by it) beside a running API, and ends when that API answers with version 2. One process does all passes except
the daemon's. The first pass of each way is not counted, and definitions are loaded before the clock starts, so imports
and definitions count for none of the three; the daemon's runs are processes of their own and pay for both. The order of
the ways turns around from repeat to repeat. CPU seconds are those of the measuring process: a busy machine changes them
less than it changes the clock.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from boucle.contracts.ids import ModelVersion
from boucle.contracts.verdict import Verdict
from boucle.operations import promotion, traffic
from boucle_adapters.home import Home
from boucle_adapters.replicas import wait_until_served
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli.demo.run import serving
from boucle_cli.demo.traffic import Caller, send, wait_for_version
from boucle_cli.services import Service, free_port, running, tool, wait_healthy
from boucle_platform.instance import Runner
from boucle_platform.model_loop import dbt_build, dbt_project
from boucle_platform.model_loop.automation import period_job_name, retrain_job_name
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import (
    evaluation,
    features,
    ground_truth,
    landing,
    monitoring,
    performance,
    prediction_log,
    quarantine,
    skew,
    training,
)

PREPARED = ("1997-01", "1997-02", "1997-03", "1997-04")
MEASURED = "1997-05"
EXPECTED = ModelVersion(2)
REQUESTS = 2_000
AROUND = "Dagster around the steps"
DAEMON_TIMEOUT_SECONDS = 240


@dataclass
class Pass:
    """One home with a running API, ready for one pass, and the seconds of each stage of it."""

    runner: Runner
    home: Home
    spec: LoopSpec
    caller: Caller
    stages: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the pass."""
        start = time.perf_counter()
        yield
        self.add(name, time.perf_counter() - start)

    def add(self, name: str, seconds: float) -> None:
        """Count seconds for a stage."""
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    def run(self, job: str, *, partition: str | None = None, tags: Mapping[str, str] | None = None) -> None:
        """Run a job that has to end well; its steps are stages, and what is left over is Dagster's."""
        start = time.perf_counter()
        done = self.runner.run(job, partition=partition, tags=tags)
        spent = time.perf_counter() - start
        expect(done.succeeded, f"{job}: {done.error}")
        for step in self.runner.instance.get_run_step_stats(done.run_id):
            seconds = (step.end_time or 0.0) - (step.start_time or 0.0)
            self.add(step.step_key.removeprefix(f"{self.spec.model}__").removeprefix(f"{self.spec.model}_"), seconds)
            spent -= seconds
        self.add(AROUND, spent)

    def served(self) -> None:
        """Wait for the first answer of the new version."""
        end = self.spec.period(MEASURED).end
        with self.stage("served"):
            answered = wait_for_version(self.caller, "00001", end, EXPECTED, timeout=30)
        expect(answered, f"version {EXPECTED} was never served")


@dataclass
class Figures:
    """What the counted passes of one way took."""

    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    stages: list[dict[str, float]] = field(default_factory=list)

    def median_stages(self) -> dict[str, float]:
        """The median of each stage."""
        names = {name: None for stages in self.stages for name in stages}
        return {name: statistics.median(stages.get(name, 0.0) for stages in self.stages) for name in names}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--daemon", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for name in [name for name in os.environ if name.startswith(("BOUCLE_", "DAGSTER_"))]:
        del os.environ[name]
    quiet_environment()
    with tempfile.TemporaryDirectory(prefix="boucle-benchmark-", ignore_cleanup_errors=True) as folder:
        prepared = prepare(Path(folder) / "prepared")
        figures = measure(Path(folder), prepared, arguments.repeats)
        daemon = through_the_daemon(prepared, Path(folder) / "daemon") if arguments.daemon else None
    report(figures, daemon, as_json=arguments.json)


def judge_drift(runner: Runner, spec: LoopSpec) -> None:
    """Evaluate the drift sensor; what it requests is not executed."""
    with runner.tick(f"{spec.model}_drift"):
        pass


def prepare(home: Path) -> Path:
    """A home with four months landed by the landing sensor, version 1 in production, and a month of its answers."""
    runner, spec = Runner(Settings(home=home)), spec_of("repurchase")
    for key in PREPARED:
        landing.feed(runner.home, spec, key)
        with runner.tick(f"{spec.model}_landing") as (request,):
            done = runner.run_requested(period_job_name(spec), request)
            expect(done.succeeded, f"period {key}: {done.error}")
        if key != PREPARED[-1]:
            judge_drift(runner, spec)
    expect(runner.run(retrain_job_name(spec)).succeeded, "first retraining")
    judge_drift(runner, spec)
    with api_of(home) as caller:
        end = spec.period(PREPARED[-1]).end
        expect(wait_for_version(caller, "00001", end, ModelVersion(1), timeout=30), "version 1 served")
        entities = features.known_entities(runner.home, spec, spec.period(PREPARED[-1]))[:REQUESTS]
        tally = send(caller, entities, end)
        expect(tally.failed == 0, f"requests answered: {tally.failures}")
    close(runner)
    return home


def measure(folder: Path, prepared: Path, repeats: int) -> dict[str, Figures]:
    """Seconds of every pass by way; the first pass of each way is not kept."""
    ways: dict[str, Callable[[Pass], None]] = {"bare": bare, "dagster": dagster, "sensor": sensor}
    figures = {name: Figures() for name in ways}
    for number in range(repeats + 1):
        for name in list(ways) if number % 2 else reversed(ways):
            with ready(prepared, folder / f"{name}-{number}") as one:
                start, cpu = time.perf_counter(), time.process_time()
                ways[name](one)
                one.served()
                seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
                if number:
                    figures[name].seconds.append(seconds)
                    figures[name].cpu_seconds.append(cpu_seconds)
                    figures[name].stages.append(one.stages)
    return figures


@contextmanager
def ready(prepared: Path, home: Path) -> Iterator[Pass]:
    """A copy of the prepared home with a running API that answers with version 1, everything opened."""
    shutil.copytree(prepared, home)
    settings, spec = Settings(home=home), spec_of("repurchase")
    with api_of(home) as caller:
        runner = Runner(settings)
        os.environ.update(dbt_project.dbt_environment(settings))
        _ = runner.definitions
        runner.home.registry.versions(spec.name)
        served = wait_for_version(caller, "00001", spec.period(PREPARED[-1]).end, ModelVersion(1), timeout=30)
        expect(served, "version 1 served")
        yield Pass(runner, runner.home, spec, caller)
    close(runner)
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def api_of(home: Path) -> Iterator[Caller]:
    """A running API of a home, and a connection to it."""
    api, spec = serving(free_port(0)), spec_of("repurchase")
    with running([api], logs=home / "logs", environment={"BOUCLE_HOME": str(home)}) as processes:
        wait_healthy(api, processes[0], logs=home / "logs")
        caller = Caller("127.0.0.1", int(api.url.rsplit(":", 1)[1]), spec.name, spec.entity)
        yield caller
        caller.close()


def bare(one: Pass) -> None:
    """The steps, one after the other."""
    home, spec, period = one.home, one.spec, one.spec.period(MEASURED)
    with one.stage("landing"):
        landing.feed(home, spec, MEASURED)
    with one.stage("raw_orders"):
        landing.load(home, spec, "orders", period)
    (window,) = landing.windows(home, spec, [period])
    with one.stage("dbt"), home.warehouse.lock():
        os.environ.update(dbt_project.window_environment(window, horizon_days=spec.horizon_days))
        select = ("--select", f"fqn:boucle_features.{spec.model}")
        _, error = dbt_build.run_dbt([*dbt_build.SILENT, *dbt_build.BUILD, *select])
        expect(not error, error)
    with one.stage("validated_features"):
        features.validate(home, spec, period)
    with one.stage("quarantine"):
        quarantine.quarantine_counts(home, spec, period.key)
    with one.stage("online_features"):
        features.publish_online(home, spec, period)
    with one.stage("prediction_log"):
        prediction_log.collect_predictions(home, spec, [period])
        skew.training_serving_skew(home, spec, period)
    with one.stage("ground_truth"):
        ground_truth.join_outcomes(home, spec, [period])
    with one.stage("live_performance"):
        performance.live_performance(home, spec, [period])
    with one.stage("drift_report"):
        monitoring.drift(home, spec, period)
    bare_retraining(one)


def bare_retraining(one: Pass) -> None:
    """From the training set to traffic."""
    import mlflow

    home, spec, actor = one.home, one.spec, one.home.actor("benchmark", one.spec.name)
    with one.stage("training_set"):
        manifest = training.assemble(home, spec)
    with one.stage("candidate_model"):
        home.registry.ensure_experiment(spec.model)
        mlflow.set_tracking_uri(home.registry.tracking_uri)
        mlflow.set_experiment(spec.model)
        with mlflow.start_run():
            candidate = training.make_candidate(home, spec, manifest, "benchmark").candidate
    with one.stage("evaluation_report"):
        evidence = evaluation.evaluate(home, spec, manifest, candidate, "benchmark").evidence
        expect(evidence.verdict is Verdict.PASSED, "gates of the bare pass")
    with one.stage("production_alias"):
        promotion.promote(home.state, home.registry, evidence=evidence, policy=spec.promotion, actor=actor)
    with one.stage("traffic_plan"):
        plan = traffic.start_traffic(home.state, spec.name, policy=spec.traffic, actor=actor)
        timeout = home.settings.replica_timeout_seconds
        followed = wait_until_served(
            home.state, spec.name, plan.revision, timeout_seconds=10, replica_timeout_seconds=timeout
        )
        traffic.note_served(home.state, plan, seconds=followed.seconds, actor=actor)


def dagster(one: Pass) -> None:
    """The two jobs."""
    with one.stage("landing"):
        landing.feed(one.home, one.spec, MEASURED)
    one.run(period_job_name(one.spec), partition=MEASURED)
    one.run(retrain_job_name(one.spec))


def sensor(one: Pass) -> None:
    """Each sensor asks for its job."""
    with one.stage("landing"):
        landing.feed(one.home, one.spec, MEASURED)
    for job, partition in ((period_job_name(one.spec), MEASURED), (retrain_job_name(one.spec), None)):
        name = f"{one.spec.model}_{'landing' if partition else 'drift'}"
        with ExitStack() as stack:
            with one.stage("sensors"):
                requests = stack.enter_context(one.runner.tick(name))
            expect([request.partition_key for request in requests] == [partition], f"{name} asks for {job}")
            one.run(job, partition=partition, tags=requests[0].tags)


def through_the_daemon(prepared: Path, home: Path) -> float:
    """Seconds from the landing file's appearance to the new version's answer, with Dagster's daemon in charge."""
    shutil.copytree(prepared, home)
    spec, settings = spec_of("repurchase"), Settings(home=home)
    workspace = ("-w", str(settings.project_dir / "workspace.yaml"))
    environment = {"BOUCLE_HOME": str(home), "DAGSTER_HOME": str(settings.dagster_home)}
    for name in (f"{spec.model}_landing", f"{spec.model}_drift"):
        cursor = home / "cursors" / name
        known = [("cursor", name, "--set", cursor.read_text())] if cursor.exists() else []
        for words in (*known, ("start", name)):
            command = [tool("dagster"), "sensor", words[0], *workspace, *words[1:]]
            subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True)
    daemon = Service(name="daemon", command=[tool("dagster-daemon"), "run", *workspace], url="", health="")
    with api_of(home) as caller, running([daemon], logs=home / "logs", environment=environment):
        runner = Runner(settings)
        wait_for_a_tick(runner, DAEMON_TIMEOUT_SECONDS)
        start = time.perf_counter()
        landing.feed(runner.home, spec, MEASURED)
        end = spec.period(MEASURED).end
        answered = wait_for_version(caller, "00001", end, EXPECTED, timeout=DAEMON_TIMEOUT_SECONDS)
        seconds = time.perf_counter() - start
        expect(answered, f"version {EXPECTED} was never served through the daemon")
    close(runner)
    return seconds


def wait_for_a_tick(runner: Runner, timeout: float) -> None:
    """Until the daemon has evaluated both sensors once: it is warm, and has nothing to do."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        states = runner.instance.all_instigator_state()
        ticks = [runner.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1) for state in states]
        if states and all(ticks):
            return
        time.sleep(0.2)
    expect(condition=False, what="the daemon evaluates its sensors")


def report(figures: dict[str, Figures], daemon: float | None, *, as_json: bool) -> None:
    """Medians and ratios, as tables or as JSON."""
    medians = {name: statistics.median(way.seconds) for name, way in figures.items()}
    cpu = {name: statistics.median(way.cpu_seconds) for name, way in figures.items()}
    stages = {name: way.median_stages() for name, way in figures.items()}
    if as_json:
        value = {
            "ratio_to_bare_script": round(medians["dagster"] / medians["bare"], 3),
            "ratio_from_sensor": round(medians["sensor"] / medians["bare"], 3),
            "cpu_ratio_to_bare_script": round(cpu["dagster"] / cpu["bare"], 3),
            "cpu_ratio_from_sensor": round(cpu["sensor"] / cpu["bare"], 3),
            "median_seconds": rounded(medians),
            "median_cpu_seconds": rounded(cpu),
            "seconds": {name: [round(value, 3) for value in way.seconds] for name, way in figures.items()},
            "stage_seconds": {name: rounded(values) for name, values in stages.items()},
            "daemon_seconds": None if daemon is None else round(daemon, 3),
            "load_average": round(os.getloadavg()[0], 1),
        }
        print(json.dumps(value, indent=1))
        return
    console = Console()
    table = Table(title="One loop pass, from the landed month to the new version's answer", title_justify="left")
    for column in ("way", "median s", "all", "ratio to bare", "CPU s", "CPU ratio"):
        table.add_column(column)
    for name, way in figures.items():
        passes = ", ".join(f"{value:.2f}" for value in way.seconds)
        ratios = (f"{medians[name] / medians['bare']:.2f}", f"{cpu[name]:.2f}", f"{cpu[name] / cpu['bare']:.2f}")
        table.add_row(name, f"{medians[name]:.2f}", passes, *ratios)
    if daemon is not None:
        table.add_row("daemon", f"{daemon:.2f}", "once", f"{daemon / medians['bare']:.2f}", "", "")
    console.print(table)
    parts = Table(title="Median seconds of each stage", title_justify="left")
    for column in ("stage", *stages):
        parts.add_column(column)
    for stage in {name: None for way in reversed(stages.values()) for name in way}:
        parts.add_row(stage, *(f"{stages[way][stage]:.2f}" if stage in stages[way] else "–" for way in stages))
    console.print(parts)


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """To the millisecond."""
    return {name: round(value, 3) for name, value in values.items()}


def close(runner: Runner) -> None:
    """Let go of a home."""
    runner.home.state.close()
    runner.instance.dispose()


def expect(condition: bool, what: str) -> None:  # noqa: FBT001 - reads as a sentence
    """Stop when a pass did not do what it is measured for."""
    if not condition:
        raise SystemExit(f"The benchmark is void: {what}.")


if __name__ == "__main__":
    main()
