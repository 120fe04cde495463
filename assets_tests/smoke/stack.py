"""The stack that is up: what a test asks of it."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from assets_tests.smoke.engine import Engine

PLATFORM, SERVING = "boucle-platform:smoke", "boucle-serving:smoke"
REPLICAS = ("serving-1", "serving-2")
LOOP_SECONDS, VERB_SECONDS = 900, 400


@dataclass
class Stack:
    """A stack that is up."""

    engine: Engine
    notes: dict[str, Any] = field(default_factory=dict)

    def compose(self, *words: str, timeout: float = 60, check: bool = True) -> str:
        return self.engine.docker("compose", *words, timeout=timeout, check=check).stdout

    def run_in(self, service: str, *words: str, check: bool = True, timeout: float = 120, **variables: str) -> str:
        given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
        return self.compose("exec", "-T", *given, service, *words, timeout=timeout, check=check)

    def boucle(self, *words: str, check: bool = True, **variables: str) -> Any:
        """The JSON that a verb prints, run where the warehouse is."""
        return json.loads(
            self.run_in("code", "boucle", *words, "--json", check=check, timeout=VERB_SECONDS, **variables)
        )

    def address(self, service: str, port: int) -> str:
        return f"http://{self.compose('port', service, str(port)).strip()}"

    @cached_property
    def api(self) -> str:
        return self.address("proxy", 8080)

    @cached_property
    def prometheus(self) -> str:
        return self.address("prometheus", 9090)

    def query(self, promql: str) -> dict[str, float]:
        """An instant query, by address of the replica."""
        _, found = ask(f"{self.prometheus}/api/v1/query?query={promql}")
        return {row["metric"].get("instance", ""): float(row["value"][1]) for row in found["data"]["result"]}

    def sql(self, database: str, command: str) -> str:
        """What Postgres answers, without headings."""
        words = ("psql", "-U", "boucle", "-h", "/var/run/postgresql", "-d", database, "-Atc", command)
        return self.run_in("postgres", *words).strip()

    def rows(self, database: str, table: str) -> int:
        return int(self.sql(database, f"select count(*) from {table}"))

    def runs(self, period: str) -> list[str]:
        """Status of each run of a period, oldest first."""
        return self.sql("dagster", f"select status from runs where partition = '{period}' order by id").split()


def ask(url: str, body: object = None) -> tuple[int, Any]:
    """Status and JSON of an answer."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def until(look: Callable[[], bool], *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if look():
            return True
        time.sleep(0.5)
    return False
