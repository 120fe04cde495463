"""How long a rollback takes with several replicas under load, and whether a request fails meanwhile.

`boucle demo --until 1997-06` makes a home with two promoted versions of `repurchase`. Three serving processes answer
two callers each without a pause while `boucle rollback` puts one version back, then the other, several times. Measured:
the seconds in the ledger (commit to the last replica's first answer by the version that is back), as the callers
see it, and the whole command.

    python benchmarks/rollback.py [--quick] [--json] [--home PATH]
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
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelName, ModelVersion
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.sql_state import SqlStateStore
from boucle_cli.demo.traffic import Caller, Tally
from boucle_cli.services import Service, free_ports, python, running, tool, wait_healthy

MODEL, LAST = ModelName("repurchase"), "1997-06"
ENTITY = "00004"
REPLICAS, CALLERS, TIMES = 3, 2, 10
TARGETS = {"ledger_seconds_max": 1.0, "failed_requests": 0}


@dataclass
class Load:
    """One caller that asks without a pause, and when it saw each change of version."""

    port: int
    as_of: datetime
    tally: Tally = field(default_factory=Tally)
    changes: list[tuple[float, ModelVersion]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until told to end."""
        caller, seen = Caller("127.0.0.1", self.port, MODEL, "user_id"), None
        while not self.ended.is_set():
            version = caller.ask(ENTITY, self.as_of, self.tally)
            if version is not None and version != seen:
                self.changes.append((time.monotonic(), version))
                seen = version
        caller.close()


def prepared(home: Path) -> None:
    """Two promoted versions, made by the demo."""
    if not (home / "state.db").exists():
        words = [tool("boucle"), "demo", "--until", LAST]
        subprocess.run(words, env=environment(home), check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def environment(home: Path, **more: str) -> dict[str, str]:
    """Of a process that works on this home."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOUCLE_")}
    return {**clean, "BOUCLE_HOME": str(home), **more}


@contextmanager
def replicas(home: Path, count: int) -> Iterator[list[int]]:
    """So many serving processes of one home; their ports, once each answers."""
    ports = free_ports([0] * count)
    services = [
        Service(
            name=f"replica-{number}",
            command=[python(), "-m", "boucle_serving.main"],
            url=f"http://127.0.0.1:{port}",
            health=f"http://127.0.0.1:{port}/readyz",
            environment={"BOUCLE_PORT": str(port), "BOUCLE_REPLICA": f"replica-{number}"},
        )
        for number, port in enumerate(ports, start=1)
    ]
    logs = home / "logs"
    with running(services, logs=logs, environment={"BOUCLE_HOME": str(home)}) as processes:
        for service, process in zip(services, processes, strict=True):
            wait_healthy(service, process, logs=logs)
        yield ports


@contextmanager
def load(ports: list[int], as_of: datetime) -> Iterator[list[Load]]:
    """Callers on every replica."""
    loads = [Load(port, as_of) for port in ports for _ in range(CALLERS)]
    threads = [threading.Thread(target=one.run, daemon=True) for one in loads]
    for thread in threads:
        thread.start()
    try:
        yield loads
    finally:
        for one in loads:
            one.ended.set()
        for thread in threads:
            thread.join(timeout=30)


def promoted(store: SqlStateStore) -> list[ModelVersion]:
    """Versions that were production, oldest first."""
    rows = [row.decision for row in store.decisions(MODEL) if row.decision.kind is DecisionKind.PROMOTE]
    return sorted({row.to_version for row in rows if row.to_version is not None})


def one_rollback(home: Path, store: SqlStateStore, loads: list[Load], to: ModelVersion) -> dict[str, float]:
    """Roll back once, through the command."""
    started, known = time.monotonic(), len(store.decisions(MODEL))
    words = [tool("boucle"), "rollback", MODEL, "--to", str(to), "--reason", "benchmark", "--json"]
    process = subprocess.Popen(words, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    committed = time.monotonic()
    while len(store.decisions(MODEL)) == known and process.poll() is None:
        committed = time.monotonic()
    said, errors = process.communicate(timeout=120)
    whole = time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"the rollback failed: {said}{errors}")
    first = [next(at for at, version in reversed(one.changes) if version == to) for one in loads]
    return {
        "ledger_seconds": json.loads(said)["seconds_until_served"],
        "seen_seconds": max(first) - committed,
        "command_seconds": whole,
    }


def measure(home: Path, times: int) -> dict[str, object]:
    """Everything."""
    prepared(home)
    store = SqlStateStore.open(f"sqlite:///{home / 'state.db'}")
    versions = promoted(store)[-2:]
    if len(versions) < 2:
        raise SystemExit(f"The demo promoted fewer than two versions in {home}.")
    runs = []
    with ExitStack() as stack:
        ports = stack.enter_context(replicas(home, REPLICAS))
        online = OnlineStore(home / "online" / MODEL)
        online.refresh()
        as_of = online.snapshot.manifest.watermark
        loads = stack.enter_context(load(ports, as_of))
        while not all(one.changes for one in loads):
            if failures := {words for one in loads for words in one.tally.failures}:
                raise SystemExit(f"Requests fail before anything is rolled back: {failures}")
        for number in range(times):
            production = store.production(MODEL)
            to = next(version for version in versions if version != production)
            runs.append(one_rollback(home, store, loads, to))
            sys.stderr.write(f"\r{number + 1} of {times}")
        time.sleep(0.5)
    sys.stderr.write("\n")
    ledger = [run["ledger_seconds"] for run in runs]
    return {
        "ledger_seconds_median": round(statistics.median(ledger), 3),
        "ledger_seconds_max": round(max(ledger), 3),
        "seen_seconds_max": round(max(run["seen_seconds"] for run in runs), 3),
        "command_seconds_median": round(statistics.median(run["command_seconds"] for run in runs), 2),
        "replicas": REPLICAS,
        "rollbacks": len(runs),
        "requests": sum(one.tally.served for one in loads),
        "failed_requests": sum(one.tally.failed for one in loads),
        "failures": sorted({words for one in loads for words in one.tally.failures}),
    }


def main() -> int:
    """Print a table, or JSON; the exit code is 1 when a target was missed."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--quick", action="store_true", help="three rollbacks instead of ten")
    arguments.add_argument("--json", action="store_true")
    arguments.add_argument("--home", type=Path, help="a home with two promoted versions; made when missing")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="boucle-rollback-") as folder:
        home = (chosen.home or Path(folder) / "home").absolute()
        found = measure(home, 3 if chosen.quick else TIMES)
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
