"""The stack is tested by `make smoke` alone: it needs a container engine and minutes."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
UNTESTED = pytest.StashKey[str]()


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
