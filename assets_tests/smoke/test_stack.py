"""The stack of compose.yaml, for real: its images, its start, one turn of the loop in it, its end.

The same test everywhere (`make smoke`); engine.py says where the containers run.
"""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from assets_tests.integration.dagster_ui import DagsterUI
from assets_tests.smoke.conftest import UNTESTED
from assets_tests.smoke.engine import ROOT, Engine, NoEngineError, found

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1500)]

PLATFORM, SERVING = "boucle-platform:smoke", "boucle-serving:smoke"
BASE = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
REPLICAS = ("serving-1", "serving-2")
OURS = ("code", "webserver", "daemon", "mlflow", "exporter", *REPLICAS)
LIMIT_BYTES = 350 * 1024 * 1024
UNTIL, AS_OF = "1997-04", "1997-05-01"
LOGS = Path(os.environ.get("BOUCLE_SMOKE_LOGS") or ROOT / "logs" / "smoke")
START_SECONDS, LOOP_SECONDS, SCRAPE_SECONDS = 400, 900, 60


@dataclass
class Stack:
    """A stack that is up."""

    engine: Engine
    notes: dict[str, Any] = field(default_factory=dict)

    def compose(self, *words: str, timeout: float = 60, check: bool = True) -> str:
        return self.engine.docker("compose", *words, timeout=timeout, check=check).stdout

    def run_in(self, service: str, *words: str, check: bool = True) -> str:
        return self.compose("exec", "-T", service, *words, timeout=120, check=check)

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

    def rows(self, database: str, table: str) -> int:
        said = self.run_in("postgres", "psql", "-U", "boucle", "-h", "/var/run/postgresql", "-d", database, "-Atc",
                           f"select count(*) from {table}")  # fmt: skip
        return int(said)


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


@pytest.fixture(scope="module")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with ExitStack() as ends:
        try:
            bare = ends.enter_context(found())
        except NoEngineError as error:
            request.config.stash[UNTESTED] = str(error)
            pytest.skip("no container engine")
        own = {
            "COMPOSE_PROJECT_NAME": "boucle-smoke", "PLATFORM_IMAGE": PLATFORM, "SERVING_IMAGE": SERVING,
            "BASE_IMAGE": BASE, "BOUCLE_ENVIRONMENT": "dev", "BOUCLE_SENSORS": "stopped", "COMPOSE_PROGRESS": "quiet",
            **dict.fromkeys(("API_PORT", "DAGSTER_PORT", "MLFLOW_PORT", "PROMETHEUS_PORT"), "0"),
        }  # fmt: skip
        one = Engine(bare.private, {**bare.environment, **own})
        one.build({PLATFORM: "platform/deploy/Dockerfile", SERVING: "serving/deploy/Dockerfile"})
        yield one


@pytest.fixture(scope="module")
def stack(engine: Engine) -> Iterator[Stack]:
    stack = Stack(engine)
    try:
        pull = "never" if engine.private else "missing"
        stack.compose("up", "-d", "--wait", "--no-build", "--pull", pull, timeout=START_SECONDS)
        yield stack
    finally:
        keep_logs(stack)
        stack.compose("down", "--volumes", "--remove-orphans", timeout=120, check=False)


