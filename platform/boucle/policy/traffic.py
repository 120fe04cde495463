"""Who is answered by which arm: a pure function of the plan and the entity, so that the platform can recompute it."""

from hashlib import blake2b

from boucle.contracts.ids import EntityKey
from boucle.contracts.traffic_plan import Arm, Role, TrafficPlan

BUCKETS = 10_000
"""Weights have a resolution of 0.01 per cent."""


def rollout_id(plan: TrafficPlan) -> str:
    """What the assignment is drawn for. It outlives revisions and versions, so that an entity keeps its arm."""
    return plan.model


def bucket(rollout: str, entity_key: EntityKey) -> int:
    """The place of an entity in `[0, BUCKETS)`, even over entities and independent between rollouts.

    >>> bucket("repurchase", EntityKey("4")) == bucket("repurchase", EntityKey("4"))
    True
    """
    digest = blake2b(f"{rollout}/{entity_key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


def assign(plan: TrafficPlan, entity_key: EntityKey) -> Arm:
    """The arm of this entity. An arm on trial fills the lowest buckets, production has the rest.

    So a higher weight of a trial only adds entities to it: nobody goes back and forth during a rollout.
    """
    place = bucket(rollout_id(plan), entity_key)
    upper = 0.0
    for arm in plan.arms:
        if arm.role is not Role.PRODUCTION:
            upper += arm.weight * BUCKETS / 100
            if place < upper:
                return arm
    return plan.production
