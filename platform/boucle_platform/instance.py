"""Dagster's own home and what runs in it: runs of jobs and evaluations of sensors, in this process."""

import json
import os
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import dagster as dg
import psutil

from boucle_adapters.atomic_file import replace_bytes
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, quiet_environment
from boucle_platform.model_loop.keys import FIRST_PARTITION_TAG, LAST_PARTITION_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.home import HomeResource

# Pools: one step at a time opens the warehouse. Queue: two runs at a time, one retrain run of a model, started within a
# second. Monitoring: a run over its time is stopped; a killed one cannot give its slots of the pools back itself.
# Retries: a run whose process died goes on where it stopped; a failed step, such as a refusal, is an answer.
# Logs: what boucle's own loggers say in a run is on record with the run.
_COMMON_YAML = """\
telemetry:
  enabled: false
concurrency:
  pools:
    default_limit: 1
    granularity: op
  runs:
    max_concurrent_runs: 2
    tag_concurrency_limits:
      - key: boucle/retrains
        value:
          applyLimitPerUniqueValue: true
        limit: 1
run_monitoring:
  enabled: true
  poll_interval_seconds: 10
  start_timeout_seconds: 180
  free_slots_after_run_end_seconds: 5
run_retries:
  enabled: true
  max_retries: 2
  retry_on_asset_or_op_failure: false
run_queue:
  dequeue_interval_seconds: 1
python_logs:
  managed_python_loggers: [boucle, boucle_adapters]
  python_log_level: INFO
nux:
  enabled: false
"""
EMBEDDED_STORE = """\
event_log_storage:
  module: boucle_platform.resources.event_log
  class: OpenEventLog
"""
# Its URL holds the password, which is not for a file.
STORE_VARIABLE = "BOUCLE_DAGSTER_STORE"
SHARED_STORE = f"""\
storage:
  custom:
    module: boucle_platform.resources.postgres_store
    class: OpenPostgres
    config:
      postgres_url:
        env: {STORE_VARIABLE}
"""

# Which process executes a run, so that a killed one is recognised.
PROCESS_TAG = "boucle/process"
# A run of a verb has no code location to start it again from: whoever typed the verb does.
NO_RETRIES = {"dagster/max_retries": "0"}
# What Dagster's daemon writes on the runs of a sensor, and looks for before it requests a run again.
SENSOR_TAG, RUN_KEY_TAG = "dagster/sensor_name", "dagster/run_key"
# Where Dagster's launcher notes the code server that executes a run; its run monitoring does not look there.
CODE_SERVER_TAG = ".dagster/grpc_info"

# Events are on record in the instance; a verb shows its own progress, not Dagster's log.
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def dagster_yaml(settings: Settings) -> str:
    """What Dagster is to be told: the same everywhere, but for where runs and events are kept."""
    return _COMMON_YAML + (SHARED_STORE if settings.dagster_url else EMBEDDED_STORE)


def prepare_dagster_home(settings: Settings) -> Path:
    """Write `dagster.yaml` into the home (a changed one is kept) and point this process and its children at it."""
    home = settings.dagster_home
    home.mkdir(parents=True, exist_ok=True)
    file = home / "dagster.yaml"
    if not file.exists():
        replace_bytes(file, dagster_yaml(settings).encode())
    os.environ["DAGSTER_HOME"] = str(home)
    if settings.dagster_url:
        os.environ[STORE_VARIABLE] = settings.dagster_store
    os.environ["BOUCLE_HOME"] = str(settings.home_dir)
    return home


@dataclass(frozen=True)
class RunOutcome:
    """What became of one run."""

    run_id: str
    succeeded: bool
    error: str


