"""Dagster's Postgres storage over connections that stay open."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import dagster as dg
import sqlalchemy as sa
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.utils import create_pg_engine

KEPT, AT_MOST = 3, 40
"""Connections of a process that stay open, and how many its threads may have at a time."""
_HAVE_TABLES: set[str] = set()


@cache
def open_engine(url: str) -> sa.Engine:
    """One pool for the whole process; a connection that the server closed meanwhile is replaced before it is used."""
    return create_pg_engine(
        url, isolation_level="AUTOCOMMIT", pool_size=KEPT, max_overflow=AT_MOST - KEPT, pool_pre_ping=True
    )


class OpenPostgres(DagsterPostgresStorage):
    """Keeps connections open between two queries.

    Outside its webserver Dagster opens one for each query, and logging in costs more than most of them: the daemon
    took half a processor and Postgres a quarter while nothing ran. Code servers make an instance for each request, so
    the connections belong to the process; and only its first instance looks whether the tables are there. What is
    written, where, and in which transaction stays as it is.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        super().__init__(postgres_url, postgres_url not in _HAVE_TABLES, inst_data)
        _HAVE_TABLES.add(postgres_url)
        for store in (self._run_storage, self._event_log_storage, self._schedule_storage):
            store._engine = open_engine(postgres_url)

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The URL, or the variable that holds it: it has a password."""
        return {"postgres_url": dg.StringSource}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "OpenPostgres":
        """As `dagster.yaml` names it."""
        return cls(config_value["postgres_url"], inst_data)
