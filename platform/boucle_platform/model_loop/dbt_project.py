"""The dbt project as boucle runs it: manifest made when the SQL changed, target and logs in the home."""

import fcntl
import hashlib
import os
from datetime import datetime
from pathlib import Path

from boucle.errors import ConfigurationError
from boucle.features.knowledge import BuildWindow
from boucle_adapters.code_version import tree_digest
from boucle_adapters.settings import Settings


def dbt_environment(settings: Settings) -> dict[str, str]:
    """The variables that `profiles.yml` and dbt read."""
    return {
        "BOUCLE_WAREHOUSE": str(settings.warehouse_file),
        "DBT_TARGET_PATH": str(target_path(settings)),
        "DBT_LOG_PATH": str(settings.home_dir / "dbt" / "logs"),
        "DBT_PROFILES_DIR": str(project_path(settings)),
        "DBT_PROJECT_DIR": str(project_path(settings)),
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    }


def window_environment(window: BuildWindow, *, horizon_days: int) -> dict[str, str]:
    """The variables that the macros of a build read (dbt_features/macros/window.sql)."""
    return {
        "BOUCLE_PERIOD_START": _naive(window.start),
        "BOUCLE_PERIOD_END": _naive(window.end),
        "BOUCLE_KNOWN_AT": "" if window.known_at is None else _naive(window.known_at),
        "BOUCLE_HORIZON_DAYS": str(horizon_days),
    }


def _naive(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(sep=" ")


def project_path(settings: Settings) -> Path:
    """Where the dbt project is."""
    return settings.project_dir / "dbt_features"


def target_path(settings: Settings) -> Path:
    """Where dbt writes what it compiled, for this home."""
    return settings.home_dir / "dbt" / "target"


def manifest(settings: Settings) -> Path:
    """The manifest of the project as it is now; parsed again only when a file of it changed.

    Raises:
        ConfigurationError: dbt cannot parse the project; the error ends with what dbt said.
    """
    target = target_path(settings)
    target.mkdir(parents=True, exist_ok=True)
    file, stamp = target / "manifest.json", target / "boucle_sources"
    with (target / "boucle.lock").open("w") as lock:
        # Code server, webserver and daemon load definitions at the same time: one of them parses.
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = tree_digest(settings.project_dir, ("dbt_features",))
        if not (file.exists() and stamp.exists() and stamp.read_text() == digest):
            _parse(settings)
            stamp.write_text(digest)
    return file


def sql_version(settings: Settings, sql: str) -> str:
    """What marks a dbt model's asset as stale when it changes: its own SQL, and every macro of the project."""
    return hashlib.sha256(f"{tree_digest(project_path(settings), ('macros',))}\n{sql}".encode()).hexdigest()[:12]


def _parse(settings: Settings) -> None:
    # In this process: the builds that follow need dbt anyway, and a process of its own takes 8 s where this takes 3.
    from boucle_platform.model_loop.dbt_build import SILENT, run_dbt

    os.environ.update(dbt_environment(settings))
    _, error = run_dbt([*(word for word in SILENT if word != "--no-write-json"), "parse"])
    if error:
        raise ConfigurationError(f"dbt cannot parse {project_path(settings)}:\n{error[-2000:]}")
