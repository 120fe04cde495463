"""Assignment of entities to arms."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.traffic_plan import Arm, Role, Strategy, TrafficPlan
from boucle.policy.traffic import BUCKETS, assign, bucket

keys = st.text(min_size=1, max_size=20).map(EntityKey)
weights = st.integers(min_value=0, max_value=100)
USERS = [EntityKey(str(number)) for number in range(20_000)]


def plan(*, trial_weight: float, revision: int = 1) -> TrafficPlan:
    def arm(version: int, weight: float, role: Role) -> Arm:
        return Arm(version=ModelVersion(version), bundle_digest=Digest(str(version) * 64), weight=weight, role=role)

    return TrafficPlan(
        model=ModelName("repurchase"),
        revision=revision,
        strategy=Strategy.DIRECT,
        arms=(arm(1, 100 - trial_weight, Role.PRODUCTION), arm(2, trial_weight, Role.STANDBY)),
        decision_id=revision,
        created_at=datetime(1997, 4, 1, tzinfo=UTC),
        created_by="test",
        reason="",
    )


@given(key=keys)
def test_everyone_goes_to_production_when_the_standby_has_no_weight(key: EntityKey):
    assert assign(plan(trial_weight=0), key).role is Role.PRODUCTION


@given(key=keys)
def test_nobody_stays_behind_when_the_trial_has_all_the_weight(key: EntityKey):
    assert assign(plan(trial_weight=100), key).version == 2


@given(key=keys, weight=weights)
def test_an_entity_keeps_its_arm_when_the_plan_gets_a_new_revision(key: EntityKey, weight: int):
    assert assign(plan(trial_weight=weight), key) == assign(plan(trial_weight=weight, revision=9), key)


@given(key=keys, lower=weights, higher=weights)
def test_a_higher_weight_only_adds_entities_to_the_trial(key: EntityKey, lower: int, higher: int):
    lower, higher = sorted((lower, higher))
    if assign(plan(trial_weight=lower), key).version == 2:
        assert assign(plan(trial_weight=higher), key).version == 2


def test_a_weight_of_five_per_cent_gets_five_per_cent_of_the_entities():
    on_trial = sum(assign(plan(trial_weight=5), key).version == 2 for key in USERS)
    # 20,000 x 5 % = 1,000; four standard deviations of a binomial are 123.
    assert 877 <= on_trial <= 1_123


def test_the_bucket_of_an_entity_is_the_one_we_wrote_down():
    # Replicas of two releases and the platform must agree: these numbers never change.
    assert [bucket("repurchase", EntityKey(key)) for key in ("1", "4", "ü")] == [6286, 3391, 8931]
    assert all(0 <= bucket("repurchase", key) < BUCKETS for key in USERS[:1_000])


def test_buckets_of_two_rollouts_are_independent():
    both = sum(bucket("a", key) < BUCKETS // 2 and bucket("b", key) < BUCKETS // 2 for key in USERS)
    assert 4_750 <= both <= 5_250
