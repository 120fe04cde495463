"""Connections to the state store: SQLite (WAL) in the home, or Postgres by URL, and the schema that is there."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from boucle.errors import NotSetUpError, StateStoreError

REVISION = "0002"
"""The newest schema in `migrations/versions`: the one that the tables of `sql_state` and `sql_triggers` are."""
LOCK_SECONDS = 10
"""How long a writer waits for another one to finish, on SQLite."""
_FROZEN = (
    " Another process began to write and has not finished: one that is stopped or hangs, like a frozen replica, holds "
    "SQLite's only lock until it goes on or is ended. Postgres has no such lock."
)
_SET_UP = "`boucle dev` or `boucle feed` sets it up."


def migrate(url: str) -> None:
    """Bring the schema at `url` to the newest revision; a store that is there already keeps its rows.

    Raises:
        StateStoreError: A newer release wrote the store, or it cannot be written.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    if url.startswith("sqlite:///"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = connect(url)
    try:
        with converted(), engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        place = engine.url.render_as_string(hide_password=True)
        raise StateStoreError(f"The state store at {place} cannot be brought up to date: {error}.") from error
    finally:
        engine.dispose()


def open_engine(url: str) -> sa.Engine:
    """Connect to a store that has been set up.

    Raises:
        NotSetUpError: There is no store at `url`, or its tables are those of an earlier release.
        StateStoreError: It cannot be read, or a newer release wrote it.
    """
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        raise NotSetUpError(f"There is no state store at {url} yet. {_SET_UP}")
    engine = connect(url)
    with converted(), engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        found = _revision(connection)
    if found == REVISION:
        return engine
    engine.dispose()
    place = engine.url.render_as_string(hide_password=True)
    if found > REVISION:
        raise StateStoreError(
            f"The state store at {place} was written by a newer boucle (schema {found}, this one knows {REVISION}). "
            "Install that release. Nothing was changed."
        )
    raise NotSetUpError(f"The state store at {place} has schema {found or 'none'}, not {REVISION}. {_SET_UP}")


@contextmanager
def converted() -> Iterator[None]:
    """An error of the database, but for a broken constraint, is a StateStoreError."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except sa.exc.DatabaseError as error:
        frozen = _FROZEN if "database is locked" in str(error.orig) else ""
        raise StateStoreError(f"The state store cannot be used: {error.orig}.{frozen} Nothing was changed.") from error


def connect(url: str) -> sa.Engine:
    """An engine for the store at `url`; nothing is opened yet."""
    engine = sa.create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _sqlite_connect)
        sa.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _revision(connection: sa.Connection) -> str:
    """The schema's revision; empty when the store was never set up. Revisions sort as text."""
    if "alembic_version" not in sa.inspect(connection).get_table_names():
        return ""
    return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() or "")


def _sqlite_connect(connection: Any, _record: object) -> None:
    # The driver must not begin transactions by itself: a writer has to take the lock before it reads (see below).
    connection.isolation_level = None
    # The wait comes first: switching to WAL needs the lock for a moment.
    wait = f"busy_timeout={int(LOCK_SECONDS * 1000)}"
    for pragma in (wait, "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _sqlite_begin(connection: sa.Connection) -> None:
    # IMMEDIATE: compare-and-set reads and writes under one lock, so two promotions cannot both see the old head.
    # Reads take none: SQLite knows no level of that name, so only the option tells them apart.
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
