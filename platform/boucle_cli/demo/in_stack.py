"""`boucle demo --target compose`: the same history through a stack that runs, by its own sensors and its own replicas.

Files are landed, requests are sent through the proxy; what daemon, code server and replicas made of them is read from
the stores that they share. Where the sensors are stopped (`BOUCLE_SENSORS`), they are evaluated here instead.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelVersion
from boucle.contracts.windows import Period
from boucle.errors import ConfigurationError, NoProductionModelError, ServiceError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_cli.demo.traffic import Caller, Tally, send_over, wait_for_version
from boucle_cli.output import ERR, FAILED, OUT, show_json, show_table
from boucle_cli.rolling_back import roll_back
from boucle_platform.instance import Runner, prepare_dagster_home
from boucle_platform.model_loop.automation import period_job_name, retrain_job_name
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.retraining import TRIGGER_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import landing
from boucle_platform.model_loop.steps.features import known_entities

SERVICE, PROXY = "code", "http://proxy:8080"
"""In compose.yaml: where the demo runs, and where it asks."""
WAIT_SECONDS = 900
"""For one run and the sensor that asks for it; on two cores that others use as well."""
IN_A_ROW = 20
"""Answers that must all come from the version that a rollback brings back: with two replicas each gives some."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `boucle demo` was asked for; `requests` are those of a month."""

    model: str
    requests: int
    until: str
    as_json: bool

    def words(self) -> list[str]:
        """As the command line has them."""
        words = ["--model", self.model, "--requests", str(self.requests)]
        return words + (["--until", self.until] if self.until else []) + (["--json"] if self.as_json else [])


def demo_in_stack(settings: Settings, target: str, api: str, options: Options) -> int:
    """Replay the history in the stack, from outside (`compose`) or inside (`stack`); the exit code.

    Raises:
        ConfigurationError: There is no such target.
    """
    if target == "compose":
        return through_compose(settings, options)
    if target != "stack":
        raise ConfigurationError(f"There is no target '{target}'; there are embedded, compose and stack.")
    return FAILED if run_in_stack(settings, options, api=api).missing() else 0


def through_compose(settings: Settings, options: Options) -> int:
    """Run the demo inside the stack that compose.yaml describes; its exit code.

    Raises:
        ConfigurationError: There is no `docker`.
    """
    # Without a terminal of its own (its JSON goes down a pipe) it would take the caller's to have 80 columns.
    inside = ["docker", "compose", "exec", "-T", "-e", f"COLUMNS={shutil.get_terminal_size().columns}", SERVICE]
    command = [*inside, "boucle", "demo", "--target", "stack", *options.words()]
    try:
        return subprocess.run(command, cwd=settings.project_dir, check=False).returncode
    except FileNotFoundError as error:
        raise ConfigurationError(
            "`docker` is not on the path: the stack is started by `docker compose up` on a machine that has it."
        ) from error


@dataclass(kw_only=True)
class StackSummary:
    """What the stack made of the history; `missing` names what should have happened and did not."""

    periods: list[str] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    predictions_served: int = 0
    requests_failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    rollback: dict[str, Any] | None = None
    answered_after_rollback: bool = False
    seconds: float = 0.0

    def missing(self) -> list[str]:
        """What a complete replay has and this one has not."""
        promoted = [made for made in self.decisions if made["kind"] == DecisionKind.PROMOTE]
        wanted = {
            "a promotion": bool(promoted),
            "answers through the proxy, none failed": self.predictions_served > 0 and self.requests_failed == 0,
            "a rollback that every replica followed": len(promoted) < 2 or self.answered_after_rollback,
        }
        return [name for name, happened in wanted.items() if not happened]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "missing": self.missing()}


def run_in_stack(settings: Settings, options: Options, *, api: str) -> StackSummary:
    """Replay the history from where it stands, show it, and say what it came to.

    Raises:
        ServiceError: A run failed, or the stack did not get on within the time.
        ConfigurationError: No stack is here, or the history is over.
    """
    if not settings.dagster_url:
        raise ConfigurationError(
            "`--target stack` is for a container of the stack, which shares its stores (BOUCLE_DAGSTER_URL); outside, "
            "say `--target compose`. Nothing was landed."
        )
    prepare_dagster_home(settings)
    started = time.monotonic()
    # MLflow prints where a run is: not into the JSON value.
    with redirect_stdout(sys.stderr), dg.DagsterInstance.get() as instance:
        runner = None if settings.sensors == "running" else Runner(settings)
        replay = StackReplay(Home(settings), instance, spec_of(options.model), api or PROXY, options.requests, runner)
        replay.history(options.until, lambda said: ERR.print(said, markup=False, highlight=False, soft_wrap=True))
        replay.roll_back()
    summary = replay.summary
    summary.seconds = round(time.monotonic() - started, 1)
    if options.as_json:
        show_json(summary.as_json())
    else:
        _show(summary)
    return summary


