"""The dbt project as boucle runs it: manifest made when the SQL changed, target and logs in the home."""

import fcntl
import hashlib
import os
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from boucle.errors import ConfigurationError
from boucle.features.knowledge import BuildWindow
from boucle_adapters.code_version import tree_digest
from boucle_adapters.settings import Settings

_STAMP = "boucle_sources"
"""What was parsed (`_sources`); written last."""
_PARSED = "partial_parse.msgpack"


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


def parse_path(settings: Settings) -> Path:
    """Where the parsed project is. It holds nothing of a home, so homes of the same code may share it."""
    return settings.dbt_parse_dir.expanduser().absolute() if settings.dbt_parse_dir else target_path(settings)


def manifest(settings: Settings) -> Path:
    """The manifest of the project as it is now; parsed again only when a file of it changed.

    Raises:
        ConfigurationError: dbt cannot parse the project; the error ends with what dbt said.
    """
    folder, digest = parse_path(settings), _sources(settings)
    if not _parsed(folder, digest):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "boucle.lock").open("w") as lock:
            # Code server, webserver and daemon load definitions at the same time: one of them parses.
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not _parsed(folder, digest):
                _parse(settings)
                (folder / _STAMP).write_text(digest)
    return folder / "manifest.json"


def parsed_project(settings: Settings) -> Any:
    """What dbt made of the project, for a build that need not parse it: a `Manifest` of dbt, new each time.

    dbt's own way to skip files that did not change compares the variables of the profile as well, of which one is the
    path of the warehouse: it would parse everything again in a home that was moved or copied.

    Raises:
        ConfigurationError: As `manifest`.
    """
    from dbt.contracts.graph.manifest import Manifest

    file = manifest(settings).with_name(_PARSED)
    parsed = Manifest.from_msgpack(file.read_bytes())
    parsed.build_flat_graph()  # type: ignore[no-untyped-call]
    return parsed


def sql_version(settings: Settings, sql: str) -> str:
    """What marks a dbt model's asset as stale when it changes: its own SQL, and every macro of the project."""
    return hashlib.sha256(f"{tree_digest(project_path(settings), ('macros',))}\n{sql}".encode()).hexdigest()[:12]


def _sources(settings: Settings) -> str:
    """What a parse is made of: the project's files, and dbt with the macros of its adapter."""
    return " ".join([tree_digest(settings.project_dir, ("dbt_features",)), *map(version, ("dbt-core", "dbt-duckdb"))])


def _parsed(folder: Path, digest: str) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_text() == digest


def _parse(settings: Settings) -> None:
    # In this process: the builds that follow need dbt anyway, and a process of its own takes 8 s where this takes 3.
    from boucle_platform.model_loop.dbt_build import SILENT, run_dbt

    os.environ.update(dbt_environment(settings))
    words = [
        *(word for word in SILENT if word != "--no-write-json"),
        "parse",
        "--target-path",
        str(parse_path(settings)),
    ]
    _, error = run_dbt(words)
    if error:
        raise ConfigurationError(f"dbt cannot parse {project_path(settings)}:\n{error[-2000:]}")
