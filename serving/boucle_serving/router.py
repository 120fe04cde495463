"""A traffic plan applied to one request. The rule itself is `boucle.policy.traffic.assign`."""

from typing import NamedTuple

from boucle.contracts.ids import EntityKey
from boucle.contracts.traffic_plan import Arm
from boucle.policy.traffic import assign
from boucle_serving.predictor import LoadedBundle, ServedModel


class Routed(NamedTuple):
    """The arm drawn for the entity, the arm that answers (a guard may differ), and the model of the latter."""

    assigned: Arm
    answering: Arm
    bundle: LoadedBundle


def route(served: ServedModel, entity_key: EntityKey) -> Routed:
    """Who answers this entity under the plan that is served."""
    arm = served.sole_arm or assign(served.plan, entity_key)
    return Routed(arm, arm, served.bundles[arm.bundle_digest])
