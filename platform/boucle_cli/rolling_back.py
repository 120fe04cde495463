"""Rolling back: neither Dagster nor MLflow is on the way to the replicas."""

from typing import Any

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.errors import RegistryError
from boucle.operations import promotion
from boucle_adapters.home import Home
from boucle_adapters.replicas import wait_until_served

FOLLOW_TIMEOUT_SECONDS = 10


def roll_back(home: Home, model: ModelName, *, reason: str, to: ModelVersion | None, who: str) -> dict[str, Any]:
    """Ledger and plan first, at once; then wait for the replicas; the registry's aliases last."""
    decision, plan = promotion.roll_back(home.state, model, reason=reason, to=to, actor=home.actor(who, model))
    followed = wait_until_served(
        home.state,
        model,
        plan.revision,
        timeout_seconds=FOLLOW_TIMEOUT_SECONDS,
        replica_timeout_seconds=home.settings.replica_timeout_seconds,
    )
    if followed.complete:
        promotion.note_served(home.state, plan, seconds=followed.seconds, actor=home.actor(who, model))
    try:
        aliases = promotion.reconcile_aliases(home.state, home.registry, model)
        home.registry.set_tags(model, plan.production.version, {"ledger_head": decision.row_hash})
    except RegistryError as error:
        aliases = (f"The registry did not follow ({error}); `boucle doctor --fix` puts its aliases right.",)
    return {
        "from": decision.decision.from_version,
        "to": decision.decision.to_version,
        "decision": decision.decision_id,
        "replicas": followed.sentence(),
        "seconds_until_served": round(followed.seconds, 3) if followed.complete else None,
        "behind": list(followed.behind),
        "aliases": list(aliases),
    }
