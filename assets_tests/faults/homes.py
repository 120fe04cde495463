"""One loop of the real history, built once a session by whichever worker comes first; each worker has a copy."""

import fcntl
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assets_tests.conftest import shared_by_workers
from assets_tests.faults.loop_home import LOADED, PERIOD, copied, opened


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


def until_march(factory: pytest.TempPathFactory) -> Path:
    """January to March are loaded; nothing else has landed."""

    def build(path: Path) -> None:
        with opened(path) as loop:
            for period in LOADED:
                loop.land(period)
                loop.done(PERIOD, partition=period)

    return built_once(factory, "until-march", build)


def after(
    home: Path,
    factory: pytest.TempPathFactory,
    name: str,
    job: str,
    *,
    partition: str | None = None,
    only: tuple[str, ...] = (),
) -> Path:
    """What a home is after one more job."""

    def build(path: Path) -> None:
        with opened(copied(home, path)) as loop:
            loop.done(job, partition=partition, only=only)

    return built_once(factory, name, build)
