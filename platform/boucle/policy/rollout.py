"""Arms of a traffic plan."""

from collections.abc import Mapping

from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.traffic_plan import Arm, Role
from boucle.errors import NoProductionModelError


def direct_arms(
    bundles: Mapping[ModelVersion, Digest], *, production: ModelVersion, previous: ModelVersion | None
) -> tuple[Arm, ...]:
    """Production answers everybody; the previous version stands by with weight 0, kept warm for a rollback.

    Raises:
        NoProductionModelError: There is no bundle of the production version.
    """
    if production not in bundles:
        raise NoProductionModelError(
            f"Version {production} has no release bundle, so it cannot answer; nothing changed."
        )
    arms = (Arm(version=production, bundle_digest=bundles[production], weight=100, role=Role.PRODUCTION),)
    if previous is None or previous == production or previous not in bundles:
        return arms
    return (*arms, Arm(version=previous, bundle_digest=bundles[previous], weight=0, role=Role.STANDBY))
