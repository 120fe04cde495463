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

    @property
    def answered_by(self) -> tuple[str, str]:
        """Version and role of the answering arm, as headers and metrics name them."""
        return str(self.answering.version), self.answering.role.value


def route(served: ServedModel, entity_key: EntityKey | None) -> Routed:
    """Who answers under the plan that is served; where the caller names no entity, nobody is drawn: production."""
    arm = served.sole_arm or (served.plan.production if entity_key is None else assign(served.plan, entity_key))
    return Routed(arm, arm, served.bundles[arm.bundle_digest])
