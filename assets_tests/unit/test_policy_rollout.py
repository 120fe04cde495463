"""Arms of a direct plan."""

import pytest

from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.traffic_plan import Role
from boucle.errors import NoProductionModelError
from boucle.policy.rollout import direct_arms

ONE, TWO, THREE = ModelVersion(1), ModelVersion(2), ModelVersion(3)
BUNDLES = {ONE: Digest("1" * 64), TWO: Digest("2" * 64)}


def test_production_answers_everybody_and_the_previous_version_stands_by():
    arms = direct_arms(BUNDLES, production=TWO, previous=ONE)
    assert [(arm.version, arm.weight, arm.role) for arm in arms] == [(2, 100, Role.PRODUCTION), (1, 0, Role.STANDBY)]
    assert [arm.bundle_digest for arm in arms] == ["2" * 64, "1" * 64]


@pytest.mark.parametrize("previous", [None, ONE, THREE])
def test_without_another_known_version_nobody_stands_by(previous: ModelVersion | None):
    assert [arm.version for arm in direct_arms(BUNDLES, production=ONE, previous=previous)] == [1]


def test_a_version_without_bundle_cannot_answer():
    with pytest.raises(NoProductionModelError, match="Version 3 has no release bundle"):
        direct_arms(BUNDLES, production=THREE, previous=None)