class StackReplay:
    """Lands, waits, asks; with a runner it does not wait."""

    def __init__(
        self,
        home: Home,
        instance: dg.DagsterInstance,
        spec: LoopSpec,
        api: str,
        requests: int,
        runner: Runner | None = None,
    ) -> None:
        self.home, self.instance, self.spec, self.requests, self.runner = home, instance, spec, requests, runner
        self.address = urlsplit(api)
        self.summary = StackSummary()
        self.totals = Tally()

    def history(self, until: str, tell: Callable[[str], None]) -> None:
        """Period by period, from the first one that has not landed."""
        landed = landing.landed_files(self.home, self.spec)
        published = self.spec.history.published_periods()
        keys = [key for key in published if key not in landed and (not until or key[: len(until)] <= until)]
        if not keys:
            raise ConfigurationError(f"Every period up to '{until or published[-1]}' has landed in this stack already.")
        for key in keys:
            self._period(self.spec.period(key), tell)
            self.summary.periods.append(key)
        self.summary.predictions_served, self.summary.requests_failed = self.totals.served, self.totals.failed
        self.summary.failures = dict(self.totals.failures)

    def roll_back(self) -> None:
        """Back to the version before, if there is one, seen in the answers of the replicas."""
        promoted = [made for made in self.summary.decisions if made["kind"] == DecisionKind.PROMOTE]
        if len(promoted) < 2:
            return
        try:
            done = roll_back(self.home, self.spec.name, reason="demo: show the way back", who="user:demo")
        except NoProductionModelError:
            return
        period = self.spec.period(self.summary.periods[-1])
        entities, tally = known_entities(self.home, self.spec, period)[:IN_A_ROW], Tally()
        for entity_key in entities:  # a connection each: the proxy chooses a replica anew
            caller = self._caller()
            caller.ask(entity_key, period.end, tally)
            caller.close()
        self.summary.rollback = done
        answered = tally.versions == {ModelVersion(done["to"]): len(entities)}
        self.summary.answered_after_rollback = answered and done["seconds_until_served"] is not None

    def _period(self, period: Period, tell: Callable[[str], None]) -> None:
        seen, before = len(self.home.state.decisions(self.spec.name)), self.home.state.production(self.spec.name)
        landing.feed(self.home, self.spec, period.key)
        tell(f"{period.key}: landed; the sensor {self.spec.model}_landing asks for its run …")
        if self.runner is not None:
            self._work(self.runner)
        trigger = self._until(lambda: self._judged(period), f"a judgement on the drift report of {period.key}")
        tell(f"{period.key}: {trigger.reason}")
        if trigger.outcome == "fired":
            self._until(lambda: self._finished({TRIGGER_TAG: trigger.run_key}), f"the retraining of {period.key}")
        for row in self.home.state.decisions(self.spec.name)[seen:]:
            made = row.decision
            if made.kind in {DecisionKind.PROMOTE, DecisionKind.REJECT}:
                said = {"period": period.key, "kind": made.kind, "version": made.subject_version or made.to_version}
                self.summary.decisions.append({**said, "reason": made.reason})
                tell(f"{period.key}: {made.kind} version {said['version']}")
        production = self.home.state.production(self.spec.name)
        if production is not None:
            self._ask(period, production if production != before else None)

    def _work(self, runner: Runner) -> None:
        """What the daemon does where the sensors run: evaluate them and execute what they request."""
        for sensor, job in (("landing", period_job_name(self.spec)), ("drift", retrain_job_name(self.spec))):
            with runner.tick(f"{self.spec.model}_{sensor}") as requests:
                for request in requests:
                    runner.run_requested(job, request)

    def _ask(self, period: Period, newly: ModelVersion | None) -> None:
        entities = known_entities(self.home, self.spec, period)[: self.requests]
        if newly is not None:
            caller = self._caller()
            if not wait_for_version(caller, entities[0], period.end, newly, timeout=WAIT_SECONDS):
                raise ServiceError(f"Version {newly} did not answer at {self.address.geturl()} in {WAIT_SECONDS} s.")
            caller.close()
        tally = send_over([self._caller(), self._caller()], entities, period.end)
        self.totals.versions.update(tally.versions)
        self.totals.failures.update(tally.failures)

    def _judged(self, period: Period) -> Any:
        found = [trigger for _, trigger in self.home.state.triggers(self.spec.name) if trigger.period == period.key]
        if not found:
            self._refuse_failed(dg.RunsFilter(job_name=f"{self.spec.model}_period"))
        return found[-1] if found else None

    def _finished(self, tags: dict[str, str]) -> bool:
        runs = self.instance.get_runs(dg.RunsFilter(tags=tags), limit=1)
        return bool(runs) and runs[0].is_finished

    def _refuse_failed(self, wanted: dg.RunsFilter) -> None:
        newest = next(iter(self.instance.get_runs(wanted, limit=1)), None)
        if newest is not None and newest.status is dg.DagsterRunStatus.FAILURE:
            raise ServiceError(f"Run {newest.run_id[:8]} of {newest.job_name} failed: see it in the Dagster UI.")

    def _until(self, look: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.5)
        raise ServiceError(
            f"There was no sign of {what} in {WAIT_SECONDS} s. Are the sensors on, and is the daemon well? "
            "`docker compose ps` and the Dagster UI say so."
        )

    def _caller(self) -> Caller:
        return Caller(self.address.hostname or "", self.address.port or 80, self.spec.name, self.spec.entity)


def _show(summary: StackSummary) -> None:
    show_table("Decisions", summary.decisions, empty="No decision was made.")
    back = summary.rollback
    rows: list[dict[str, object]] = [
        {"figure": "periods", "value": f"{summary.periods[0]} to {summary.periods[-1]}"},
        {
            "figure": "predictions served / requests failed",
            "value": f"{summary.predictions_served} / {summary.requests_failed}",
        },
        {"figure": "rollback", "value": f"to version {back['to']}: {back['replicas']}" if back else None},
        {"figure": "seconds", "value": summary.seconds},
    ]
    show_table("Figures", rows, empty="")
    for name in summary.missing():
        OUT.print(f"[red]missing[/red]: {name}")
