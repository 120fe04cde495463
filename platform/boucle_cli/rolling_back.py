"""`boucle rollback` and the demo's: back at once, then the registry's aliases, if it answers."""

from typing import Any

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import RegistryError
from boucle_adapters import rolling_back
from boucle_adapters.home import Home


def roll_back(
    home: Home,
    model: ModelName,
    *,
    reason: str,
    who: str,
    to: ModelVersion | None = None,
    leaving: ModelVersion | None = None,
) -> dict[str, Any]:
    """What moved, how the replicas followed, and what was wrong with the aliases or why they do not follow yet."""
    done = rolling_back.roll_back(
        home.state,
        model,
        reason=reason,
        to=to,
        leaving=leaving,
        actor=home.actor(who, model),
        replica_timeout_seconds=home.settings.replica_timeout_seconds,
    )
    try:
        aliases = rolling_back.follow_in_registry(home.registry, home.state, done.decision)
    except RegistryError as error:
        aliases = (f"The registry did not follow ({error}); `boucle doctor --fix` puts its aliases right.",)
    return {**done.as_json(), "aliases": list(aliases)}
