"""One loop of the real history, built once a session; every test that changes it gets a copy."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from assets_tests.faults.loop_home import LOADED, NEWEST, PERIOD, RETRAIN, LoopHome, copied, opened


@pytest.fixture(scope="session")
def three_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """January to March are loaded; April has landed and nothing of it was run."""
    path = tmp_path_factory.mktemp("loop") / "three-months"
    with opened(path) as loop:
        for period in LOADED:
            loop.land(period)
            loop.done(PERIOD, partition=period)
        loop.land(NEWEST)
    return path


@pytest.fixture(scope="session")
def four_months(three_months: Path) -> Path:
    """April is loaded as well; nothing was trained."""
    path = copied(three_months, three_months.with_name("four-months"))
    with opened(path) as loop:
        loop.done(PERIOD, partition=NEWEST)
    return path


@pytest.fixture(scope="session")
def in_production(four_months: Path) -> Path:
    """Version 1 was trained, promoted and given all traffic."""
    path = copied(four_months, four_months.with_name("in-production"))
    with opened(path) as loop:
        loop.done(RETRAIN)
    return path


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], LoopHome]]:
    """Copies a home and opens the copy until the test ends."""
    with ExitStack() as stack:
        yield lambda source: stack.enter_context(opened(copied(source, tmp_path / "home")))
