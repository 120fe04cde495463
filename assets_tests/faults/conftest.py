"""One loop of the real history, built once a session by whichever worker comes first; each worker has a copy.

Every test that changes it gets a copy of its own.
"""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from assets_tests.conftest import shared_by_workers
from assets_tests.faults.loop_home import LOADED, NEWEST, PERIOD, RETRAIN, LoopHome, copied, opened


def built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """This worker's copy of a home that is built where all workers of the session look."""
    shared = shared_by_workers(factory, f"shared-{name}")
    whole = shared.with_suffix(".whole")
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists():
            shutil.rmtree(shared, ignore_errors=True)
            build(shared)
            whole.touch()
    return copied(shared, factory.mktemp("loop") / name)


@pytest.fixture(scope="session")
def three_months(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """January to March are loaded; April has landed and nothing of it was run."""

    def build(path: Path) -> None:
        with opened(path) as loop:
            for period in LOADED:
                loop.land(period)
                loop.done(PERIOD, partition=period)
            loop.land(NEWEST)

    return built_once(tmp_path_factory, "three-months", build)


@pytest.fixture(scope="session")
def four_months(three_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """April is loaded as well; nothing was trained."""

    def build(path: Path) -> None:
        with opened(copied(three_months, path)) as loop:
            loop.done(PERIOD, partition=NEWEST)

    return built_once(tmp_path_factory, "four-months", build)


@pytest.fixture(scope="session")
def in_production(four_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 was trained, promoted and given all traffic."""

    def build(path: Path) -> None:
        with opened(copied(four_months, path)) as loop:
            loop.done(RETRAIN)

    return built_once(tmp_path_factory, "in-production", build)


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], LoopHome]]:
    """Copies a home and opens the copy until the test ends."""
    with ExitStack() as stack:
        yield lambda source: stack.enter_context(opened(copied(source, tmp_path / "home")))
