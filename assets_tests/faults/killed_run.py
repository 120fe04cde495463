"""Run a job in this process and die in the middle.

A fault is `<place>=<what>`, from outside the code under test:

- `torn=<part of a path>`: half of this Parquet file is written, then SIGKILL;
- `unplaced=<part of a path>`: the draft is whole, SIGKILL comes before it is renamed into place;
- `placed=<part of a path>`: SIGKILL comes right after the rename;
- `before=<module>:<attribute>` or `after=<module>:<attribute>`: SIGKILL around a call;
- `dbt=<n>`: SIGKILL when dbt has built its n-th model.
"""

import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

KILL, HOLD = "kill", "hold"
"""Files in a home that daemon_location.py obeys."""


def die(*_args: object, **_options: object) -> None:
    """End as a machine that loses power: no handler, no `finally`, no rollback."""
    os.kill(os.getpid(), signal.SIGKILL)


def torn(part: str) -> None:
    import pandas as pd

    whole = pd.DataFrame.to_parquet

    def write(frame: Any, path: Any, **options: Any) -> None:
        whole(frame, path, **options)
        if part in str(path):
            content = Path(path).read_bytes()
            Path(path).write_bytes(content[: len(content) // 2])
            die()

    pd.DataFrame.to_parquet = write  # type: ignore[method-assign,assignment]


def around_rename(part: str, *, first: bool) -> None:
    for name in ("replace", "rename"):
        _wrap(Path, name, lambda _self, target: part in str(target), first=first)


def around_call(place: str, *, first: bool) -> None:
    module, _, attribute = place.partition(":")
    owner: Any = import_module(module)
    *path, name = attribute.split(".")
    for step in path:
        owner = getattr(owner, step)
    _wrap(owner, name, lambda *_args, **_options: True, first=first)


def dbt(count: str) -> None:
    from dbt_common.events import functions

    built, convert = [], functions.msg_to_dict

    def watch(event: Any) -> Any:
        if event.info.name == "LogModelResult":
            built.append(event)
            if len(built) == int(count):
                die()
        return convert(event)

    functions.msg_to_dict = watch


def _wrap(owner: Any, name: str, meant: Callable[..., bool], *, first: bool) -> None:
    original = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        fatal = meant(*args, **options)
        if fatal and first:
            die()
        result = original(*args, **options)
        if fatal:
            die()
        return result

    setattr(owner, name, call)


FAULTS: dict[str, Callable[[str], None]] = {
    "torn": torn,
    "unplaced": lambda part: around_rename(part, first=True),
    "placed": lambda part: around_rename(part, first=False),
    "before": lambda place: around_call(place, first=True),
    "after": lambda place: around_call(place, first=False),
    "dbt": dbt,
}


def main(home: str, job: str, partition: str, fault: str) -> None:
    """A partition is `-` where the job has none."""
    from boucle_adapters.settings import Settings
    from boucle_platform.instance import Runner

    runner = Runner(Settings(home=Path(home)))
    place, _, what = fault.partition("=")
    FAULTS[place](what)
    outcome = runner.run(job, partition=None if partition == "-" else partition)
    sys.stderr.write(f"the fault {fault} never happened: {outcome}\n")