class Runner:
    """Executes jobs and evaluates sensors of one home in this process, on record like any other run."""

    def __init__(self, settings: Settings, spec: LoopSpec | None = None) -> None:
        """All models of `defs/`, or one as `spec` declares it."""
        quiet_environment()
        prepare_dagster_home(settings)
        self.settings = settings
        self._spec = spec
        self.instance = dg.DagsterInstance.get()

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The code location."""
        from boucle_platform.definitions import defs, defs_of

        return defs() if self._spec is None else defs_of(self._spec)

    @cached_property
    def home(self) -> Home:
        """The ports of the home."""
        return Home(self.settings)

    def run(
        self,
        job: str,
        *,
        partition: str | None = None,
        through: str | None = None,
        tags: Mapping[str, str] | None = None,
        only: Sequence[Sequence[str]] = (),
    ) -> RunOutcome:
        """Execute a job, or only these of its assets (keys as paths); a failed step is an outcome, not an exception.

        Args:
            job: Its name.
            partition: The period that it is for, or the first of several.
            through: The last of several.
            tags: Of the run.
            only: These of its assets.
        """
        end_dead_runs(self.instance)
        if partition and through and through != partition:
            tags = {**(tags or {}), FIRST_PARTITION_TAG: partition, LAST_PARTITION_TAG: through}
            partition = None
        result = self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=partition,
            tags={**(tags or {}), **NO_RETRIES, PROCESS_TAG: this_process()},
            asset_selection=[dg.AssetKey(path) for path in only] or None,
            run_config=QUIET,
            raise_on_error=False,
        )
        return RunOutcome(run_id=result.run_id, succeeded=result.success, error=failure_text(result))

    def run_requested(self, job: str, request: dg.RunRequest) -> RunOutcome:
        """Execute a job as a sensor requested it."""
        only = [key.path for key in request.asset_selection or ()]
        return self.run(job, partition=request.partition_key, tags=request.tags, only=only)

    @contextmanager
    def tick(self, sensor: str) -> Iterator[list[dg.RunRequest]]:
        """Evaluate a sensor once, with the cursor it left the last time; the block executes what it requests.

        As with Dagster's daemon, a run key is requested once, and its runs carry it and the sensor's name as tags. The
        sensor's cursor is kept when the block ends well: a tick that was killed in it comes back.
        """
        end_dead_runs(self.instance)
        definition = self.definitions.resolve_sensor_def(sensor)
        cursors = self.home.settings.home_dir / "cursors"
        file = cursors / sensor
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=file.read_text() if file.exists() else None,
            sensor_name=sensor,
            resources={"home": HomeResource.of(self.settings)},
            definitions=self.definitions,
        ) as context:
            data = definition.evaluate_tick(context)
        yield [_tagged(request, sensor) for request in data.run_requests or [] if not self._ran(request, sensor)]
        if data.cursor is not None:
            replace_bytes(file, data.cursor.encode())

    def _ran(self, request: dg.RunRequest, sensor: str) -> bool:
        if request.run_key is None:
            return False
        same = dg.RunsFilter(tags={SENSOR_TAG: sensor, RUN_KEY_TAG: request.run_key})
        return bool(self.instance.get_runs(same, limit=1))


def _tagged(request: dg.RunRequest, sensor: str) -> dg.RunRequest:
    tags = {**request.tags, SENSOR_TAG: sensor, **({RUN_KEY_TAG: request.run_key} if request.run_key else {})}
    return request.with_replaced_attrs(tags=tags)


def this_process() -> str:
    """This process as a run remembers it: host, id, and start, because ids are used again."""
    return f"{socket.gethostname()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Mark runs whose process on this host is gone as failed and free their pools; return their ids.

    A killed process cannot sign off: its run stays `STARTED`, keeps its slot of the pool `warehouse`, and every later
    run would wait for it without end.
    """
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
    dead = [run for run in instance.get_runs(unfinished) if _is_dead(run)]
    for run in dead:
        fail_run(instance, run, "The process of this run died in the middle. Run the job again.")
    return [run.run_id for run in dead]


def fail_run(instance: dg.DagsterInstance, run: dg.DagsterRun, why: str) -> None:
    """Mark a run that nobody executes any more as failed, and free its slots of the pools."""
    instance.report_run_failed(run, why)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def code_server_of(run: dg.DagsterRun) -> dict[str, object]:
    """The code server that Dagster gave a run to: `socket`, or `host` and `port`."""
    return dict(json.loads(run.tags.get(CODE_SERVER_TAG, "{}")))


def _is_dead(run: dg.DagsterRun) -> bool:
    """Whether what executes a run is gone: the verb's process, or the code server that the daemon gave it to."""
    if process := run.tags.get(PROCESS_TAG):
        return _is_gone(process)
    code_server = code_server_of(run).get("socket")
    return isinstance(code_server, str) and not _listens(code_server)


def _listens(file: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(file)
        except OSError:
            return False
    return True


def _is_gone(process: str) -> bool:
    host, _, rest = process.partition("/")
    number, _, started = rest.partition("/")
    if host != socket.gethostname():
        return False
    try:
        return f"{psutil.Process(int(number)).create_time():.0f}" != started
    except psutil.NoSuchProcess:
        return True


def failure_text(result: dg.ExecuteInProcessResult) -> str:
    """The error of the first step that failed, or of the run, as its author worded it; empty when none did."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    # A resource that cannot be opened ends the run before its first step.
    errors += [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    error = next((error for error in errors if error is not None), None)
    return re.sub(r"^boucle[\w.]*Error: ", "", (error.cause or error).message.strip()) if error else ""
