"""Services that boucle starts beside itself, played by small processes: nothing outlives the end, however it comes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from boucle.errors import ConfigurationError, ServiceError
from boucle_cli.services import Service, free_port, free_ports, running, wait_for_the_first_end, wait_healthy

pytestmark = pytest.mark.integration

# A parent with a child, as MLflow and Dagster have them; the parent answers on its port.
ANSWERS = """
import subprocess, sys
from http.server import HTTPServer, SimpleHTTPRequestHandler
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", sys.argv[2]])
HTTPServer(("127.0.0.1", int(sys.argv[1])), SimpleHTTPRequestHandler).serve_forever()
"""
ENDS = "import sys, time; print('[/red] the disk is full'); sys.stdout.flush(); time.sleep({seconds}); sys.exit(3)"

# What `boucle dev` does, in a process that can be sent a signal.
HOLDS = """
import json, sys
from pathlib import Path
from boucle_cli.services import Service, running, wait_for_the_first_end, wait_healthy
services, logs = [Service(**fields) for fields in json.loads(sys.argv[1])], Path(sys.argv[2])
with running(services, logs=logs, environment={}) as processes:
    for service, process in zip(services, processes):
        wait_healthy(service, process, logs=logs)
    print("up", flush=True)
    try:
        wait_for_the_first_end(services, processes, logs=logs)
    except KeyboardInterrupt:
        print("asked to end", flush=True)
"""


def fields(name: str, mark: str) -> dict[str, object]:
    port = free_port(0)
    url = f"http://127.0.0.1:{port}/"
    return {"name": name, "command": [sys.executable, "-c", ANSWERS, str(port), mark], "url": url, "health": url}


def ending(name: str, seconds: float) -> Service:
    command = [sys.executable, "-c", ENDS.format(seconds=seconds)]
    return Service(name=name, command=command, url="", health=f"http://127.0.0.1:{free_port(0)}/")


def marked(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        words = process.info["cmdline"] or []
        if mark in words and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


def run_to_the_first_end(services: list[Service], logs: Path) -> None:
    with running(services, logs=logs, environment={}) as processes:
        wait_healthy(services[0], processes[0], logs=logs)
        wait_for_the_first_end(services, processes, logs=logs)


# How a shell starts what ends with `&`.
IN_THE_BACKGROUND = ("sh", "-c", "trap '' INT; exec \"$@\"", "sh")


@pytest.mark.parametrize(
    ("number", "start"),
    [
        (signal.SIGINT, ()),
        (signal.SIGTERM, ()),
        (signal.SIGHUP, ()),
        (signal.SIGINT, IN_THE_BACKGROUND),
    ],
    ids=["Ctrl-C", "kill", "closed terminal", "Ctrl-C of what a shell started in the background"],
)
def test_every_way_to_ask_for_the_end_ends_parents_and_children(tmp_path, number, start):
    mark = str(tmp_path)
    services = json.dumps([fields("one", mark), fields("two", mark)])
    words = [*start, sys.executable, "-c", HOLDS, services, str(tmp_path / "logs")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "up\n"
        assert len(marked(mark)) == 4
        os.kill(holder.pid, number)
        assert holder.stdout.read() == "asked to end\n"
        assert holder.wait(30) == 0
    assert marked(mark) == []


def test_a_service_that_ends_ends_the_others_and_its_last_words_are_told(tmp_path):
    mark = str(tmp_path)
    services = [Service(**fields("stays", mark)), ending("fails", 0.2)]
    with pytest.raises(ServiceError, match=r"fails ended \(exit code 3\)[\s\S]*the disk is full"):
        run_to_the_first_end(services, tmp_path)
    assert marked(mark) == []


def test_a_service_that_does_not_come_up_is_told_apart_from_a_slow_one(tmp_path):
    before = time.monotonic()
    with pytest.raises(ServiceError, match=r"fails ended \(exit code 3\)"):
        run_to_the_first_end([ending("fails", 0)], tmp_path)
    assert time.monotonic() - before < 60


def test_a_taken_port_is_replaced_and_one_wanted_twice_is_given_once():
    wanted = free_port(0)
    first, second, third = free_ports([wanted, wanted, 0])
    assert first == wanted
    assert len({first, second, third}) == 3


def test_an_address_that_is_not_ours_has_no_free_port():
    with pytest.raises(ConfigurationError, match="No port is free"):
        free_port(0, host="192.0.2.1")
