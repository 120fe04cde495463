"""`boucle exporter` as people start it: it says where it answers, answers, and ends when it is asked to."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from assets_tests.bundles import promote
from assets_tests.scenarios import digest_of
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore
from boucle_cli.services import free_port

pytestmark = pytest.mark.integration
COMMAND = [str(Path(sys.executable).with_name("boucle")), "exporter"]


def test_what_is_decided_while_it_runs_is_in_the_next_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_HOME", str(tmp_path))
    state = SqlStateStore.create(Settings().state_store_url)
    promote(state, version=1, digest=digest_of(1))
    with subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, text=True) as exporter:
        address = exporter.stdout.readline().strip()
        assert 'boucle_production_version{model="repurchase"} 1.0' in httpx.get(address, timeout=60).text
        promote(state, version=2, digest=digest_of(2))
        assert 'boucle_production_version{model="repurchase"} 2.0' in httpx.get(address, timeout=60).text
        exporter.send_signal(signal.SIGTERM)
        assert exporter.wait(30) == 0
    state.close()


def test_an_address_that_is_taken_is_named_and_nothing_is_started(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port(0)))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [*COMMAND, "--port", port],
            capture_output=True,
            text=True,
            timeout=150,
            env={**os.environ, "BOUCLE_HOME": str(tmp_path)},
            check=False,
        )
    assert done.returncode == 1
    assert f"127.0.0.1:{port}" in done.stderr.replace("\n", "")
    assert "Traceback" not in done.stderr
