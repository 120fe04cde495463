"""Processes of their own that begin warm: forked from one that has imported what verbs and runs need, and did nothing.

Importing Dagster, MLflow and the rest takes longer than most verbs do. How the command starts cold is tested in
`loop/test_closed_loop.py`, which types it as a person does.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

WIDTH = "200"
"""Columns of the terminal that every verb believes to write to."""


def in_process(
    call: Callable[..., None], *words: str, environment: Mapping[str, str], timeout: float
) -> "subprocess.CompletedProcess[str]":
    """Call in a new process with exactly this environment; its output, and its exit code as `subprocess` has it."""
    with tempfile.TemporaryDirectory(prefix="boucle-warm-") as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        out.touch()
        err.touch()
        process = _CONTEXT.Process(target=_begin, args=(call, words, dict(environment), Path.cwd(), out, err))
        process.start()
        process.join(timeout)
        if process.is_alive():
            os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
            raise subprocess.TimeoutExpired(words, timeout, out.read_text(), err.read_text())
        return subprocess.CompletedProcess(words, process.exitcode or 0, out.read_text(), err.read_text())


def boucle(*words: str, environment: Mapping[str, str], timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    """A verb, as the installed command runs it."""
    return in_process(_command, *words, environment=environment, timeout=timeout)


def _command(*words: str) -> None:
    from boucle_cli.main import main

    sys.argv = ["boucle", *words]
    main()


def _begin(
    call: Callable[..., None], words: Sequence[str], environment: dict[str, str], folder: Path, out: Path, err: Path
) -> None:
    for stream, file in ((sys.stdout, out), (sys.stderr, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), stream.fileno())
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    call(*words)


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([f"{__package__}.warmed"])
