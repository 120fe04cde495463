"""Several processes behind one address, each a replica of its own that also answers at an address of its own.

So a rollback waits for each of them, the guard reads each one's counts, and each has its own segments of the log: what
holds for several replicas holds for several workers.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from boucle_adapters.settings import Settings

_LOGGER = logging.getLogger("boucle.serving")
_LOOK_SECONDS = 0.05
_RESTART_SECONDS = 1.0
"""A worker that died is started again, but one that cannot start must not use the machine up."""
GRACE_SECONDS = 10


def worker_name(replica: str, number: int) -> str:
    """The replica name of a worker, counted from 1."""
    return f"{replica}.{number}"


@dataclass
class _Worker:
    """One process and when it was started."""

    number: int
    process: subprocess.Popen[bytes]
    started: float


@dataclass
class Supervisor:
    """Keeps `settings.workers` processes answering on one socket.

    Args:
        settings: Of the whole; each worker gets them with a name and a port of its own.
        bound: The socket that all of them accept from.
        announcement: Where a running replica says its address, by its settings.
    """

    settings: Settings
    bound: socket.socket
    announcement: Callable[[Settings], Path]
    _workers: list[_Worker] = field(default_factory=list, init=False)
    _over: threading.Event = field(default_factory=threading.Event, init=False)

    def run(self, announce: Callable[[], None], withdraw: Callable[[], None]) -> None:
        """Run until SIGTERM or Ctrl-C. `announce` is called once all workers answer, `withdraw` before they end."""
        for ending in (signal.SIGTERM, signal.SIGINT):
            signal.signal(ending, lambda *_: self._over.set())
        for number in range(1, self.settings.workers + 1):
            self._announcement(number).unlink(missing_ok=True)
            self._workers.append(self._started(number))
        announced = False
        while not self._over.wait(_LOOK_SECONDS):
            self._replace_dead()
            if not announced and all(self._announcement(worker.number).exists() for worker in self._workers):
                announce()
                announced = True
        withdraw()
        self._end()

    def _announcement(self, number: int) -> Path:
        return self.announcement(
            self.settings.model_copy(update={"replica": worker_name(self.settings.replica, number)})
        )

    def _started(self, number: int) -> _Worker:
        own = {
            "BOUCLE_REPLICA": worker_name(self.settings.replica, number),
            "BOUCLE_PORT": "0",
            "BOUCLE_WORKERS": "1",
            "BOUCLE_SHARED_SOCKET": str(self.bound.fileno()),
            "BOUCLE_REQUESTS_PER_SECOND": str(self.settings.requests_per_second / self.settings.workers),
        }
        process = subprocess.Popen(
            [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-m", "boucle_serving.main"],
            env={**os.environ, **own},
            pass_fds=[self.bound.fileno()],
            stdout=subprocess.DEVNULL,
        )
        return _Worker(number, process, time.monotonic())

    def _replace_dead(self) -> None:
        for place, worker in enumerate(self._workers):
            code = worker.process.poll()
            if code is not None and time.monotonic() - worker.started >= _RESTART_SECONDS:
                _LOGGER.warning("worker %s ended with code %s; another one is started", worker.number, code)
                self._announcement(worker.number).unlink(missing_ok=True)
                self._workers[place] = self._started(worker.number)

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS + 5
        for worker in self._workers:
            try:
                worker.process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()


def end_with_parent() -> None:
    """End this worker when its supervisor is gone, however that went: nobody would start, count or stop it."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="boucle-parent", daemon=True).start()
