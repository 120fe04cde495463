"""A real serving process over a home of its own, and waiting for what it does."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Self

import httpx

from assets_tests.bundles import flip_last_byte, promote, put_bundle
from boucle.contracts.bundle import MODEL_FILE
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

QUESTION = {"user_id": "4", "as_of": "1997-11-01"}


def wait_for(claim: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


class Replica:
    """`python -m boucle_serving.main` on a free port, over a home of its own."""

    def __init__(self, home: Path, name: str = "one", **environment: str) -> None:
        self.environment = environment
        self.settings = Settings(home=home, port=0, replica=name)
        self.bundles = DirectoryBundleStore(self.settings.bundles_dir)
        self.log = SegmentLog(self.settings.log_dir)
        self.feedback = FeedbackSegments(self.settings.feedback_dir)
        self.announcement = home / f"serving-{name}.json"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, errors: IO[bytes] | None = None) -> Self:
        """Start it; its standard error goes to `errors`, by default to ours."""
        environment = {**os.environ, "BOUCLE_HOME": str(self.settings.home), "BOUCLE_PORT": "0"}
        environment["BOUCLE_REPLICA"] = self.settings.replica
        command = [sys.executable, "-W", "error", "-m", "boucle_serving.main"]
        self.process = subprocess.Popen(
            command, env={**environment, **self.environment}, stdout=subprocess.DEVNULL, stderr=errors
        )
        wait_for(lambda: self.announcement.exists() or self.exit_code() is not None)
        return self

    def exit_code(self) -> int | None:
        assert self.process is not None
        return self.process.poll()

    @property
    def address(self) -> str:
        return str(json.loads(self.announcement.read_text())["address"])

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=10)

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=60)

    def promote(self, state: SqlStateStore, version: int, *, damaged: bool = False) -> None:
        digest = put_bundle(self.bundles, self.settings.home / "scratch", weights=(version / 10, -0.2))
        if damaged:
            flip_last_byte(self.bundles.fetch(digest) / MODEL_FILE)
        promote(state, version=version, digest=digest)

    def ready(self) -> dict[str, object]:
        document: dict[str, object] = httpx.get(f"{self.address}/readyz", timeout=5).json()
        return document

    def version(self) -> int | None:
        answer = httpx.post(f"{self.address}/predict", json=QUESTION, timeout=5)
        return int(answer.json()["model_version"]) if answer.status_code == 200 else None
