"""The stack is tested by `make smoke` alone: it needs a container engine and minutes. One start serves all tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from assets_tests.smoke.engine import ROOT, Engine, NoEngineError, found
from assets_tests.smoke.stack import PLATFORM, SERVING, Stack

HERE = Path(__file__).parent
UNTESTED = pytest.StashKey[str]()
LOGS = Path(os.environ.get("BOUCLE_SMOKE_LOGS") or ROOT / "logs" / "smoke")
START_SECONDS = 400


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "smoke" in config.option.markexpr.replace("not smoke", ""):
        return
    smoke = [item for item in items if HERE in item.path.parents]
    if smoke:
        config.hook.pytest_deselected(items=smoke)
        items[:] = [item for item in items if HERE not in item.path.parents]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if why := config.stash.get(UNTESTED, ""):
        terminalreporter.section("THE STACK WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(why, red=True)


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with ExitStack() as ends:
        try:
            bare = ends.enter_context(found())
        except NoEngineError as error:
            request.config.stash[UNTESTED] = str(error)
            pytest.skip("no container engine")
        own = {
            "COMPOSE_PROJECT_NAME": "boucle-smoke", "PLATFORM_IMAGE": PLATFORM, "SERVING_IMAGE": SERVING,
            "BOUCLE_ENVIRONMENT": "dev", "BOUCLE_SENSORS": "stopped", "COMPOSE_PROGRESS": "quiet",
            **dict.fromkeys(("API_PORT", "DAGSTER_PORT", "MLFLOW_PORT", "PROMETHEUS_PORT"), "0"),
        }  # fmt: skip
        one = Engine(bare.private, {**bare.environment, **own})
        one.build({PLATFORM: "platform/deploy/Dockerfile", SERVING: "serving/deploy/Dockerfile"})
        yield one


@pytest.fixture(scope="session")
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
    lines: dict[str, list[str]] = {}
    with suppress(subprocess.TimeoutExpired):
        for line in stack.compose("logs", "--no-color", check=False).splitlines(keepends=True):
            container, _, said = line.partition("| ")
            lines.setdefault(container.strip(), []).append(said)
    for container, said in lines.items():
        (LOGS / f"{container}.log").write_text("".join(said))
    (LOGS / "ps.log").write_text(stack.compose("ps", "-a", check=False))
    sys.stderr.write(f"smoke: the logs of all services are in {LOGS}\n")
