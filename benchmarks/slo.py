"""How soon callers see the previous version once a served one misses its objectives: by the replicas, by the sensor.

Two serving processes answer callers without a pause. A version is promoted that passed its warm-up and goes wrong on
what callers ask then: it fails for half of the customers, says the same to everybody, or is slow. Counted are the
seconds from its first wrong (failed, equal, slow) answer until the last caller's first answer by the version before.
Once with the guard inside the replicas, and once without it, by the sensor in Dagster's own daemon.

    python benchmarks/slo.py [--quick] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from mlflow import MlflowClient
from rich.console import Console
from rich.table import Table
from sklearn.linear_model import LogisticRegression

from boucle.contracts.bundle import BundleContract, FeatureSpec, OutputSpec
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.traffic_plan import Arm, NewPlan, Role, Strategy
from boucle.training.bundle import bundle_files
from boucle_adapters.clock import wall_now
from boucle_adapters.home import Home
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.settings import Settings
from boucle_cli.demo.spoilt import Fault, spoilt_bundle
from boucle_cli.demo.traffic import Caller, Tally
from boucle_cli.services import Service, free_ports, python, running, tool, wait_healthy
from boucle_platform.instance import Runner, prepare_dagster_home
from boucle_platform.model_loop.guard import Watch

MODEL, SENSOR = ModelName("repurchase"), "repurchase_guard"
REPLICAS, CALLERS, CUSTOMERS = 2, 6, 2_000
PROMPT = ServiceObjectives(slow_seconds=0.005)
"""As the defaults, but slow is what the spoilt version is: some ten milliseconds."""
TIMEOUT_SECONDS = 60.0
_SETTLED_SECONDS = 0.3
"""Once every replica follows, each caller has asked again within this."""
FAILED = "failed"
TARGETS = {"replica_seconds_max": 1.0, "sensor_seconds_max": 10.0}


class Shop:
    """A home with a sound version in production, customers with features, and bundles that are spoilt."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder, default_model=MODEL)
        self.home = Home(self.settings)
        self.as_of = wall_now().replace(hour=0, minute=0, second=0, microsecond=0)
        random = np.random.default_rng(7)
        self.features = random.normal(size=(CUSTOMERS, 2)).round(3) * (3, 1)
        labels = random.random(CUSTOMERS) < 1 / (1 + np.exp(-self.features[:, 0]))
        publish_snapshot(
            self.settings.online_dir / MODEL,
            entity_keys=[str(number) for number in range(CUSTOMERS)],
            as_of=[self.as_of] * CUSTOMERS,
            features=self.features,
            feature_names=["orders", "recency_days"],
            watermark=self.as_of + timedelta(days=1),
            source_digests=[],
        )
        self.sound = self._stored(LogisticRegression().fit(self.features, labels), folder / "sound")
        self.spoilt = {
            fault: spoilt_bundle(self.home, MODEL, self.sound, fault, asked=self.features)
            for fault in (Fault.CRASHING, Fault.CONSTANT, Fault.SLOW)
        }
        half = np.median(self.features[:, 0])
        self.harmless = [str(number) for number in range(CUSTOMERS) if self.features[number, 0] <= half]
        self.harmed = [str(number) for number in range(CUSTOMERS) if self.features[number, 0] > half]
        self.registry = MlflowClient(tracking_uri=self.home.registry.tracking_uri)
        self.registry.create_registered_model(MODEL)

    def promote(self, digest: Digest, objectives: ServiceObjectives) -> ModelVersion:
        """Make a bundle production, for everybody at once; the version that was it stands by."""
        made = self.registry.create_model_version(MODEL, str(self.settings.home_dir))
        version, before = ModelVersion(int(made.version)), self.home.state.plan(MODEL)
        arms = [Arm(version=version, bundle_digest=digest, weight=100, role=Role.PRODUCTION)]
        if before:
            arms.append(before.production.model_copy(update={"weight": 0, "role": Role.STANDBY}))
        was = before.production.version if before else None
        new = NewDecision(
            kind=DecisionKind.PROMOTE,
            model=MODEL,
            at=wall_now(),
            actor="benchmark",
            reason="benchmark",
            from_version=was,
            to_version=version,
            bundle_digest=digest,
        )
        plan = NewPlan(strategy=Strategy.DIRECT, arms=tuple(arms), service=objectives)
        self.home.state.record_with_plan(new, expected_production=was, plan=plan)
        return version

    def _stored(self, estimator: LogisticRegression, directory: Path) -> Digest:
        contract = BundleContract(
            model=MODEL,
            entity="user_id",
            features=tuple(FeatureSpec(name=n, dtype="float64", nullable=True) for n in ("orders", "recency_days")),
            output=OutputSpec(description="orders again"),
            max_feature_age_days=45,
        )
        names = [str(number) for number in range(CUSTOMERS)]
        directory.mkdir()
        for name, content in bundle_files(estimator, contract, rows=self.features, entities=names).items():
            (directory / name).write_bytes(content)
        return self.home.bundles.put(directory, MODEL)


