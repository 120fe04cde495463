"""Requests of a demo month over HTTP, and a caller that does not stop asking while versions change."""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import ConfigurationError

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


@dataclass(frozen=True)
class Answer:
    """One answered question."""

    entity_key: str
    as_of: datetime
    version: ModelVersion
    proba: float
    prediction_id: str


class Caller:
    """One kept-alive connection to `POST /models/<model>/predict`."""

    def __init__(self, host: str, port: int, model: ModelName, entity: str) -> None:
        self._connection = http.client.HTTPConnection(host, port, timeout=REQUEST_TIMEOUT_SECONDS)
        self._path = f"/models/{model}/predict"
        self._entity = entity

    def ask(self, entity_key: str, as_of: datetime, tally: Tally) -> ModelVersion | None:
        """Send one request; count its answer or its failure."""
        answer = self.answer(entity_key, as_of, tally)
        return None if answer is None else answer.version

    def answer(self, entity_key: str, as_of: datetime, tally: Tally) -> Answer | None:
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
        return Answer(entity_key, as_of, version, float(content["proba"]), str(content["prediction_id"]))

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


def answers_over(
    callers: Sequence[Caller], questions: Sequence[tuple[str, datetime]]
) -> tuple[list[Answer], Counter[str]]:
    """One request for each question, over several connections at a time; answers, and failures by what they said."""

    def share(caller: Caller, asked: Sequence[tuple[str, datetime]]) -> tuple[list[Answer], Tally]:
        tally = Tally()
        found = [caller.answer(entity_key, as_of, tally) for entity_key, as_of in asked]
        caller.close()
        return [one for one in found if one is not None], tally

    shares = [questions[first :: len(callers)] for first in range(len(callers))]
    answers: list[Answer] = []
    failures: Counter[str] = Counter()
    with ThreadPoolExecutor(len(callers)) as pool:
        for found, tally in pool.map(share, callers, shares):
            answers += found
            failures.update(tally.failures)
    return answers, failures


def tell(port: int, items: Sequence[Mapping[str, Any]], *, at_once: int = 1_000) -> None:
    """Send feedback about predictions.

    Raises:
        ConfigurationError: It was not taken.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_TIMEOUT_SECONDS)
    try:
        for first in range(0, len(items), at_once):
            body = json.dumps({"feedback": items[first : first + at_once]})
            connection.request("POST", "/feedback", body, {"content-type": "application/json"})
            response = connection.getresponse()
            said = response.read()
            if response.status >= 300:
                raise ConfigurationError(f"Feedback was not taken: {response.status} {said[:500].decode()}")
    finally:
        connection.close()


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
