"""The logs of one rollout as tables of an in-memory DuckDB: what was answered, shadowed and heard of, each once.

The segment files are read where they are, by column: a million answers in about two seconds. Lines that are torn or
damaged are no record. Of sealed segments only those are read whose moments may be of the rollout. The warehouse is
another database, and is never opened here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from pydantic import ValidationError

from boucle.contracts.feedback import FEEDBACK_STREAM
from boucle.contracts.ids import ModelVersion
from boucle.contracts.prediction import SegmentSeal
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.traffic_plan import TrafficPlan
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, Segments, ShadowSegments

SLACK = timedelta(hours=1)
"""So much longer than its plans a rollout may be in the logs: clocks of machines differ, and a replica that cannot
reach the state store keeps its plan."""
LATEST = datetime.max.replace(tzinfo=UTC)
Stage = tuple[Phase, int]
"""Phase and step of a rollout: what its counts are kept apart by."""
_ANSWER_COLUMNS = {
    "prediction_id": "VARCHAR",
    "at": "TIMESTAMPTZ",
    "entity_key": "VARCHAR",
    "plan_revision": "BIGINT",
    "model_version": "BIGINT",
    "assigned_role": "VARCHAR",
    "answering_role": "VARCHAR",
    "fallback": "VARCHAR",
    "propensity": "DOUBLE",
    "proba": "DOUBLE",
    "latency_ms": "DOUBLE",
    "pinned": "BOOLEAN",
}
_SHADOW_COLUMNS = {
    "prediction_id": "VARCHAR",
    "at": "TIMESTAMPTZ",
    "plan_revision": "BIGINT",
    "model_version": "BIGINT",
    "proba": "DOUBLE",
    "error": "VARCHAR",
    "latency_ms": "DOUBLE",
}
_FEEDBACK_COLUMNS = {
    "prediction_id": "VARCHAR",
    "outcome": "DOUBLE",
    "reward": "DOUBLE",
    "at": "TIMESTAMPTZ",
    "received_at": "TIMESTAMPTZ",
}


@dataclass(frozen=True, kw_only=True)
class RolloutLogs:
    """Where it is written what a rollout did.

    `labels` are Parquet files with `prediction_id` and `label` (1 or 0), such as the ground truth of the model's
    periods; for a prediction that has a label, feedback about its outcome is not asked.
    """

    predictions: SegmentLog
    shadows: ShadowSegments
    feedback: FeedbackSegments
    labels: tuple[Path, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Run:
    """The plans of one rollout while it was open, in their order, and the moments `[start, end)` they may be of."""

    plans: tuple[TrafficPlan, ...]
    start: datetime
    end: datetime

    @property
    def rollout(self) -> Rollout:
        """Its last state while it was open."""
        rollout = self.plans[-1].rollout
        assert rollout is not None  # noqa: S101 - for the type checker: `newest_run` takes no others
        return rollout

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Each phase and step once, in the order they began."""
        return tuple(dict.fromkeys(_stage(plan) for plan in self.plans))

    @property
    def drawn_stages(self) -> list[int]:
        """The places of those in which entities were drawn: in shadow nobody is."""
        return [place for place, (phase, _step) in enumerate(self.stages) if phase is not Phase.SHADOW]

    def newest_stage(self) -> "Run":
        """The plans of the last phase and step alone."""
        plans = tuple(plan for plan in self.plans if _stage(plan) == self.stages[-1])
        return replace(self, plans=plans, start=min(plan.created_at for plan in plans) - SLACK)

    @property
    def versions(self) -> Mapping[str, ModelVersion]:
        """Of the challenger and of production, as parameters of queries."""
        return {"challenger": self.rollout.challenger, "production": self.rollout.production}


def newest_run(plans: Sequence[TrafficPlan]) -> Run | None:
    """The plans of the newest rollout among revisions of one model, oldest first; None where there is none."""
    rollouts = [plan.rollout for plan in plans if plan.rollout is not None]
    if not rollouts:
        return None
    newest = rollouts[-1].rollout_id
    run = tuple(plan for plan in plans if plan.rollout and plan.rollout.is_open and plan.rollout.rollout_id == newest)
    if not run:
        return None
    after = [plan.created_at for plan in plans if plan.revision > run[-1].revision]
    end = after[0] + SLACK if after else LATEST
    return Run(plans=run, start=min(plan.created_at for plan in run) - SLACK, end=end)


@contextmanager
def tables(logs: RolloutLogs, run: Run, *, shadows: bool = False, features: bool = False) -> Iterator["LogTables"]:
    """The table `answer` of a rollout, with `shadows` the table `shadow` too; gone at the end."""
    with duckdb.connect() as connection:
        found = LogTables(connection, logs, run)
        found.read_answers(features=features)
        if shadows:
            found.read_shadows()
        yield found


