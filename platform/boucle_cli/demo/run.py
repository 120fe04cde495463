"""`boucle demo`: the real history, month by month, through the real parts, on a simulated clock."""

import json
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import psutil
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelVersion
from boucle.contracts.windows import Period
from boucle.errors import ConfigurationError, NoProductionModelError, NotEnoughDataError
from boucle_adapters.settings import Settings
from boucle_cli.demo import faults, figures
from boucle_cli.demo.page import write_page
from boucle_cli.demo.show import show_summary
from boucle_cli.demo.summary import Move, Summary
from boucle_cli.demo.traffic import Caller, Persistent, Tally, send_over, wait_for_version
from boucle_cli.output import ERR, OUT, show_json
from boucle_cli.services import Service, free_port, python, running, wait_healthy
from boucle_platform.instance import Runner
from boucle_platform.model_loop.automation import period_job_name, retrain_job_name
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.retraining import TRIGGER_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import landing
from boucle_platform.model_loop.steps.features import known_entities

FOLLOW_TIMEOUT_SECONDS = 20
EVALUATED = ("training_set", "candidate_model", "evaluation_report")


def run_demo(settings: Settings, model: str, *, requests_per_month: int, until: str, as_json: bool) -> Summary:
    """Replay a model's history, show it, and say what it came to."""
    started, spec = time.monotonic(), spec_of(model)
    moved = set_aside(settings.home_dir)
    if moved and not as_json:
        OUT.print(f"The earlier state is kept in {moved}.")
    runner = Runner(settings)
    runner.home.state  # noqa: B018 - sets the store up before serving looks for it
    api = serving(free_port(0))
    logs = settings.home_dir / "logs"
    with running([api], logs=logs, environment={"BOUCLE_HOME": str(settings.home_dir)}) as processes:
        wait_healthy(api, processes[0], logs=logs)
        replay = Replay(
            runner, spec, api, requests_per_month=requests_per_month, watched=processes[0].pid, quiet=as_json
        )
        replay.history(until)
        replay.what_must_not_pass()
        replay.roll_back()
        summary = replay.finish()
    summary.seconds = round(time.monotonic() - started, 1)
    decisions = runner.home.state.decisions(spec.name)
    summary.report = str(write_page(settings.home_dir / "demo.html", spec, summary, decisions))
    if as_json:
        show_json(summary.as_json())
    else:
        show_summary(summary)
    return summary


def serving(port: int) -> Service:
    """One uvicorn process of the API."""
    return Service(
        name="api",
        command=["env", f"BOUCLE_PORT={port}", "BOUCLE_REPLICA=demo", python(), "-m", "boucle_serving.main"],
        url=f"http://127.0.0.1:{port}",
        health=f"http://127.0.0.1:{port}/livez",
    )


def set_aside(home: Path) -> Path | None:
    """Rename a home that has state, so that a replay starts from nothing and nothing is lost.

    Raises:
        ConfigurationError: An API answers from this home: its processes would go on in the new one.
    """
    if not home.exists() or not any((home / name).exists() for name in ("state.db", "mlflow.db", "landing")):
        return None
    for file in home.glob("serving-*.json"):
        replica = json.loads(file.read_text())
        if psutil.pid_exists(int(replica["pid"])):
            raise ConfigurationError(
                f"An API answers from {home} at {replica['address']} (process {replica['pid']}): end `boucle dev` "
                "first, or name another home in BOUCLE_HOME. Nothing was moved."
            )
    number = next(n for n in range(1, 10_000) if not home.with_name(f"{home.name}-{n}").exists())
    return home.rename(home.with_name(f"{home.name}-{number}"))