@dataclass
class Load:
    """A caller that asks one customer after the other, of those it is told, and when what it gets changed."""

    port: int
    shop: Shop
    asked: Sequence[str]
    changes: list[tuple[float, str]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until told to end."""
        caller, number = Caller("127.0.0.1", self.port, MODEL, "user_id"), 0
        while not self.ended.is_set():
            number += 1
            answer = caller.answer(self.asked[number % len(self.asked)], self.shop.as_of, Tally())
            what = FAILED if answer is None else str(answer.version)
            if what != self.gets:
                self.changes.append((time.monotonic(), what))
        caller.close()

    @property
    def gets(self) -> str:
        """The version that answers it, or that its requests fail."""
        return self.changes[-1][1] if self.changes else ""

    def first(self, what: str, after: float) -> float | None:
        """When it first got something after a moment."""
        return next((at for at, found in self.changes if found == what and at > after), None)


@contextmanager
def serving(shop: Shop, *, with_guard: bool) -> Iterator[list[Load]]:
    """Replicas, and callers on each of them."""
    ports = free_ports([0] * REPLICAS)
    services = [
        Service(
            name=f"replica-{number}",
            command=[python(), "-m", "boucle_serving.main"],
            url="",
            health=f"http://127.0.0.1:{port}/readyz",
            environment={
                "BOUCLE_PORT": str(port),
                "BOUCLE_REPLICA": f"replica-{number}",
                "BOUCLE_REPLICA_GUARD": str(with_guard),
            },
        )
        for number, port in enumerate(ports, start=1)
    ]
    logs = shop.settings.home_dir / "logs"
    with running(services, logs=logs, environment={"BOUCLE_HOME": str(shop.settings.home_dir)}) as processes:
        for service, process in zip(services, processes, strict=True):
            wait_healthy(service, process, logs=logs)
        loads = [Load(port, shop, shop.harmless) for port in ports for _ in range(CALLERS)]
        threads = [threading.Thread(target=load.run, daemon=True) for load in loads]
        for thread in threads:
            thread.start()
        try:
            yield loads
        finally:
            for load in loads:
                load.ended.set()
            for thread in threads:
                thread.join(timeout=30)


def wait_until(claim: Callable[[], object], what: str, *, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + seconds
    while not claim():
        if time.monotonic() > deadline:
            raise SystemExit(f"It did not happen in {seconds:g} s: {what}.")
        time.sleep(0.002)


def one_breach(
    shop: Shop, loads: list[Load], fault: Fault, objectives: ServiceObjectives, ready: Callable[[], object]
) -> float:
    """Promote a spoilt version, let it go wrong, and wait for the version before; seconds until all callers have it."""
    sound, start = shop.home.state.production(MODEL), time.monotonic()
    for load in loads:
        load.asked = shop.harmless if fault is Fault.CRASHING else shop.harmless + shop.harmed
    bad = shop.promote(shop.spoilt[fault], objectives)
    if fault is Fault.CRASHING:  # it answers well for a while
        wait_until(lambda: all(load.gets == str(bad) for load in loads), f"version {bad} answers")
        wait_until(ready, "the guard has looked at it")
        for load in loads:
            load.asked = shop.harmed
    wait_until(lambda: shop.home.state.production(MODEL) == sound, f"{fault} is undone")
    wait_until(lambda: all_follow(shop), "every replica follows")
    time.sleep(_SETTLED_SECONDS)
    wrong = FAILED if fault is Fault.CRASHING else str(bad)
    began = min(at for load in loads if (at := load.first(wrong, start)) is not None)
    return max(load.first(str(sound), began) or began for load in loads) - began


def all_follow(shop: Shop) -> bool:
    """Whether every replica says that it serves the newest plan."""
    plan = shop.home.state.plan(MODEL)
    live = shop.home.state.replicas(max_age_seconds=shop.settings.replica_timeout_seconds)
    return plan is not None and len(live) == REPLICAS and all(r.get(MODEL) == plan.revision for r in live.values())


def by_replicas(shop: Shop, times: int) -> dict[Fault, list[float]]:
    """Each fault so many times, with the guard inside the replicas."""
    with serving(shop, with_guard=True) as loads:
        return {
            fault: [one_breach(shop, loads, fault, PROMPT, lambda: True) for _ in range(times)] for fault in shop.spoilt
        }


def by_sensor(shop: Shop, times: int) -> list[float]:
    """Failing versions, with the sensor alone, in Dagster's daemon."""
    prepare_dagster_home(shop.settings)
    home = shop.settings.home_dir
    environment = {"BOUCLE_HOME": str(home), "DAGSTER_HOME": str(shop.settings.dagster_home)}
    workspace = ("-w", str(shop.settings.project_dir / "workspace.yaml"))
    start = [tool("dagster"), "sensor", "start", *workspace, SENSOR]
    subprocess.run(start, env={**os.environ, **environment}, check=True, capture_output=True)
    daemon = Service(name="daemon", command=[tool("dagster-daemon"), "run", *workspace], url="", health="")
    runner = Runner(shop.settings)

    def has_looked() -> bool:
        """Whether the sensor has counted what the newest version answered, twice."""
        states = [state for state in runner.instance.all_instigator_state() if state.name == SENSOR]
        data = states[0].instigator_data if states else None
        watch = Watch.read(getattr(data, "cursor", None))
        return watch.decision == shop.home.state.decisions(MODEL)[-1].decision_id and len(watch.history) > 1

    with (
        serving(shop, with_guard=False) as loads,
        running([daemon], logs=home / "logs", environment=environment),
    ):
        return [one_breach(shop, loads, Fault.CRASHING, PROMPT, has_looked) for _ in range(times)]


def measure(folder: Path, *, quick: bool) -> dict[str, object]:
    """Everything."""
    shop = Shop(folder)
    shop.promote(shop.sound, PROMPT)
    replicas = by_replicas(shop, 3 if quick else 10)
    sensor = by_sensor(shop, 2 if quick else 6)
    every = sorted(seconds for found in replicas.values() for seconds in found)
    return {
        **{f"replica_{fault}_seconds": [round(s, 3) for s in found] for fault, found in replicas.items()},
        "replica_seconds_median": round(statistics.median(every), 3),
        "replica_seconds_p90": round(float(np.quantile(every, 0.9)), 3),
        "replica_seconds_max": round(every[-1], 3),
        "sensor_seconds": [round(seconds, 2) for seconds in sensor],
        "sensor_seconds_median": round(statistics.median(sensor), 2),
        "sensor_seconds_max": round(max(sensor), 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def main() -> int:
    """Print a table, or JSON; the exit code is 1 when a target was missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="fewer breaches of each kind")
    arguments.add_argument("--json", action="store_true")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="boucle-slo-") as folder:
        found = measure(Path(folder), quick=chosen.quick)
    missed = [name for name, most in TARGETS.items() if float(str(found[name])) > most]
    if chosen.json:
        sys.stdout.write(json.dumps({**found, "targets": TARGETS, "missed": missed}, indent=1) + "\n")
    else:
        table = Table("figure", "measured", "at most")
        for name, value in found.items():
            table.add_row(name, str(value), str(TARGETS.get(name, "")))
        Console().print(table)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
