"""Who is answered by which arm: a pure function of the plan and the entity, so that the platform can recompute it."""

from collections.abc import Callable
from hashlib import blake2b
from math import inf, log
from struct import Struct

from boucle.contracts.ids import EntityKey
from boucle.contracts.traffic_plan import Arm, Strategy, TrafficPlan

_PLACES = 2.0**64
_EIGHT_NUMBERS = Struct(">8Q")
"""What a digest holds: one for each arm that a plan may have."""


def rollout_id(plan: TrafficPlan) -> str:
    """What entities are drawn for: it outlives the revisions of a rollout, so that an entity keeps its arm.

    A bandit draws anew with each plan: its weights follow the rewards, and estimates from its log are only right if who
    is drawn does not depend on who was drawn before.
    """
    rollout = plan.rollout.rollout_id if plan.rollout else str(plan.model)
    return f"{rollout}/{plan.revision}" if plan.strategy is Strategy.BANDIT else rollout


def place(salt: str, entity_key: EntityKey) -> float:
    """The place of an entity in (0, 1): even over entities, independent between salts.

    >>> place("repurchase", EntityKey("4")) == place("repurchase", EntityKey("4"))
    True
    """
    digest = blake2b(f"{salt}/{entity_key}".encode()).digest()
    first: int = _EIGHT_NUMBERS.unpack(digest)[0]
    return (first + 0.5) / _PLACES


def draw(plan: TrafficPlan) -> Callable[[EntityKey], Arm]:
    """What `assign` does for one plan, with all that does not depend on the entity worked out once."""
    answering = [(number, arm.weight, arm) for number, arm in enumerate(plan.arms) if arm.weight > 0]
    salted = blake2b(f"{rollout_id(plan)}/".encode())

    def drawn(entity_key: EntityKey) -> Arm:
        own = salted.copy()
        own.update(entity_key.encode())
        numbers = _EIGHT_NUMBERS.unpack(own.digest())
        first, shortest = answering[0][2], inf
        for number, weight, arm in answering:
            waited = -log((numbers[number] + 0.5) / _PLACES) / weight
            if waited < shortest:
                first, shortest = arm, waited
        return first

    return drawn if len(answering) > 1 else lambda _entity_key: answering[0][2]


def assign(plan: TrafficPlan, entity_key: EntityKey) -> Arm:
    """The arm of this entity: weighted rendezvous hashing (Schindelhauer and Schomaker 2005).

    Each arm (known by its place in the plan, which stays through a rollout) draws a waiting time for the entity,
    exponential with the arm's weight as its rate, and the first one has it: each gets its share, and a weight that
    rises against the others only adds entities to its arm, however many arms there are. Nobody goes back and forth
    during a rollout.
    """
    return draw(plan)(entity_key)


def is_shadowed(plan: TrafficPlan, entity_key: EntityKey) -> bool:
    """Whether requests of this entity are scored by the other arm as well; a higher share only adds entities."""
    return plan.shadow_share == 100 or (
        plan.shadow_share > 0 and place(f"{rollout_id(plan)}/shadow", entity_key) * 100 < plan.shadow_share
    )
