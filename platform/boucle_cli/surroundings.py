"""What `boucle doctor` finds around a home: environment, stores, clock, disk, port, versions, tokens."""

import errno
import json
import os
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

import sqlalchemy as sa

from boucle.errors import BoucleError, ConfigurationError, ServiceError
from boucle_adapters.clock import wall_now
from boucle_adapters.environment import GUARDED, environment_file
from boucle_adapters.settings import Settings
from boucle_adapters.tokens import Role, TokenStore

FREE_BYTES = 2 * 1024**3
"""A retraining, its bundle and a day of logs fit into a tenth of it."""
CLOCK_SECONDS = 1.0
"""Replicas are live by a heartbeat of this host's clock, at most 3 s old by default."""
TIMEOUT_SECONDS = 5
VARIABLES_OF_OTHERS = (
    "BOUCLE_CONTAINERS", "BOUCLE_DAGSTER_STORE", "BOUCLE_HORIZON_DAYS", "BOUCLE_KNOWN_AT", "BOUCLE_PERIOD_END",
    "BOUCLE_PERIOD_START", "BOUCLE_SMOKE_LOGS", "BOUCLE_TOKEN", "BOUCLE_WAREHOUSE",
)  # fmt: skip
"""Read by dbt, Dagster's configuration, verbs with `--url` and the test of the stack; they are no settings."""


def surroundings(settings: Settings) -> list[dict[str, Any]]:
    """One finding per thing around the home that can be wrong."""
    return [
        finding("environment", lambda: environment(settings)),
        finding("variables are known", _variables),
        finding("state store answers", lambda: _database("state store", settings.state_store_url)),
        finding("Dagster's store answers", lambda: _database("store of Dagster", settings.dagster_store)),
        finding("model registry answers", lambda: _registry(settings.tracking_uri)),
        finding("clock agrees with the database", lambda: _clock(settings.state_store_url)),
        finding("disk has room", lambda: _disk(settings)),
        finding("port is free or ours", lambda: _port(settings)),
        finding("versions fit", _versions),
        finding("tokens are there", lambda: _tokens(settings)),
    ]


def finding(name: str, look: Callable[[], str]) -> dict[str, Any]:
    """One thing that can be wrong: what was found, or what is wrong and how it is mended."""
    try:
        return {"check": name, "ok": True, "found": look()}
    except BoucleError as error:
        return {"check": name, "ok": False, "found": str(error)}


def environment(settings: Settings, *, expected: str = "") -> str:
    """Where the settings come from; a wrong one stopped the start before this is asked.

    Raises:
        ConfigurationError: It is not the environment that is expected.
    """
    if expected and settings.environment != expected:
        raise ConfigurationError(
            f"BOUCLE_ENVIRONMENT is {settings.environment or 'not set'}, but {expected} is expected: a profile of "
            f"compose chooses services, the variable chooses the settings. Say BOUCLE_ENVIRONMENT={expected} as well. "
            "Nothing was started."
        )
    if not settings.environment:
        return "none is named (BOUCLE_ENVIRONMENT): embedded, SQLite and files in the home"
    return f"{settings.environment}, {environment_file(settings.project_dir, settings.environment)}"


def _variables() -> str:
    """Nothing reads a variable with a typing error, so nobody else would complain."""
    known = [*(f"BOUCLE_{name.upper()}" for name in Settings.model_fields), *VARIABLES_OF_OTHERS]
    given = sorted(name for name in os.environ if name.startswith("BOUCLE_"))
    if unknown := [name for name in given if name not in known]:
        meant = get_close_matches(unknown[0], known, n=1)
        raise ConfigurationError(
            f"Nothing reads {', '.join(unknown)}. {f'Did you mean {meant[0]}? ' if meant else ''}"
            "Correct the name, or unset it."
        )
    return ", ".join(given) or "none is set"


