"""Is every answered prediction in the log, whenever its process is killed?

    python benchmarks/crash.py [--kills 100] [--json]

Two workers share an address; callers ask both without a pause, and again and again one of the two is killed by SIGKILL
at a random moment. What callers were told is then held against the log: an answer that is not in it was lost, a record
that is in it twice counts once, a torn line is one whose answer never left.
"""

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track
from serving_world import MODEL, World  # type: ignore[import-not-found]

from boucle_adapters.clock import wall_now
from boucle_adapters.segment_log import SegmentLog
from boucle_cli.services import free_port

CALLERS, WORKERS, SEED = 4, 2, 7
START_SECONDS = 60.0


class Caller(threading.Thread):
    """Asks one question after the other over one connection; a connection that breaks is opened again."""

    def __init__(self, port: int, entities: list[str], over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.answered: list[str] = []
        self.broken = 0
        self._port = port
        self._entities = entities
        self._over = over

    def run(self) -> None:
        """Ask until told to end."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        while not self._over.is_set():
            body = json.dumps({"entity": random.choice(self._entities), "as_of": "2026-01-01"})
            try:
                connection.request("POST", "/predict", body)
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError):
                self.broken += 1
                connection.close()
                continue
            if answer.status == http.HTTPStatus.OK:
                self.answered.append(said["prediction_id"])
        connection.close()


def pids(home: Path) -> dict[str, int]:
    """The workers that answer, by name."""
    found = {}
    for file in home.glob("serving-benchmark.*.json"):
        try:
            found[file.stem] = int(json.loads(file.read_text())["pid"])
        except (OSError, ValueError):  # it is being replaced
            continue
    return found


def wait_for_all(home: Path) -> dict[str, int]:
    """The workers, once all of them answer."""
    deadline = time.monotonic() + START_SECONDS
    while len(found := pids(home)) < WORKERS:
        if time.monotonic() > deadline:
            raise SystemExit(f"Only {found} of {WORKERS} workers answer after {START_SECONDS} s.")
        time.sleep(0.01)
    return found


def crash(world: World, kills: int, *, show: bool) -> dict[str, int]:
    """Kill, and count."""
    began, port, chance = wall_now(), free_port(0), random.Random(SEED)
    environment = {**os.environ, **world.environment(), "BOUCLE_PORT": str(port), "BOUCLE_WORKERS": str(WORKERS)}
    home = world.settings.home_dir
    supervisor = subprocess.Popen(
        [sys.executable, "-m", "boucle_serving.main"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    over = threading.Event()
    callers = [Caller(port, world.entities, over) for _ in range(CALLERS)]
    try:
        wait_for_all(home)
        for caller in callers:
            caller.start()
        for _ in track(range(kills), description="killing", console=Console(stderr=True), disable=not show):
            living = wait_for_all(home)
            time.sleep(chance.uniform(0.05, 0.5))
            name = chance.choice(sorted(living))
            (home / f"{name}.json").unlink(missing_ok=True)
            os.kill(living[name], signal.SIGKILL)
        wait_for_all(home)
    finally:
        over.set()
        for caller in callers:
            if caller.ident is not None:
                caller.join(timeout=20)
        supervisor.terminate()
        supervisor.wait(timeout=30)
    answered = [told for caller in callers for told in caller.answered]
    log = SegmentLog(world.settings.log_dir)
    logged = {record.prediction_id for record in log.read(MODEL, began - timedelta(1), wall_now() + timedelta(1))}
    return {
        "kills": kills,
        "answered": len(answered),
        "answered_but_not_logged": len(set(answered) - logged),
        "logged": len(logged),
        "broken_connections": sum(caller.broken for caller in callers),
        "torn_lines_left": log.torn_lines(MODEL),
        "missing_or_changed_segments": len(log.segment_gaps(MODEL)) + len(log.changed_segments(MODEL)),
    }


def main() -> int:
    """Print what was counted; the exit code is 1 when an answer was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="boucle-crash-", ignore_cleanup_errors=True) as folder:
        world = World(Path(folder))
        world.promote(100)
        found = crash(world, arguments.kills, show=not arguments.json)
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        Console().print(found)
    wrong = found["answered_but_not_logged"] + found["torn_lines_left"] + found["missing_or_changed_segments"]
    return bool(wrong or not found["answered"])


if __name__ == "__main__":
    sys.exit(main())
