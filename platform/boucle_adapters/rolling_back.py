"""Rolling back and aborting, for people and for what guards them: neither Dagster nor MLflow is on the way."""

from dataclasses import dataclass
from typing import Any

from boucle.contracts.decision import Decision
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.operations import promotion, traffic
from boucle.operations.actor import Actor
from boucle.operations.aliases import reconcile_aliases
from boucle.ports import ModelRegistry, StateStore
from boucle_adapters.replicas import Followed, wait_until_served

FOLLOW_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """The decision, and how the live replicas followed."""

    decision: Decision
    followed: Followed

    def as_json(self) -> dict[str, Any]:
        """For people and programs: what moved, and the seconds until every live replica answered so."""
        followed = self.followed
        return {
            "decision": self.decision.decision_id,
            "from": self.decision.decision.from_version,
            "to": self.decision.decision.to_version,
            "replicas": followed.sentence(),
            "seconds_until_served": round(followed.seconds, 3) if followed.complete else None,
            "behind": list(followed.behind),
            "gone": list(followed.gone),
        }


def roll_back(
    state: StateStore,
    model: ModelName,
    *,
    reason: str,
    actor: Actor,
    replica_timeout_seconds: float,
    to: ModelVersion | None = None,
    leaving: ModelVersion | None = None,
) -> RolledBack:
    """Ledger and plan at once; then wait for the replicas and put on record how long they took.

    Raises:
        NoProductionModelError: There is nothing to go back to.
        ConflictError: Production is not `leaving`, or was rolled back just before.
    """
    decision, plan = promotion.roll_back(state, model, reason=reason, to=to, leaving=leaving, actor=actor)
    return _followed(state, decision, plan, actor, replica_timeout_seconds)


def abort(
    state: StateStore, model: ModelName, *, reason: str, actor: Actor, replica_timeout_seconds: float
) -> RolledBack:
    """End the open rollout at once; then wait for the replicas.

    Raises:
        ConflictError: No rollout is open.
    """
    decision, plan = traffic.abort(state, model, reason=reason, actor=actor)
    return _followed(state, decision, plan, actor, replica_timeout_seconds)


def _followed(
    state: StateStore, decision: Decision, plan: TrafficPlan, actor: Actor, replica_timeout_seconds: float
) -> RolledBack:
    followed = wait_until_served(
        state,
        plan.model,
        plan.revision,
        timeout_seconds=FOLLOW_TIMEOUT_SECONDS,
        replica_timeout_seconds=replica_timeout_seconds,
    )
    if followed.complete:
        traffic.note_served(state, plan, seconds=followed.seconds, actor=actor)
    return RolledBack(decision=decision, followed=followed)


def follow_in_registry(registry: ModelRegistry, state: StateStore, decision: Decision) -> tuple[str, ...]:
    """Put the registry's aliases where the ledger says; a sentence per alias that was elsewhere.

    Raises:
        RegistryError: It is away; the ledger and the requests do not wait for it.
    """
    moved = decision.decision
    aliases = reconcile_aliases(state, registry, moved.model)
    if moved.to_version is not None:
        registry.set_tags(moved.model, moved.to_version, {"ledger_head": decision.row_hash})
    return aliases
