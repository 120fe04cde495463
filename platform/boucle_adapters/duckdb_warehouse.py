"""The warehouse: one DuckDB file, open in one process at a time.

DuckDB itself fails when a second process opens the file. Here the second one waits at a lock file, says for whom, and
gives up after a time-out. The lock is the operating system's: it ends with the process that holds it, however it ends.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from boucle.contracts.data import LandingReceipt
from boucle.contracts.ids import Digest, ModelName, PeriodKey
from boucle.errors import BoucleError, ConfigurationError, NotEnoughDataError
from boucle.features.digest import content_digest
from boucle.features.raw_source import Kind, RawSource

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.05


class WarehouseBusyError(BoucleError):
    """Another process held the warehouse for longer than we wait; nothing was read or written."""


@dataclass(frozen=True)
class DuckDBWarehouse:
    """The DuckDB file of one home. `timeout_seconds` is the longest wait for another process."""

    file: Path
    timeout_seconds: float = 120.0

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the warehouse without opening it, for a child process (dbt) that opens it. Not reentrant.

        Raises:
            WarehouseBusyError: Another holder did not let go in time.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            self._acquire(handle)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the warehouse for this process alone; its session counts in UTC. Closed when the block ends.

        Raises:
            WarehouseBusyError: Another holder did not let go in time.
            NotEnoughDataError: `read_only` and nothing has been landed yet.
        """
        with self.lock():
            if read_only and not self.file.exists():
                raise NotEnoughDataError(f"There is no warehouse {self.file.name} yet: land a period first.")
            connection = self._open(read_only=read_only)
            try:
                connection.execute("SET TimeZone = 'UTC'")
                yield connection
            finally:
                connection.close()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> pd.DataFrame:
        """The rows of one query."""
        with self.connect(read_only=True) as connection:
            return connection.execute(sql, list(parameters)).df()

    @property
    def _lock_file(self) -> Path:
        return self.file.with_name(f"{self.file.name}.lock")

    def _acquire(self, handle: int) -> None:
        deadline = time.monotonic() + self.timeout_seconds
        told = False
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = os.pread(handle, 32, 0).decode(errors="replace") or "unknown"
            else:
                return
            if time.monotonic() >= deadline:
                raise self._busy(f"process {holder} holds it")
            if not told:
                _log.info("Waiting for the warehouse %s: process %s holds it.", self.file.name, holder)
                told = True
            time.sleep(_POLL_SECONDS)

    def _open(self, *, read_only: bool) -> duckdb.DuckDBPyConnection:
        # Another program may hold the file without our lock (a DuckDB shell): then DuckDB's own lock is waited for.
        deadline = time.monotonic() + self.timeout_seconds
        told = False
        while True:
            try:
                return duckdb.connect(self.file, read_only=read_only)
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise
                if time.monotonic() >= deadline:
                    raise self._busy(str(error).splitlines()[0]) from error
                if not told:
                    _log.info("Waiting for the warehouse %s: %s", self.file.name, str(error).splitlines()[0])
                    told = True
                time.sleep(_POLL_SECONDS)

    def _busy(self, why: str) -> WarehouseBusyError:
        return WarehouseBusyError(
            f"The warehouse {self.file.name} was busy for {self.timeout_seconds:g} s: {why}. Wait for that run to end "
            "or end that process, then run this step again. Nothing was read or written."
        )


def load_landing(
    connection: duckdb.DuckDBPyConnection,
    source: RawSource,
    rows: pd.DataFrame,
    *,
    period: PeriodKey,
    source_file: str,
    quarantined: int,
    landed_at: datetime,
    file_digest: Digest,
) -> LandingReceipt:
    """Add a period's rows to `raw.<source>` as its next version, in one transaction; the same content changes nothing.

    Args:
        connection: The open warehouse.
        source: Gives the columns and their types in the warehouse.
        rows: Typed rows that meet the raw contract, with the source's columns.
        period: The period landed.
        source_file: Path of the file within the landing zone.
        quarantined: Rows of the file that were set aside.
        landed_at: Moment of the landing: from then on a correction can be known.
        file_digest: SHA-256 of the file's bytes.

    Raises:
        ConfigurationError: Another model has a source of this name, or the table has other columns.
    """
    digest = content_digest(rows, list(source.column_names))
    connection.begin()
    try:
        _create_tables(connection, source)
        version, newest = _newest_version(connection, source, period)
        changed = newest != digest
        receipt = LandingReceipt(
            model=source.model,
            source=source.name,
            period=period,
            version=version + changed,
            source_file=source_file,
            content_digest=digest,
            rows=len(rows),
            quarantined=quarantined,
            changed=changed,
            landed_at=landed_at,
            file_digest=file_digest,
        )
        if changed:
            _insert(connection, source, rows, receipt)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
    return receipt


def copy_raw(source: DuckDBWarehouse, target: DuckDBWarehouse) -> None:
    """Copy every landed row and its receipt into a warehouse that has none.

    Raises:
        NotEnoughDataError: Nothing has been landed yet.
    """
    with source.connect(read_only=True) as connection:
        tables = [row[0] for row in connection.execute(_RAW_TABLES).fetchall()]
    with source.lock(), target.connect() as connection:
        file = str(source.file).replace("'", "''")
        connection.execute(f"ATTACH '{file}' AS landed (READ_ONLY)")
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        for table in tables:
            connection.execute(f'CREATE TABLE raw."{table}" AS SELECT * FROM landed.raw."{table}"')  # noqa: S608 - ours
        connection.execute("DETACH landed")