def keep_logs(stack: Stack) -> None:
    """One file a service, for whoever looks into why."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for service in stack.compose("config", "--services", check=False).split():
        with suppress(subprocess.TimeoutExpired):
            (LOGS / f"{service}.log").write_text(stack.compose("logs", "--no-color", service, check=False))
    (LOGS / "ps.log").write_text(stack.compose("ps", "-a", check=False))
    sys.stderr.write(f"smoke: the logs of all services are in {LOGS}\n")


def size(engine: Engine, image: str) -> int:
    return int(engine.docker("image", "inspect", "-f", "{{.Size}}", image).stdout)


def alone(engine: Engine, image: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command in an image by itself, as strict as the stack runs it."""
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    strict = ("--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    return engine.docker("run", *strict, *given, image, *words, timeout=120, check=False)


def test_neither_image_runs_as_root(engine: Engine):
    users = {engine.docker("image", "inspect", "-f", "{{.Config.User}}", image).stdout for image in (PLATFORM, SERVING)}
    assert users == {"10001:10001\n"}


def test_serving_adds_at_most_350_mb_to_its_base(engine: Engine):
    if engine.docker("image", "inspect", BASE, check=False).returncode:  # BuildKit keeps what it built on to itself
        engine.docker("pull", "--quiet", BASE, timeout=300)
    assert size(engine, SERVING) - size(engine, BASE) <= LIMIT_BYTES


def test_serving_holds_no_orchestrator_and_no_registry(engine: Engine):
    absent = ["dagster", "mlflow", "dbt", "evidently", "duckdb", "pandas", "boucle_platform", "boucle_cli"]
    code = f"from importlib.util import find_spec; print([n for n in {[*absent, 'onnxruntime']} if find_spec(n)])"
    assert alone(engine, SERVING, "python", "-c", code).stdout.strip() == "['onnxruntime']"


@pytest.mark.parametrize(("password", "said"), [("boucle-dev", "one that everybody knows"), ("", "not set")])
def test_production_does_not_start_with_a_default_password(engine: Engine, password: str, said: str):
    tried = alone(
        engine, PLATFORM, "doctor", "--only", "settings", BOUCLE_ENVIRONMENT="prod", BOUCLE_DATABASE_PASSWORD=password
    )
    assert tried.returncode == 1
    assert said in " ".join(tried.stderr.split())
    assert "Nothing was started" in " ".join(tried.stderr.split())


def test_every_service_is_healthy(stack: Stack):
    lines = stack.compose("ps", "-a", "--format", "json").splitlines()
    states = {one["Service"]: one["Health"] or f"{one['State']} {one['ExitCode']}" for one in map(json.loads, lines)}
    assert states.pop("settings") == "exited 0"
    assert states == dict.fromkeys((*OURS, "postgres", "proxy", "prometheus"), "healthy")


@pytest.mark.parametrize("service", OURS)
def test_the_root_file_system_is_read_only_and_the_state_is_not(stack: Stack, service: str):
    code = "import os; print(os.getuid(), os.access('/app', os.W_OK), os.access(os.environ['BOUCLE_HOME'], os.W_OK))"
    assert stack.run_in(service, "python", "-c", code).split() == ["10001", "False", "True"]


def test_replicas_are_not_ready_before_the_first_promotion(stack: Stack):
    status, said = ask(f"{stack.api}/readyz")
    assert status == 503
    assert "No model is in production yet" in said["missing"][0]


def test_the_loop_goes_round_in_the_stack(stack: Stack):
    """Lands months, loads, judges, trains and promotes them over the common stores; requests go through the proxy.

    In one process, as the sensors are stopped: the daemon takes a minute for each month, and has its turn below.
    """
    command = [str(Path(sys.executable).with_name("boucle")), "demo", "--target", "compose"]
    done = subprocess.run(
        [*command, "--until", UNTIL, "--requests", "200", "--json"],
        cwd=ROOT, env=stack.engine.environment, capture_output=True, text=True, timeout=LOOP_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    stack.notes["demo"] = summary = json.loads(done.stdout)
    assert summary["missing"] == []
    assert summary["requests_failed"] == 0
    assert ask(f"{stack.api}/readyz")[0] == 200


def test_both_replicas_serve_the_promoted_version(stack: Stack):
    status = json.loads(stack.run_in("code", "boucle", "status", "--json"))
    assert status["production"] == 1
    assert set(status["replicas"].split(", ")) == {f"{name} (revision 1)" for name in REPLICAS}


def test_daemon_and_code_server_load_the_next_month(stack: Stack):
    """Sensor, queue, launch and run, each in a container of its own."""
    ui = DagsterUI(stack.address("webserver", 3000))
    ui.switch_on("repurchase_landing")
    period = json.loads(stack.run_in("code", "boucle", "feed", "--json"))["period"]
    runs = f"runs where partition = '{period}' and status = 'SUCCESS'"
    assert until(lambda: stack.rows("dagster", runs) == 1, seconds=LOOP_SECONDS)


def test_the_proxy_gives_requests_to_both_replicas(stack: Stack):
    log = "/var/lib/boucle/prediction_log/repurchase"
    written = {name: stack.run_in("code", "sh", "-c", f"cat {log}/{name}/*.jsonl | wc -l") for name in REPLICAS}
    assert min(map(int, written.values())) >= 20, written


def test_prometheus_scrapes_the_exporter_and_both_replicas(stack: Stack):
    for job, targets in (("boucle-serving", 2), ("boucle-exporter", 1)):
        up = f"up%7Bjob=%22{job}%22%7D"
        assert until(lambda up=up, n=targets: list(stack.query(up).values()) == [1.0] * n, seconds=SCRAPE_SECONDS), job
    asked = "sum%20by%20(instance)%20(boucle_requests_total)"
    assert until(lambda: len(stack.query(asked)) == 2 and min(stack.query(asked).values()) > 0, seconds=SCRAPE_SECONDS)


def test_three_protocols_answer_the_same_through_the_proxy(stack: Stack):
    log = "/var/lib/boucle/prediction_log/repurchase"
    entity = json.loads(stack.run_in("code", "sh", "-c", f"tail -qn 1 {log}/*/*.jsonl | tail -n 1"))["entity_key"]
    row = {"user_id": entity, "as_of": AS_OF}
    status, answer = ask(f"{stack.api}/predict", row)
    assert status == 200, answer
    document = ask(f"{stack.api}/openapi.json")[1]
    schema = document["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(answer, {**schema, "components": document["components"]})
    status, scored = ask(f"{stack.api}/invocations", {"dataframe_records": [row]})
    assert status == 200, scored
    inputs = [{"name": name, "shape": [1], "datatype": "BYTES", "data": [value]} for name, value in row.items()]
    status, inferred = ask(f"{stack.api}/v2/models/repurchase/infer", {"inputs": inputs})
    assert status == 200, inferred
    assert scored["predictions"][0] == pytest.approx(answer["proba"])
    assert inferred["outputs"][0]["data"][0] == pytest.approx(answer["proba"])


def test_a_malformed_request_is_refused_by_its_field_and_metrics_are_not_public(stack: Stack):
    status, problem = ask(f"{stack.api}/predict", {"user_id": "4", "as_of": "yesterday"})
    assert status == 422
    assert "as_of" in json.dumps(problem)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{stack.api}/metrics", timeout=20)


def test_state_runs_and_versions_are_in_postgres_and_nowhere_else(stack: Stack):
    """The driver that SQLAlchemy takes is the one that is installed, in the stack and not only on paper."""
    kept = {"boucle": "decision", "dagster": "runs", "mlflow": "model_versions"}
    assert all(stack.rows(database, table) > 0 for database, table in kept.items())
    files = stack.run_in("code", "find", "/var/lib/boucle", "/var/lib/boucle-warehouse", "-name", "*.db*")
    assert files == ""


def test_the_warehouse_is_the_platforms_alone(stack: Stack):
    assert "warehouse.duckdb" in stack.run_in("code", "ls", "/var/lib/boucle-warehouse")
    for replica in REPLICAS:
        assert stack.run_in(replica, "find", "/var/lib", "-name", "warehouse*", check=False) == ""


def test_doctor_finds_nothing_wrong(stack: Stack):
    findings = json.loads(stack.run_in("code", "boucle", "doctor", "--json", check=False))
    assert [one for one in findings if not one["ok"]] == []
