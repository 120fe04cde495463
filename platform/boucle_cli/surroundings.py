"""What `boucle doctor` finds around a home: environment, stores, clock, disk, ports, versions, tokens."""

from collections.abc import Callable
from typing import Any

from boucle.errors import BoucleError
from boucle_adapters.environment import environment_file
from boucle_adapters.settings import Settings


def finding(name: str, look: Callable[[], str]) -> dict[str, Any]:
    """One thing that can be wrong: what was found, or what is wrong and how it is mended."""
    try:
        return {"check": name, "ok": True, "found": look()}
    except BoucleError as error:
        return {"check": name, "ok": False, "found": str(error)}


def environment(settings: Settings) -> str:
    """Where the settings come from; a wrong one stopped the start before this is asked."""
    if not settings.environment:
        return "none is named (BOUCLE_ENVIRONMENT): embedded, SQLite and files in the home"
    return f"{settings.environment}, {environment_file(settings.project_dir, settings.environment)}"