class Replay:
    """The steps of the demo over one home and one serving process."""

    def __init__(
        self, runner: Runner, spec: LoopSpec, api: Service, *, requests_per_month: int, watched: int, quiet: bool
    ) -> None:
        self.runner, self.home, self.spec = runner, runner.home, spec
        self.port = int(api.url.rsplit(":", 1)[1])
        self.requests = requests_per_month
        self.watched = watched
        self.summary = Summary()
        self.totals = Tally()
        self.current: tuple[Period, ...] = ()
        self.landed: list[Period] = []
        self.progress = Progress(
            TextColumn("[bold]{task.fields[month]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=ERR,
            disable=quiet,
        )

    def history(self, until: str) -> None:
        """Month by month: land its periods, load them, judge, retrain where asked for, serve."""
        published = self.spec.history.published_periods()
        # `until` may be a month where periods are days.
        keys = [key for key in published if not until or key[: len(until)] <= until]
        if not keys:
            raise ConfigurationError(f"No period is published up to '{until}'.")
        with self.progress:
            task = self.progress.add_task("", total=len(keys), month=keys[0])
            for month, group in groupby(map(self.spec.period, keys), key=lambda period: f"{period.start:%Y-%m}"):
                self.progress.update(task, month=month)
                periods = tuple(group)
                self._month(periods, serve=periods[-1].key != keys[-1])
                self.progress.advance(task, len(periods))
        self.summary.periods, self.summary.published_periods = len(keys), len(published)

    def until_two_versions(self) -> None:
        """As much of the history as it takes until a version is in production and a later one has passed its gates.

        Raises:
            NotEnoughDataError: The history is over before that.
        """
        published = self.spec.history.published_periods()
        with self.progress:
            task = self.progress.add_task("", total=None, month=published[0])
            for month, group in groupby(map(self.spec.period, published), key=lambda period: f"{period.start:%Y-%m}"):
                self.progress.update(task, month=month)
                is_first = self.home.state.production(self.spec.name) is None
                self._month(tuple(group), serve=False, judge=is_first)
                if not is_first and self._evaluated():
                    return
        raise NotEnoughDataError(f"No second version of '{self.spec.model}' passed its gates in the whole history.")

    def _evaluated(self) -> bool:
        """Whether a version trained now passes its gates; it is not promoted."""
        with self._stage("train and judge"):
            job, assets = retrain_job_name(self.spec), [(self.spec.model, name) for name in EVALUATED]
            return self.runner.run(job, tags={"boucle/trigger": "demo: a second version"}, only=assets).succeeded

    def what_must_not_pass(self) -> None:
        """A candidate made worse on purpose, then landing files that are broken."""
        with self._stage("faults"):
            before = self.home.state.production(self.spec.name)
            with faults.shuffled_labels(self.home, self.spec):
                self._retrain({"boucle/trigger": "demo: labels shuffled on purpose"}, faults.AFTER_TRAINING_SET)
            last = self.home.state.decisions(self.spec.name)[-1].decision
            refused = last.kind is DecisionKind.REJECT and self.home.state.production(self.spec.name) == before
            self.summary.worse_candidate_refused = refused and self._answering() == before
            self.summary.quarantine = faults.broken_files(self.runner, self.spec, self.landed)

    def roll_back(self) -> None:
        """Back to the previous version, seen in the answers."""
        from boucle_cli.rolling_back import roll_back

        with self._stage("rollback"), suppress(NoProductionModelError):  # the summary says what is missing
            done = roll_back(self.home, self.spec.name, reason="demo: show the way back", who="user:demo")
            to = ModelVersion(done["to"])
            seconds = done["seconds_until_served"] if self._answers(to) else None
            self.summary.rollbacks.append(self._move(to, "demo: show the way back", seconds))

    def finish(self) -> Summary:
        """Figures over all served months."""
        with self._stage("figures"):
            self.summary.months = figures.months(self.home, self.spec)
        self.summary.predictions_served = self.totals.served
        self.summary.requests_failed = self.totals.failed
        self.summary.failures = dict(self.totals.failures)
        self.summary.peak_memory_mib = {"loop": _peak_mib(os.getpid()), "serving": _peak_mib(self.watched)}
        return self.summary

    def _month(self, periods: tuple[Period, ...], *, serve: bool, judge: bool = True) -> None:
        self.current = periods
        with self._stage("land"):
            for period in periods:
                landing.feed(self.home, self.spec, period.key)
                self.landed.append(period)
        with self._stage("features and monitoring"):
            while self._load():
                pass
        # One report a tick, and one report a period.
        for _ in periods if judge else ():
            with self.runner.tick(f"{self.spec.model}_drift") as requests:
                for request in requests:
                    with self._stage("retrain and judge"):
                        self._retrain(dict(request.tags))
        with self._stage("features and monitoring"), self.runner.tick(f"{self.spec.model}_answers"):
            pass  # the sensor only notes what the retrainings gained
        if serve and self.home.state.production(self.spec.name) is not None:
            with self._stage("serve the month"):
                self._serve()

    def _load(self) -> bool:
        """Whether the landing sensor asked for a run."""
        with self.runner.tick(f"{self.spec.model}_landing") as requests:
            for request in requests:
                outcome = self.runner.run_requested(period_job_name(self.spec), request)
                if not outcome.succeeded:
                    raise ConfigurationError(f"Loading {self._now().key} failed: {outcome.error}")
        return bool(requests)

    def _retrain(self, tags: dict[str, str], only: tuple[str, ...] = ()) -> None:
        before = self.home.state.production(self.spec.name)
        first = len(self.home.state.decisions(self.spec.name))
        with self._asking() if before else _nobody():
            outcome = self.runner.run(retrain_job_name(self.spec), tags=tags, only=[(self.spec.model, n) for n in only])
            after = self.home.state.production(self.spec.name)
            answers = after is not None and after != before and self._answers(after)
        self.summary.retrainings += 1
        made = self.home.state.decisions(self.spec.name)[first:]
        served = [row.decision.seconds for row in made if row.decision.kind is DecisionKind.SERVED]
        seconds = round(served[-1], 3) if answers and served and served[-1] is not None else None
        for row in made:
            if row.decision.kind is DecisionKind.PROMOTE and row.decision.to_version:
                move = self._move(row.decision.to_version, row.decision.reason, seconds)
                self.summary.promotions.append(replace(move, after_drift=before is not None and TRIGGER_TAG in tags))
            elif row.decision.kind is DecisionKind.REJECT and row.decision.subject_version:
                self.summary.refusals.append(self._move(row.decision.subject_version, row.decision.reason, None))
        if not outcome.succeeded and not made:
            raise ConfigurationError(f"Retraining failed before a decision: {outcome.error}")

    def _serve(self) -> None:
        # Two at a time: while one answer is on its way, the other is made.
        for period in self.current:
            callers = [self._caller(), self._caller()]
            entities = self._entities(period, max(1, self.requests // len(self.current)))
            self._count(send_over(callers, entities, period.end))

    def _entities(self, period: Period, count: int) -> list[str]:
        known = known_entities(self.home, self.spec, period)
        chosen = random.Random(f"{self.spec.training.seed}/{period.key}")  # noqa: S311 - a seeded sample, no secret
        return chosen.sample(known, min(count, len(known)))

    def _caller(self) -> Caller:
        return Caller("127.0.0.1", self.port, self.spec.name, self.spec.entity)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        # The moment that was asked about before the period landed stays answerable while the new version comes in.
        period = self._now()
        with Persistent(self._caller(), self._entities(period, 200), period.end) as persistent:
            yield
        self._count(persistent.tally)

    def _answers(self, version: ModelVersion) -> bool:
        """Whether `version` answers over HTTP, now or within a few seconds."""
        caller, period = self._caller(), self._now()
        entity_key = self._entities(period, 1)[0]
        seen = wait_for_version(caller, entity_key, period.end, version, timeout=FOLLOW_TIMEOUT_SECONDS)
        caller.close()
        return seen

    def _answering(self) -> ModelVersion | None:
        caller, tally, period = self._caller(), Tally(), self._now()
        version = caller.ask(self._entities(period, 1)[0], period.end, tally)
        caller.close()
        return version

    def _now(self) -> Period:
        """The period that landed last."""
        if not self.current:
            raise ConfigurationError("Nothing has landed yet.")
        return self.current[-1]

    def _move(self, version: ModelVersion, reason: str, seconds: float | None) -> Move:
        return Move(period=self._now().key, version=version, reason=reason, seconds_until_served=seconds)

    def _count(self, tally: Tally) -> None:
        self.totals.versions.update(tally.versions)
        self.totals.failures.update(tally.failures)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        for task in self.progress.tasks:
            self.progress.update(task.id, description=name)
        start = time.monotonic()
        yield
        spent = self.summary.stage_seconds
        spent[name] = round(spent.get(name, 0.0) + time.monotonic() - start, 2)


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _peak_mib(pid: int) -> float:
    """Peak resident memory of a process, MiB; its present one where the system keeps no peak."""
    status = Path(f"/proc/{pid}/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return round(int(line.split()[1]) / 1024, 1)
    return round(float(psutil.Process(pid).memory_info().rss) / 2**20, 1)
