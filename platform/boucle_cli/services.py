"""Processes that boucle starts beside itself: started together, waited for on their health, ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from boucle.errors import ConfigurationError

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 15


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process: its command, and the URL that answers 200 once it is up."""

    name: str
    command: Sequence[str]
    url: str
    health: str


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` when it is free, else any free one; 0 asks for any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise ConfigurationError(f"No port is free on {host}.")


@contextmanager
def running(
    services: Sequence[Service], *, logs: Path, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the services in process groups of their own; end all of them on the way out, however that comes."""
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for service in services:
            with (logs / f"{service.name}.log").open("ab") as log:
                processes.append(
                    subprocess.Popen(
                        service.command,
                        stdout=log,
                        stderr=subprocess.STDOUT,
                        stdin=subprocess.DEVNULL,
                        env={**os.environ, **environment},
                        start_new_session=True,
                    )
                )
        yield processes
    finally:
        stop(processes)


def wait_healthy(service: Service, process: subprocess.Popen[bytes], *, logs: Path) -> None:
    """Return once the service answers. Raises ConfigurationError with the end of its log when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers(service.health):
            return
        time.sleep(0.1)
    tail = (logs / f"{service.name}.log").read_text(errors="replace")[-1500:]
    raise ConfigurationError(f"{service.name} did not come up ({service.health}). The end of its log:\n{tail}")


def answers(url: str) -> bool:
    """Whether the URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own http:// address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt every process group, wait, and kill what is left."""
    for process in processes:
        _signal(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL)
            process.wait()
        # Children of an ended parent (Dagster's code servers, MLflow's workers) stay in its group.
        _signal(process, signal.SIGKILL)


def python() -> str:
    """This interpreter."""
    return sys.executable


def tool(name: str) -> str:
    """A command installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return