_RAW_TABLES = "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'raw' ORDER BY table_name"


def declare_source(connection: duckdb.DuckDBPyConnection, source: RawSource) -> None:
    """Make the source's table, empty, where it is not there yet: SQL may read a source that has not landed anything."""
    connection.begin()
    try:
        _create_tables(connection, source)
        connection.commit()
    except BaseException:
        connection.rollback()
        raise


def landed_rows(connection: duckdb.DuckDBPyConnection, source: RawSource) -> dict[PeriodKey, int]:
    """Rows of the newest version of each landed period, oldest period first."""
    if not _exists(connection, "landings"):
        return {}
    found = connection.execute(
        "SELECT period, arg_max(rows, version) FROM raw.landings WHERE model = ? AND source = ? "
        "GROUP BY period ORDER BY period",
        [source.model, source.name],
    ).fetchall()
    return {PeriodKey(period): int(rows) for period, rows in found}


def correction_moments(
    connection: duckdb.DuckDBPyConnection, model: ModelName, last: PeriodKey
) -> tuple[datetime, ...]:
    """When later versions of the model's periods up to `last` landed (naive UTC), of all its sources."""
    if not _exists(connection, "landings"):
        return ()
    found = connection.execute(
        "SELECT DISTINCT CAST(landed_at AS TIMESTAMP) FROM raw.landings "
        "WHERE model = ? AND version > 1 AND period <= ? ORDER BY 1",
        [model, last],
    ).fetchall()
    return tuple(row[0] for row in found)


def _create_tables(connection: duckdb.DuckDBPyConnection, source: RawSource) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS raw.landings (model VARCHAR, source VARCHAR, period VARCHAR, version INTEGER, "
        "content_digest VARCHAR, rows BIGINT, quarantined BIGINT, source_file VARCHAR, landed_at TIMESTAMPTZ, "
        "PRIMARY KEY (model, source, period, version))"
    )
    other = connection.execute(
        "SELECT any_value(model) FROM raw.landings WHERE source = ? AND model <> ?", [source.name, source.model]
    ).fetchall()[0][0]
    if other is not None:
        raise ConfigurationError(
            f"The source '{source.name}' belongs to the model '{other}': give the source of '{source.model}' a name of "
            "its own in defs.yaml. Nothing was landed."
        )
    columns = {column.name: column.kind.value for column in source.columns} | {
        "period": "VARCHAR",
        "version": "INTEGER",
        "source_file": "VARCHAR",
        "content_digest": "VARCHAR",
        "landed_at": "TIMESTAMPTZ",
    }
    declared = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    connection.execute(f'CREATE TABLE IF NOT EXISTS raw."{source.name}" ({declared})')
    found = [row[0] for row in connection.execute(f'DESCRIBE raw."{source.name}"').fetchall()]
    if found != list(columns):
        raise ConfigurationError(
            f"raw.{source.name} has the columns {', '.join(found)}, the source declares {', '.join(columns)}. Give the "
            "changed source a new name, or start from an empty home. Nothing was landed."
        )


def _newest_version(
    connection: duckdb.DuckDBPyConnection, source: RawSource, period: PeriodKey
) -> tuple[int, Digest | None]:
    found = connection.execute(
        "SELECT version, content_digest FROM raw.landings WHERE model = ? AND source = ? AND period = ? "
        "ORDER BY version DESC LIMIT 1",
        [source.model, source.name, period],
    ).fetchall()
    return (int(found[0][0]), Digest(found[0][1])) if found else (0, None)


def _insert(
    connection: duckdb.DuckDBPyConnection, source: RawSource, rows: pd.DataFrame, receipt: LandingReceipt
) -> None:
    names = ", ".join(f'"{name}"' for name in source.column_names)
    connection.register("landing_rows", _exact(source, rows))
    connection.execute(
        f'INSERT INTO raw."{source.name}" SELECT {names}, ?, ?, ?, ?, ? FROM landing_rows',  # noqa: S608 (our own names)
        [receipt.period, receipt.version, receipt.source_file, receipt.content_digest, receipt.landed_at],
    )
    connection.unregister("landing_rows")
    connection.execute(
        "INSERT INTO raw.landings VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            receipt.model,
            receipt.source,
            receipt.period,
            receipt.version,
            receipt.content_digest,
            receipt.rows,
            receipt.quarantined,
            receipt.source_file,
            receipt.landed_at,
        ],
    )


def _exact(source: RawSource, rows: pd.DataFrame) -> Any:
    # From a DataFrame DuckDB guesses the width of decimals and the type of sparse text from a sample of the rows; an
    # Arrow table says them.
    import pyarrow as pa

    types = {
        Kind.TEXT: pa.string(),
        Kind.DATE: pa.date32(),
        Kind.INTEGER: pa.int64(),
        Kind.MONEY: pa.decimal128(12, 2),
        Kind.NUMBER: pa.float64(),
        Kind.MOMENT: pa.timestamp("us", tz="UTC"),
    }
    schema = pa.schema([(column.name, types[column.kind]) for column in source.columns])
    return pa.Table.from_pandas(rows, schema=schema, preserve_index=False)


def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'raw' AND table_name = ?", [table]
    ).fetchall()
    return bool(found[0][0])
