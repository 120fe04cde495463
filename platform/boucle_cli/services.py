"""Processes that boucle starts beside itself: started together, waited for on their health, ended together."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from boucle.errors import ConfigurationError, ServiceError

START_TIMEOUT_SECONDS = 120
STOP_TIMEOUT_SECONDS = 20
# Ctrl-C, `kill` and a closed terminal.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One process: its command, and the URL that answers 200 once it is up."""

    name: str
    command: Sequence[str]
    url: str
    health: str
    environment: Mapping[str, str] = field(default_factory=dict)


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """`wanted` when it is free, else any free one; 0 asks for any."""
    return free_ports([wanted], host)[0]


def free_ports(wanted: Sequence[int], host: str = "127.0.0.1") -> list[int]:
    """A free port for each wanted one, all different.

    Raises:
        ConfigurationError: No port is free.
    """
    with ExitStack() as held:  # until all are chosen: the same one is not given twice
        return [_bind(held.enter_context(socket.socket()), port, host) for port in wanted]


@contextmanager
def running(
    services: Sequence[Service], *, logs: Path, environment: Mapping[str, str]
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start the services in process groups of their own; end all of them on the way out, however that comes.

    Ctrl-C, SIGTERM and SIGHUP all arrive as KeyboardInterrupt; while the services are ended, they change nothing.
    """
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    with _signals(_interrupt):
        try:
            for service in services:
                with (logs / f"{service.name}.log").open("ab") as log:
                    processes.append(
                        subprocess.Popen(
                            service.command,
                            stdout=log,
                            stderr=subprocess.STDOUT,
                            stdin=subprocess.DEVNULL,
                            env={**os.environ, **environment, **service.environment},
                            start_new_session=True,
                        )
                    )
            yield processes
        finally:
            with _signals(_go_on):
                stop(processes)


def wait_healthy(service: Service, process: subprocess.Popen[bytes], *, logs: Path) -> None:
    """Return once the service answers. Raises ServiceError with the end of its log when it does not."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if answers(service.health):
            return
        time.sleep(0.1)
    if process.poll() is None:
        problem = f"{service.name} did not answer on {service.health} within {START_TIMEOUT_SECONDS} s"
        raise ServiceError(f"{problem}. {log_end(service, logs)}")
    raise ServiceError(ended(service, process, logs=logs))


def wait_for_the_first_end(
    services: Sequence[Service], processes: Sequence[subprocess.Popen[bytes]], *, logs: Path
) -> None:
    """Wait until one of the services ends by itself, then raise ServiceError: none is meant to."""
    while True:
        for service, process in zip(services, processes, strict=True):
            if process.poll() is not None:
                raise ServiceError(ended(service, process, logs=logs))
        time.sleep(0.5)


def ended(service: Service, process: subprocess.Popen[bytes], *, logs: Path) -> str:
    """That a service ended, how, and what it said last."""
    how = f"exit code {process.returncode}" if process.returncode >= 0 else signal.Signals(-process.returncode).name
    return f"{service.name} ended ({how}). {log_end(service, logs)}"


def log_end(service: Service, logs: Path) -> str:
    """The last lines of a service's log."""
    file = logs / f"{service.name}.log"
    return f"The end of {file}:\n{file.read_text(errors='replace')[-1500:]}"


def answers(url: str) -> bool:
    """Whether the URL answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own http:// address
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt every process group, wait until each is empty, and kill what is left.

    The whole group, because the parent may end first: a run that Dagster's code server started needs a moment more to
    put its end on record.
    """
    for process in processes:
        _signal(process, signal.SIGINT)
    deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
    while time.monotonic() < deadline and any(_alive(process) for process in processes):
        time.sleep(0.1)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()


def python() -> str:
    """This interpreter."""
    return sys.executable


def tool(name: str) -> str:
    """A command installed beside this interpreter."""
    return str(Path(sys.executable).with_name(name))


def _bind(probe: socket.socket, wanted: int, host: str) -> int:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for port in (wanted, 0):
        try:
            probe.bind((host, port))
            probe.listen()  # bound alone, it could be given twice
        except OSError:
            continue
        return int(probe.getsockname()[1])
    raise ConfigurationError(f"No port is free on {host}.")


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the process group still runs."""
    process.poll()
    for other in psutil.process_iter(["status"]):
        try:
            if os.getpgid(other.pid) == process.pid and other.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except OSError:  # it ended meanwhile
            continue
    return False


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


@contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the ending signals so, also where a shell started us with Ctrl-C ignored (`boucle dev &`)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in ENDING}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    raise KeyboardInterrupt


def _go_on(number: int, frame: FrameType | None) -> None:
    """Services are being ended already."""
