"""The state store in SQL: SQLite (WAL) in the home, or Postgres by URL. Serving opens it, the platform migrates it."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import sqlalchemy as sa
from pydantic import ValidationError

from boucle.contracts.decision import GENESIS, MOVES, PLANNED, Decision, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion, version_text
from boucle.contracts.ledger import Link, row_hash, verify_links
from boucle.contracts.traffic_plan import NewPlan, TrafficPlan, next_plan, plan_moved
from boucle.contracts.trigger import Trigger
from boucle.errors import ConflictError, LedgerError
from boucle_adapters.clock import wall_now
from boucle_adapters.logs import log_decision
from boucle_adapters.sql_connections import converted, migrate, open_engine
from boucle_adapters.sql_triggers import METADATA, TriggerTables, read_row

DECISION = sa.Table(
    "decision",
    METADATA,
    sa.Column("decision_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("model", sa.String(128), nullable=False, index=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("previous_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("row_hash", sa.String(64), nullable=False),
)
TRAFFIC_PLAN = sa.Table(
    "traffic_plan",
    METADATA,
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("document", sa.Text, nullable=False),
)
REPLICA = sa.Table(
    "replica",
    METADATA,
    sa.Column("replica", sa.String(128), primary_key=True),
    sa.Column("model", sa.String(128), primary_key=True),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("address", sa.String(256), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
)
TRIGGER = sa.Table(
    "trigger",
    METADATA,
    sa.Column("run_key", sa.String(256), primary_key=True),
    sa.Column("model", sa.String(128), nullable=False, index=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)
_KIND, _AT = re.compile('"kind":"([^"]+)"'), re.compile('"at":"([^"]+)"')


class SqlStateStore(TriggerTables):
    """`boucle.ports.StateStore` over SQLAlchemy Core."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """Open a store that has been set up.

        Raises:
            NotSetUpError: There is no store at `url`, or its tables are those of an earlier release.
            StateStoreError: It cannot be read, or a newer release wrote it.
        """
        return cls(open_engine(url))

    @classmethod
    def create(cls, url: str) -> Self:
        """Migrate the store to the newest schema, then open it."""
        migrate(url)
        return cls.open(url)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def decisions(self, model: ModelName | None = None) -> Sequence[Decision]:
        """All decisions, or those of one model, oldest first."""
        query = sa.select(DECISION).order_by(DECISION.c.decision_id)
        if model is not None:
            query = query.where(DECISION.c.model == model)
        with self._read() as connection:
            return [_decision(row) for row in connection.execute(query)]

    def verify(self) -> None:
        """Walk the chain of the whole ledger as it is stored. Raises LedgerError."""
        columns = (DECISION.c[name] for name in ("decision_id", "previous_hash", "row_hash", "document", "model"))
        with self._read() as connection:
            rows = connection.execute(sa.select(*columns).order_by(DECISION.c.decision_id)).all()
        verify_links(
            Link(number, previous, own, document.encode(), model) for number, previous, own, document, model in rows
        )

    def move_at(self, model: ModelName, moment: datetime) -> Decision | None:
        """The newest decision up to a moment that said which version is production, or None."""
        with self._read() as connection:
            rows = connection.execute(_newest_first(model))
            return next((_decision(row) for row in rows if _moved_by(row, moment)), None)

    def production(self, model: ModelName) -> ModelVersion | None:
        """The version that the ledger calls production."""
        with self._read() as connection:
            return _production(connection, model)

    def record(
        self, new: NewDecision, *, expected_production: ModelVersion | None, judged_up_to: int | None = None
    ) -> Decision:
        """Append a decision if production is what the caller saw and no decision came since. Raises ConflictError."""
        with self._write() as connection:
            _lock_ledger(connection)
            _expect_newest(connection, new, judged_up_to)
            decision = _append(connection, new, expected_production)
        log_decision(new)
        return decision

    def record_with_plan(
        self,
        new: NewDecision,
        *,
        expected_production: ModelVersion | None,
        plan: NewPlan,
        expected_revision: int | None = None,
        judged_up_to: int | None = None,
    ) -> tuple[Decision, TrafficPlan]:
        """Append a decision and the plan it causes in one transaction. Raises ConflictError."""
        with self._write() as connection:
            _lock_ledger(connection)
            current = _plan(connection, new.model)
            if expected_revision is not None and expected_revision != (current.revision if current else 0):
                raise ConflictError(plan_moved(new, expected_revision))
            _expect_newest(connection, new, judged_up_to)
            decision = _append(connection, new, expected_production)
            published = _publish(connection, decision, plan, actor=new.actor, at=new.at)
        log_decision(new)
        return decision, published

    def publish_plan(
        self,
        decision: Decision,
        *,
        plan: NewPlan,
        actor: str,
        at: datetime,
        expected_revision: int | None = None,
    ) -> TrafficPlan:
        """The next revision of the plan, for the newest move in the ledger; a plan that says the same changes nothing.

        Raises ConflictError when another move followed `decision`, or the plan is not what the caller saw.
        """
        with self._write() as connection:
            return _publish(connection, decision, plan, actor=actor, at=at, expected=expected_revision)

    def plan_history(self, model: ModelName) -> Sequence[TrafficPlan]:
        """Every revision, oldest first."""
        query = (
            sa.select(TRAFFIC_PLAN.c.document).where(TRAFFIC_PLAN.c.model == model).order_by(TRAFFIC_PLAN.c.revision)
        )
        with self._read() as connection:
            return [read_row(TrafficPlan, row) for row in connection.execute(query)]

    def plan(self, model: ModelName) -> TrafficPlan | None:
        """The plan of the highest revision, or None."""
        with self._read() as connection:
            return _plan(connection, model)

    def plans(self) -> Mapping[ModelName, TrafficPlan]:
        """The current plan of each model."""
        newest = (
            sa.select(TRAFFIC_PLAN.c.model, sa.func.max(TRAFFIC_PLAN.c.revision).label("revision"))
            .group_by(TRAFFIC_PLAN.c.model)
            .subquery()
        )
        query = sa.select(TRAFFIC_PLAN.c.document).join(
            newest, (TRAFFIC_PLAN.c.model == newest.c.model) & (TRAFFIC_PLAN.c.revision == newest.c.revision)
        )
        with self._read() as connection:
            plans = [read_row(TrafficPlan, row) for row in connection.execute(query)]
        return {plan.model: plan for plan in plans}

    def heartbeat(self, replica: str, revisions: Mapping[ModelName, int], address: str) -> None:
        """Say which revisions a replica serves now."""
        seen_at = wall_now()
        with self._write() as connection:
            connection.execute(sa.delete(REPLICA).where(REPLICA.c.replica == replica))
            rows = [
                {"replica": replica, "model": model, "revision": revision, "address": address, "seen_at": seen_at}
                for model, revision in revisions.items()
            ]
            if rows:
                connection.execute(sa.insert(REPLICA), rows)

    def replicas(self, *, max_age_seconds: float) -> Mapping[str, Mapping[ModelName, int]]:
        """Revisions by live replica: those with a heartbeat not older than this."""
        oldest = wall_now() - timedelta(seconds=max_age_seconds)
        with self._read() as connection:
            rows = list(connection.execute(sa.select(REPLICA).where(REPLICA.c.seen_at >= oldest)))
        live: dict[str, dict[ModelName, int]] = {}
        for row in rows:
            live.setdefault(row.replica, {})[ModelName(row.model)] = row.revision
        return live

    def addresses(self, *, max_age_seconds: float) -> Mapping[str, str]:
        """Where each live replica says that it answers."""
        oldest = wall_now() - timedelta(seconds=max_age_seconds)
        query = sa.select(REPLICA.c.replica, REPLICA.c.address).where(REPLICA.c.seen_at >= oldest)
        with self._read() as connection:
            return {row.replica: row.address for row in connection.execute(query)}

    def record_trigger(self, trigger: Trigger, at: datetime, decision: NewDecision | None = None) -> bool:
        """Keep a trigger and the decision that follows; False when its run key is there. Raises ConflictError."""
        row = {
            "run_key": trigger.run_key,
            "model": trigger.model,
            "at": at.astimezone(UTC),
            "document": trigger.model_dump_json(),
        }
        with self._write() as connection:
            _lock_ledger(connection)
            known = sa.select(TRIGGER.c.run_key).where(TRIGGER.c.run_key == trigger.run_key)
            if connection.execute(known).first() is not None:
                return False
            connection.execute(sa.insert(TRIGGER), row)
            if decision is not None:
                _append(connection, decision, trigger.production_version)
        if decision is not None:
            log_decision(decision)
        return True

    def triggers(self, model: ModelName) -> Sequence[tuple[datetime, Trigger]]:
        """All triggers of a model, oldest first."""
        query = sa.select(TRIGGER).where(TRIGGER.c.model == model).order_by(TRIGGER.c.at, TRIGGER.c.run_key)
        with self._read() as connection:
            return [
                (row.at.replace(tzinfo=row.at.tzinfo or UTC).astimezone(UTC), read_row(Trigger, row))
                for row in connection.execute(query)
            ]

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with converted(), self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with converted(), self._engine.begin() as connection:
            yield connection


def _lock_ledger(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("LOCK TABLE decision IN EXCLUSIVE MODE"))


def _decision(row: sa.Row[Any]) -> Decision:
    try:
        new = NewDecision.model_validate_json(row.document)
    except ValidationError as error:
        raise LedgerError(
            f"Ledger row {row.decision_id} of '{row.model}' is not what was written: it is no decision any more. "
            "Restore the state store from its backup."
        ) from error
    return Decision(
        decision_id=row.decision_id,
        previous_hash=Digest(row.previous_hash),
        row_hash=Digest(row.row_hash),
        decision=new,
    )


def _production(connection: sa.Connection, model: ModelName) -> ModelVersion | None:
    # Every row names production after it, moved or not, so the newest row of the model is the answer.
    row = connection.execute(_newest_first(model).limit(1)).first()
    return None if row is None else _decision(row).decision.to_version


def _newest_first(model: ModelName) -> sa.Select[Any]:
    return sa.select(DECISION).where(DECISION.c.model == model).order_by(DECISION.c.decision_id.desc())


def _moved_by(row: sa.Row[Any], moment: datetime) -> bool:
    """Whether a row moved production, and not later than this, seen without reading all of it: rows are many.

    Quotes inside a text are escaped in JSON, so what is found are the fields.
    """
    kind, at = _KIND.search(row.document), _AT.search(row.document)
    if kind is None or at is None:
        said = _decision(row).decision  # or the error that says what is wrong with it
        return said.kind in MOVES and said.at <= moment
    return kind[1] in MOVES and datetime.fromisoformat(at[1]) <= moment


def _last_move(connection: sa.Connection, model: ModelName) -> int | None:
    """The newest decision that says which version is production; few rows come after it."""
    found = (_decision(row) for row in connection.execute(_newest_first(model)))
    return next((row.decision_id for row in found if row.decision.kind in MOVES), None)


def _expect_newest(connection: sa.Connection, new: NewDecision, judged_up_to: int | None) -> None:
    newest = connection.execute(_newest_first(new.model).limit(1)).first()
    if judged_up_to is not None and judged_up_to != (newest.decision_id if newest else 0):
        raise ConflictError(
            f"Decisions about '{new.model}' were recorded after this {new.kind} was judged. Nothing was changed; look "
            "at the history and decide again."
        )


def _append(connection: sa.Connection, new: NewDecision, expected: ModelVersion | None) -> Decision:
    _lock_ledger(connection)
    current = _production(connection, new.model)
    if current != expected:
        raise ConflictError(
            f"Production of '{new.model}' is {version_text(current)}, not {version_text(expected)} as this "
            f"{new.kind} expected: somebody decided in between. Nothing was changed; look at `boucle history` and "
            "decide again."
        )
    head = connection.execute(sa.select(DECISION).order_by(DECISION.c.decision_id.desc()).limit(1)).first()
    previous = GENESIS if head is None else Digest(head.row_hash)
    decision = Decision(
        decision_id=1 if head is None else head.decision_id + 1,
        previous_hash=previous,
        row_hash=row_hash(previous, new),
        decision=new,
    )
    connection.execute(
        sa.insert(DECISION),
        {
            "decision_id": decision.decision_id,
            "model": new.model,
            "document": new.canonical().decode(),
            "previous_hash": previous,
            "row_hash": decision.row_hash,
        },
    )
    return decision


def _plan(connection: sa.Connection, model: ModelName) -> TrafficPlan | None:
    query = (
        sa.select(TRAFFIC_PLAN.c.document)
        .where(TRAFFIC_PLAN.c.model == model)
        .order_by(TRAFFIC_PLAN.c.revision.desc())
        .limit(1)
    )
    row = connection.execute(query).first()
    return None if row is None else read_row(TrafficPlan, row)


def _publish(
    connection: sa.Connection,
    decision: Decision,
    new: NewPlan,
    *,
    actor: str,
    at: datetime,
    expected: int | None = None,
) -> TrafficPlan:
    _lock_ledger(connection)
    model = decision.decision.model
    newest = _last_move(connection, model)
    if decision.decision.kind not in PLANNED or newest is None or newest > decision.decision_id:
        raise ConflictError(
            f"Decision {decision.decision_id} about '{model}' is not its newest move ({newest or 'there is none'}): "
            "somebody decided in between. The traffic plan was not changed; look at `boucle history` and decide again."
        )
    current = _plan(connection, model)
    if current is not None and current.says(new):
        return current
    if expected is not None and expected != (current.revision if current else 0):
        raise ConflictError(plan_moved(decision.decision, expected))
    plan = next_plan(current, decision, new, actor=actor, at=at)
    connection.execute(
        sa.insert(TRAFFIC_PLAN), {"model": model, "revision": plan.revision, "document": plan.model_dump_json()}
    )
    return plan
