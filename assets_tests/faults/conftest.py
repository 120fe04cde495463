"""Homes of the real history to break. Every test that changes one gets a copy of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from assets_tests.faults.homes import after, until_march
from assets_tests.faults.loop_home import JUDGED, MOVED, NEWEST, PERIOD, RETRAIN, LoopHome, copied, opened


@pytest.fixture(scope="session")
def march(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """January to March are loaded; April has not landed yet."""
    return until_march(tmp_path_factory)


@pytest.fixture(scope="session")
def three_months(march: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """January to March are loaded; April has landed and nothing of it was run."""
    path = copied(march, tmp_path_factory.mktemp("loop") / "three-months")
    with opened(path) as loop:
        loop.land(NEWEST)
    return path


@pytest.fixture(scope="session")
def four_months(three_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """April is loaded as well; nothing was trained."""
    return after(three_months, tmp_path_factory, "four-months", PERIOD, partition=NEWEST)


@pytest.fixture(scope="session")
def evaluated(four_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 was trained and passed its gates; nothing was decided."""
    return after(four_months, tmp_path_factory, "evaluated", RETRAIN, only=JUDGED)


@pytest.fixture(scope="session")
def in_production(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 was promoted and given all traffic as well."""
    return after(evaluated, tmp_path_factory, "in-production", RETRAIN, only=MOVED)


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], LoopHome]]:
    """Copies a home and opens the copy until the test ends."""
    with ExitStack() as stack:
        yield lambda source: stack.enter_context(opened(copied(source, tmp_path / "home")))
