"""Requests of a demo month over HTTP, and a caller that does not stop asking while versions change."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType

from boucle.contracts.ids import ModelName, ModelVersion

REQUEST_TIMEOUT_SECONDS = 10


@dataclass
class Tally:
    """Answers by version, and failures by what they said."""

    versions: Counter[ModelVersion] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def served(self) -> int:
        """Requests that got an answer."""
        return self.versions.total()

    @property
    def failed(self) -> int:
        """Requests that did not."""
        return self.failures.total()


class Caller:
    """One kept-alive connection to `POST /models/<model>/predict`."""

    def __init__(self, host: str, port: int, model: ModelName, entity: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=REQUEST_TIMEOUT_SECONDS)
        self._path = f"/models/{model}/predict"
        self._entity = entity

    def ask(self, entity_key: str, as_of: datetime, tally: Tally) -> ModelVersion | None:
        """Send one request; count its answer or its failure."""
        body = json.dumps({self._entity: entity_key, "as_of": as_of.date().isoformat()})
        try:
            self._connection.request("POST", self._path, body, {"content-type": "application/json"})
            response = self._connection.getresponse()
            content = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            tally.failures[f"{type(error).__name__}: {error}"] += 1
            return None
        if response.status != 200:
            tally.failures[f"{response.status}: {content.get('detail', '')}"] += 1
            return None
        version = ModelVersion(int(content["model_version"]))
        tally.versions[version] += 1
        return version

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def send(caller: Caller, entity_keys: Sequence[str], as_of: datetime) -> Tally:
    """One request for each entity."""
    tally = Tally()
    for entity_key in entity_keys:
        caller.ask(entity_key, as_of, tally)
    return tally


def send_over(callers: Sequence[Caller], entity_keys: Sequence[str], as_of: datetime) -> Tally:
    """One request for each entity, over several connections at a time; they are closed at the end."""
    shares = [entity_keys[first :: len(callers)] for first in range(len(callers))]
    total = Tally()
    with ThreadPoolExecutor(len(callers)) as pool:
        for tally in pool.map(send, callers, shares, [as_of] * len(callers)):
            total.versions.update(tally.versions)
            total.failures.update(tally.failures)
    for caller in callers:
        caller.close()
    return total


def wait_for_version(
    caller: Caller, entity_key: str, as_of: datetime, version: ModelVersion, *, timeout: float
) -> bool:
    """Ask until an answer comes from `version`; False when time ran out."""
    deadline, tally = time.monotonic() + timeout, Tally()
    while time.monotonic() < deadline:
        if caller.ask(entity_key, as_of, tally) == version:
            return True
        time.sleep(0.01)
    return False


class Persistent:
    """Asks about fifty times a second in a thread of its own: a version change must not fail one of its requests."""

    def __init__(self, caller: Caller, entity_keys: Sequence[str], as_of: datetime) -> None:
        self.tally = Tally()
        self._caller, self._entities, self._as_of = caller, entity_keys, as_of
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> "Persistent":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(REQUEST_TIMEOUT_SECONDS + 1)
        self._caller.close()

    def _ask(self) -> None:
        position = 0
        while not self._over.is_set():
            self._caller.ask(self._entities[position % len(self._entities)], self._as_of, self.tally)
            position += 1
            self._over.wait(0.02)
