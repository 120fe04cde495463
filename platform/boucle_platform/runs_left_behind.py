"""`python -m boucle_platform.runs_left_behind HOST:PORT RUN…`: end what a code server that died was executing.

The code server that follows starts this and does not wait for it. Dagster's daemon starts a failed run again at once
or never, and has to reach a code server for it: so a run is failed once the new one answers, and again if the daemon
did not yet know that.
"""

import sys
import time
from collections.abc import Sequence

import dagster as dg
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from boucle_adapters import healthy
from boucle_platform.instance import code_server_of, fail_run

PAUSE_SECONDS, GIVE_UP_SECONDS = 2.0, 600.0
WHY = "The code server ended while it executed this run."


def runs_of_code_server(instance: dg.DagsterInstance) -> list[str]:
    """Unfinished runs of a code server with a network address: as one starts, they died with the one before it."""
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    return [run.run_id for run in instance.get_runs(unfinished) if "port" in code_server_of(run)]


def settle(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Fail a run that is unfinished, or that the daemon could not start again; whether nothing is left to do for it."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.tags.get(AUTO_RETRY_RUN_ID_TAG):
        return True
    if not run.is_finished:
        fail_run(instance, run, WHY)
        return False
    if run.is_success or not auto_reexecution_should_retry_run(instance, run, None):
        return True
    if run.tags.get(WILL_RETRY_TAG) == "false":
        fail_run(instance, run, f"{WHY} It could not be started again before; now it can.")
    return False


def main(words: Sequence[str]) -> int:
    """Wait for the code server, then settle each run; exit code 1 when some are left after ten minutes."""
    address, *left = words
    deadline = time.monotonic() + GIVE_UP_SECONDS
    with dg.DagsterInstance.get() as instance:
        while left and time.monotonic() < deadline:
            if not healthy.problem({"address": address}):
                left = [run_id for run_id in left if not settle(instance, run_id)]
            time.sleep(PAUSE_SECONDS)
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