@dataclass(frozen=True)
class LogTables:
    """A connection to these tables.

    `answer`: one row per answered request of an entity that was drawn: `stage` (place among the stages of the run),
    `is_challengers` (it was drawn for the challenger), `version` (that answered), `answered_at`.
    `shadow`: one row per request and version that shadowed it.
    `heard`: what became of requests, for each that something is known of.
    """

    connection: duckdb.DuckDBPyConnection
    logs: RolloutLogs
    run: Run

    def read_answers(self, *, features: bool = False) -> None:
        """Make the table `answer`. Who named no entity, or chose an arm, was not drawn, and is not of the rollout."""
        stages = self.run.stages
        self.connection.execute("create table plan (plan_revision BIGINT, stage BIGINT)")
        rows = [(plan.revision, stages.index(_stage(plan))) for plan in self.run.plans]
        self.connection.executemany("insert into plan values (?, ?)", rows)
        columns = {**_ANSWER_COLUMNS, **({"features": "DOUBLE[]"} if features else {})}
        self.connection.execute(
            f"""
            create table answer as
            select prediction_id, "at" as answered_at, stage, plan_revision, entity_key,
                assigned_role = 'challenger' as is_challengers, answering_role, model_version as version, fallback,
                propensity, proba, latency_ms{", features" if features else ""}
            from {_lines(self._files(self.logs.predictions), columns)} join plan using (plan_revision)
            where "at" >= $start and "at" < $end and entity_key is not null and not coalesce(pinned, false)
                and proba is not null and latency_ms is not null
            qualify row_number() over (partition by prediction_id order by "at") = 1
            """,  # noqa: S608 - our own names
            {"start": self.run.start, "end": self.run.end},
        )

    def read_shadows(self) -> None:
        """Make the table `shadow`."""
        self.connection.execute(
            f"""
            create table shadow as
            select prediction_id, stage, model_version as version, proba, error, latency_ms
            from {_lines(self._files(self.logs.shadows), _SHADOW_COLUMNS)} join plan using (plan_revision)
            where "at" >= $start and "at" < $end and (proba is null) <> (error is null)
            qualify row_number() over (partition by prediction_id, model_version order by "at") = 1
            """,  # noqa: S608 - our own names
            {"start": self.run.start, "end": self.run.end},
        )

    def read_feedback(self, *, until: datetime = LATEST) -> None:
        """Make the table `heard`, of what was known at a moment: `outcome`, `reward`, `rewarded_at` (the first one).

        Which message counts is as in `boucle_adapters.feedback.read_feedback`: the same content once, when it was first
        received; of others the one that was received last.
        """
        files = self._files(self.logs.feedback, stream=FEEDBACK_STREAM, end=LATEST)
        self.connection.execute(
            f"""
            create table heard as
            with said as (
                select prediction_id, outcome, reward, "at" as happened_at, received_at, row_number() over () as place
                from {_lines(files, _FEEDBACK_COLUMNS)}
            ), once as (
                select prediction_id, outcome, reward, min((received_at, place)) as came
                from said semi join answer using (prediction_id)
                where received_at <= $until
                group by prediction_id, outcome, reward, happened_at
            )
            select prediction_id,
                arg_max(outcome, came) filter (outcome is not null) as outcome,
                arg_max(reward, came) filter (reward is not null) as reward,
                min(came[1]) filter (reward is not null) as rewarded_at
            from once group by prediction_id
            """,  # noqa: S608 - our own names
            {"until": until},
        )
        if self.logs.labels:
            self._take_labels()

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.connection.execute(query, values or None).fetchall()

    def columns(self, query: str, **values: object) -> Mapping[str, Any]:
        """The columns of a query as arrays."""
        found: Mapping[str, Any] = self.connection.execute(query, values or None).fetchnumpy()
        return found

    def _take_labels(self) -> None:
        self.connection.execute(
            """
            create or replace table heard as
            with matured as (
                select prediction_id, max(cast(label as DOUBLE)) as label
                from read_parquet($labels, union_by_name = true)
                semi join answer using (prediction_id) where label is not null group by prediction_id
            )
            select prediction_id, coalesce(label, outcome) as outcome, reward, rewarded_at
            from heard full join matured using (prediction_id)
            """,
            {"labels": [str(file) for file in self.logs.labels]},
        )

    def _files(self, log: Segments[Any, Any], *, stream: str | None = None, end: datetime | None = None) -> list[Path]:
        """Segments of a log that may hold records of the rollout: those without a seal, or whose seal overlaps."""
        stream, end = stream or self.run.rollout.model, end or self.run.end
        segments = sorted(file for file in (log.root / stream).glob("*/*.jsonl") if file.stem.isdigit())
        return [file for file in segments if _may_hold(file, self.run.start, end)]


def _stage(plan: TrafficPlan) -> Stage:
    assert plan.rollout is not None  # noqa: S101 - for the type checker: `newest_run` takes no others
    return plan.rollout.phase, plan.rollout.step


def _may_hold(file: Path, start: datetime, end: datetime) -> bool:
    try:
        seal = SegmentSeal.model_validate_json(file.with_suffix(".seal.json").read_bytes())
    except (OSError, ValidationError):  # still open, or its seal is damaged and says nothing
        return True
    if seal.first_at is None or seal.last_at is None:
        return seal.records > 0
    return seal.first_at < end and seal.last_at >= start


def _lines(files: Sequence[Path], columns: Mapping[str, str]) -> str:
    """The records of files, or no row with the same columns. Other fields are not read; a torn line is all null."""
    if not files:
        empty = ", ".join(f'cast(null as {kind}) as "{name}"' for name, kind in columns.items())
        return f"(select {empty} where false)"
    names = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    return f"read_json([{names}], format = 'newline_delimited', columns = {{{types}}}, ignore_errors = true)"