def _database(name: str, url: str) -> str:
    if not url or url.startswith("sqlite"):
        return "SQLite in the home"
    engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": TIMEOUT_SECONDS})
    place = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except (sa.exc.DBAPIError, ImportError) as error:
        said = getattr(error, "orig", error)
        raise ServiceError(
            f"The {name} at {place} does not answer ({str(said).strip()}). Start it, or correct its address in "
            "the file of the environment or in its variable."
        ) from error
    return place


def _registry(uri: str) -> str:
    if not uri.startswith("http"):
        return "SQLite in the home"
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=TIMEOUT_SECONDS):  # noqa: S310 - the address we were given
            return uri
    except (urllib.error.URLError, OSError) as error:
        raise ServiceError(
            f"MLflow at {uri} does not answer ({error}). Start it (`boucle start mlflow`), or correct "
            "BOUCLE_MLFLOW_TRACKING_URI."
        ) from error


def _clock(url: str) -> str:
    if url.startswith("sqlite"):
        return "one host, one clock"
    with suppress(sa.exc.DBAPIError):  # a store that is away is its own finding
        engine = sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": TIMEOUT_SECONDS})
        with engine.connect() as connection:
            theirs: datetime = connection.execute(sa.text("SELECT clock_timestamp()")).scalar_one()
        apart = abs((wall_now() - theirs.astimezone(UTC)).total_seconds())
        if apart > CLOCK_SECONDS:
            raise ConfigurationError(
                f"This host's clock and the database's are {apart:.1f} s apart, at most {CLOCK_SECONDS:g} s are well: "
                "live replicas would be taken for dead ones. Set both by NTP."
            )
        return f"{apart:.2f} s apart"
    return "not known: the state store does not answer"


def _disk(settings: Settings) -> str:
    folder = next(place for place in (settings.home_dir, *settings.home_dir.parents) if place.exists())
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        raise ConfigurationError(
            f"{free / 1024**3:.1f} GiB are free at {folder}, {FREE_BYTES / 1024**3:g} GiB are wanted: answers that "
            "cannot be logged are withheld. Free some, or move the home (BOUCLE_HOME)."
        )
    return f"{free / 1024**3:.0f} GiB free at {folder}"


def _port(settings: Settings) -> str:
    if settings.port == 0:
        return "any free one is taken"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            ours = [json.loads(file.read_text())["address"] for file in settings.home_dir.glob("serving-*.json")]
            if error.errno == errno.EADDRINUSE and any(address.endswith(f":{settings.port}") for address in ours):
                return f"{settings.port}: a replica of this home answers"
            if not settings.environment:
                return f"{settings.port} is taken; `boucle dev` takes another one"
            raise ConfigurationError(
                f"The API cannot answer on {settings.host}:{settings.port} ({error.strerror}). End what uses it, or "
                "set BOUCLE_HOST and BOUCLE_PORT."
            ) from error
    return f"{settings.port} is free"


def _versions() -> str:
    python = ".".join(map(str, sys.version_info[:3]))
    found = {name: version(name) for name in ("dagster", "mlflow", "sqlalchemy")}
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        raise ConfigurationError(f"Python {python} is not 3.11 or 3.12. Install again: make clean install.")
    if not found["sqlalchemy"].startswith("2.0."):
        raise ConfigurationError(
            f"SQLAlchemy {found['sqlalchemy']} takes another Postgres driver than Dagster brings; 2.0 is wanted. "
            "Install what the lock file says: make install."
        )
    return ", ".join([f"Python {python}", *(f"{name} {number}" for name, number in found.items())])


def _tokens(settings: Settings) -> str:
    if settings.environment not in GUARDED:
        return "asked in staging and production alone"
    wanted = {Role.APPROVER, Role.OPERATOR} | ({Role.CALLER} if settings.require_api_key else set())
    given = TokenStore(settings.tokens_file).roles()
    if missing := sorted(wanted - given):
        raise ConfigurationError(
            f"Nobody has the role {', '.join(missing)}, so nobody can decide or ask over HTTP. "
            f"`boucle token user:NAME --role {missing[0]}` makes a token."
        )
    return ", ".join(sorted(given))
