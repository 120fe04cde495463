"""A candidate in the real serving app, before anybody is served by it: one replica with a home of its own."""

import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from boucle.contracts.bundle import CONTRACT_FILE, WARMUP_FILE, BundleContract, RecordedRequest, WarmUp
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.facts import ApiFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.traffic_plan import NewPlan, Strategy
from boucle.policy.rollout import direct_arms
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

START_TIMEOUT_SECONDS = 60
ANSWER_TIMEOUT_SECONDS = 10
ROUNDS = 10
"""How often each recorded request is sent for its time; the first round is for the answers and not timed."""
FIELDS = ("as_of", "proba", "prediction_id", "model", "model_version")


def try_bundle(bundle: Path, *, digest: Digest, version: ModelVersion, as_of: datetime) -> ApiFacts:
    """Start a replica in which only this bundle is in traffic, and ask it what was recorded, and what is wrong to ask.

    The replica loads the bundle by its digest, as any does. Its features are those of the recorded requests, so that it
    looks them up, scores and logs as for anybody. What is not as promised comes back as sentences; nothing is raised.
    """
    contract = BundleContract.model_validate_json((bundle / CONTRACT_FILE).read_bytes())
    recorded = WarmUp.model_validate_json((bundle / WARMUP_FILE).read_bytes())
    different = tuple({request.entity_key: request for request in reversed(recorded.requests)}.values())[::-1]
    requests, strangers = (different[:-1], different[-1:]) if len(different) > 1 else (different, ())
    with tempfile.TemporaryDirectory(prefix="boucle-trial-") as folder:
        settings = _home(Path(folder), bundle, contract, requests, digest=digest, version=version, as_of=as_of)
        with _replica(settings) as (process, log):
            trial = _Trial(contract, version, as_of, recorded.tolerance)
            address = _address(process)
            if address is None:
                return trial.facts(f"the serving app did not start: {_end_of(log)}")
            try:
                return trial.run(address, requests, strangers)
            except (OSError, http.client.HTTPException) as error:
                return trial.facts(f"the serving app stopped answering ({error!r}): {_end_of(log)}")


@dataclass
class _Trial:
    """What was asked of one replica so far, and what it did wrong."""

    contract: BundleContract
    version: ModelVersion
    as_of: datetime
    tolerance: float
    violations: list[str] = field(default_factory=list)
    sent: int = 0
    seconds: list[float] = field(default_factory=list)

    def run(
        self, address: str, requests: tuple[RecordedRequest, ...], strangers: tuple[RecordedRequest, ...]
    ) -> ApiFacts:
        """Wait until the replica is ready, then ask; of the strangers it has no features."""
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=ANSWER_TIMEOUT_SECONDS)
        try:
            if problem := self._not_ready(connection):
                return self.facts(problem)
            self._asked_wrongly(connection, requests[0], strangers)
            for request in requests:
                self._recorded(connection, request)
            for _ in range(ROUNDS):
                for request in requests:
                    started = time.perf_counter()
                    self._ask(connection, self._question(request.entity_key))
                    self.seconds.append(time.perf_counter() - started)
        finally:
            connection.close()
        return self.facts()

    def facts(self, *violations: str) -> ApiFacts:
        """The result."""
        p99 = float(np.quantile(self.seconds, 0.99)) * 1000 if self.seconds else None
        return ApiFacts(
            requests=max(self.sent, 1),
            violations=(*violations, *self.violations),
            timed=len(self.seconds),
            p99_ms=p99,
        )

    def _not_ready(self, connection: http.client.HTTPConnection) -> str:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        answer: dict[str, Any] = {}
        while time.monotonic() < deadline:
            status, answer, _ = self._ask(connection, None, path="/readyz")
            if status == http.HTTPStatus.OK:
                return ""
            time.sleep(0.05)
        return f"the replica was not ready within {START_TIMEOUT_SECONDS} s: {json.dumps(answer)[:300]}"

    def _recorded(self, connection: http.client.HTTPConnection, request: RecordedRequest) -> None:
        """Status, fields, types, headers and value of one recorded request."""
        about = f"{self.contract.entity} {request.entity_key}"
        status, answer, headers = self._ask(connection, self._question(request.entity_key))
        if status != http.HTTPStatus.OK:
            self.violations.append(f"{about} got status {status}: {answer.get('detail', answer)}")
            return
        if set(answer) != {self.contract.entity, *FIELDS}:
            self.violations.append(f"{about} got the fields {', '.join(sorted(answer))}")
            return
        proba = answer["proba"]
        if not isinstance(proba, float) or not abs(proba - request.expected) <= self.tolerance:
            self.violations.append(f"{about} got {proba}, the estimator says {request.expected}")
        said = (answer["model"], answer["model_version"], headers.get("x-boucle-model-version"))
        if said != (self.contract.model, self.version, str(self.version)):
            self.violations.append(f"{about} was answered by {said}, not by version {self.version}")

    def _asked_wrongly(
        self, connection: http.client.HTTPConnection, request: RecordedRequest, strangers: tuple[RecordedRequest, ...]
    ) -> None:
        """A question without its as_of, one with a field too many, a list, and one about somebody unknown."""
        whole = self._question(request.entity_key)
        wrong = (
            ({self.contract.entity: request.entity_key}, 422, "as_of"),
            ({**whole, "no_such_field": 1}, 422, "no_such_field"),
            ([whole], 422, "body"),
        )
        for question, expected, named in wrong:
            status, answer, _ = self._ask(connection, question)
            fields = {error.get("field") for error in answer.get("errors", [])}
            if status != expected or named not in fields:
                self.violations.append(f"{json.dumps(question)[:80]} got status {status} naming {fields or 'nothing'}")
        for stranger in strangers:
            status, _, _ = self._ask(connection, self._question(stranger.entity_key))
            if status != http.HTTPStatus.NOT_FOUND:
                self.violations.append(f"{stranger.entity_key}, of whom there are no features, got status {status}")

    def _question(self, entity_key: str) -> dict[str, object]:
        return {self.contract.entity: entity_key, "as_of": self.as_of.isoformat()}

    def _ask(
        self, connection: http.client.HTTPConnection, question: object | None, *, path: str = ""
    ) -> tuple[int, dict[str, Any], Mapping[str, str]]:
        self.sent += path == ""
        if question is None:
            connection.request("GET", path)
        else:
            sent = json.dumps(question)
            connection.request(
                "POST", f"/models/{self.contract.model}/predict", sent, {"content-type": "application/json"}
            )
        response = connection.getresponse()
        content = response.read()
        try:
            answer = json.loads(content)
        except ValueError:
            answer = {"detail": content[:200].decode(errors="replace")}
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, answer if isinstance(answer, dict) else {"detail": answer}, headers


