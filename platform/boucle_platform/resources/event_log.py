"""Dagster's SQLite event log over connections that stay open."""

import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._core.storage.event_log.polling_event_watcher import SqlPollingEventWatcher
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData

BUSY_TIMEOUT_SECONDS = 30
OPEN_DATABASES = 8
"""A run has a database of its own, and one more is common to all runs."""


class OpenEventLog(SqliteEventLogStorage):
    """Keeps the connection to a database open between two events.

    Dagster opens and closes one per event, and closing the last connection to a WAL database writes the whole log back
    into it: with about 130 events, that was a fifth of the time of a run. What is written, where, and in which
    transaction stays as it is; `synchronous=NORMAL` loses nothing when a process is killed (SQLite, "PRAGMA
    synchronous": a WAL database may lose its last transactions when the power fails, and stays consistent).
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        self._engines: OrderedDict[str, sa.Engine] = OrderedDict()
        self._watcher: SqlPollingEventWatcher | None = None
        super().__init__(base_dir, inst_data)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Nothing to configure: a path in `dagster.yaml` would not follow a home that is moved or copied."""
        return {}

    @classmethod
    def from_config_value(
        cls,
        inst_data: ConfigurableClassData | None,
        config_value: Mapping[str, Any],  # noqa: ARG003
    ) -> "OpenEventLog":
        """As `dagster.yaml` names it, where Dagster's default keeps its events."""
        return cls(str(Path(os.environ["DAGSTER_HOME"], "history", "runs")), inst_data)

    def watch(self, run_id: str, cursor: str | None, callback: Callable[[dg.EventLogEntry, str], None]) -> None:
        """Tell of new events of a run, as the page of a run wants it; by asking the database.

        Dagster's class watches the database file, which does not change while a connection keeps the WAL open.
        """
        if self._watcher is None:
            self._watcher = SqlPollingEventWatcher(self)
        self._watcher.watch_run(run_id, cursor, callback)

    def end_watch(self, run_id: str, handler: Callable[[dg.EventLogEntry, str], None]) -> None:
        """Tell this handler no more."""
        if self._watcher is not None:
            self._watcher.unwatch_run(run_id, handler)

    def wipe(self) -> None:
        """Delete every event; an open connection would go on writing into a deleted file."""
        self.dispose()
        super().wipe()

    def dispose(self) -> None:
        """Close the connections."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        with self._db_lock:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        with self._db_lock:
            engine = self._engine(shard)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            with engine.connect() as connection, connection.begin():
                yield connection

    def _engine(self, shard: str) -> sa.Engine:
        engine = self._engines.pop(shard, None)
        if engine is None:
            engine = sa.create_engine(
                self.conn_string_for_shard(shard),
                poolclass=sa.StaticPool,  # one connection, handed from thread to thread under the lock
                connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False},
            )
            sa.event.listen(engine, "connect", _relaxed)
        self._engines[shard] = engine
        while len(self._engines) > OPEN_DATABASES:
            self._engines.popitem(last=False)[1].dispose()
        return engine


def _relaxed(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous=NORMAL")