def _home(
    folder: Path,
    bundle: Path,
    contract: BundleContract,
    requests: tuple[RecordedRequest, ...],
    *,
    digest: Digest,
    version: ModelVersion,
    as_of: datetime,
) -> Settings:
    """A home in which this bundle is in production, with the features of the recorded requests."""
    settings = Settings(home=folder, state_url="", port=0, replica="trial", default_model=contract.model)
    DirectoryBundleStore(settings.bundles_dir).put(bundle, contract.model)
    publish_snapshot(
        settings.online_dir / contract.model,
        entity_keys=[request.entity_key for request in requests],
        as_of=[as_of] * len(requests),
        features=np.array([[np.nan if v is None else v for v in request.features] for request in requests]),
        feature_names=contract.feature_names,
        watermark=as_of,
        source_digests=[digest],
    )
    state = SqlStateStore.create(settings.state_store_url)
    promoted = NewDecision(
        kind=DecisionKind.PROMOTE,
        model=contract.model,
        at=as_of,
        actor="trial",
        reason="tried in the serving app",
        from_version=None,
        to_version=version,
        bundle_digest=digest,
    )
    arms = direct_arms({version: digest}, production=version, previous=None)
    state.record_with_plan(promoted, expected_production=None, plan=NewPlan(strategy=Strategy.DIRECT, arms=arms))
    state.close()
    return settings


@contextmanager
def _replica(settings: Settings) -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """A serving process of this home, and where it writes what goes wrong."""
    log = settings.home_dir / "serving.log"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BOUCLE_")}
    own = {
        "BOUCLE_HOME": str(settings.home_dir),
        "BOUCLE_PORT": "0",
        "BOUCLE_REPLICA": settings.replica,
        "BOUCLE_DEFAULT_MODEL": settings.default_model,
    }
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "boucle_serving.main"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=clean | own,
            text=True,
            start_new_session=True,  # a Ctrl-C is for the run, which ends the replica itself
        )
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=ANSWER_TIMEOUT_SECONDS)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _address(process: "subprocess.Popen[str]") -> str | None:
    """What the replica says on its first line, once it answers; None when it ended instead, or had to be ended."""
    too_late = threading.Timer(START_TIMEOUT_SECONDS, process.kill)
    too_late.start()
    try:
        line = process.stdout.readline() if process.stdout is not None else ""
    finally:
        too_late.cancel()
    return str(json.loads(line)["address"]) if line.startswith("{") else None


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-300:] or "it said nothing"
