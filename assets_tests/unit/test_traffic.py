"""Assignment of entities to arms."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.traffic_plan import Arm, Role, Strategy, TrafficPlan
from boucle.policy.traffic import assign, draw, is_shadowed, place

keys = st.text(min_size=1, max_size=20).map(EntityKey)
weights = st.integers(min_value=0, max_value=100)
USERS = [EntityKey(str(number)) for number in range(20_000)]


def arm(version: int, weight: float, role: Role) -> Arm:
    return Arm(version=ModelVersion(version), bundle_digest=Digest(str(version) * 64), weight=weight, role=role)


def plan(*, trial_weight: float, revision: int = 1) -> TrafficPlan:
    return TrafficPlan(
        model=ModelName("repurchase"),
        revision=revision,
        strategy=Strategy.CANARY,
        arms=(arm(1, 100 - trial_weight, Role.PRODUCTION), arm(2, trial_weight, Role.CHALLENGER)),
        decision_id=revision,
        created_at=datetime(1997, 4, 1, tzinfo=UTC),
        created_by="test",
        reason="",
    )


@given(key=keys)
def test_everyone_goes_to_production_when_the_trial_has_no_weight(key: EntityKey):
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


@given(key=keys, weight=st.integers(min_value=1, max_value=98), other=st.integers(min_value=1, max_value=98))
def test_of_several_arms_one_that_grows_takes_from_the_others_and_moves_nobody_between_them(key, weight, other):
    # Arms 2 and 3 keep their shares of what arm 1 leaves.
    def three(first: float) -> TrafficPlan:
        rest = 100 - first
        made = plan(trial_weight=0)
        arms = [
            arm(1, first, Role.CHALLENGER),
            arm(2, rest * 0.25, Role.CHALLENGER),
            arm(3, rest * 0.75, Role.PRODUCTION),
        ]
        return made.model_copy(update={"arms": tuple(arms)})

    lower, higher = sorted((weight, other))
    before, after = assign(three(lower), key).version, assign(three(higher), key).version
    assert after in {before, 1}


@pytest.mark.parametrize("entities", [100_000, pytest.param(1_000_000, marks=pytest.mark.nightly)])
def test_arms_get_their_weights_within_binomial_error_and_stay_through_steps(entities: int):
    keys = [EntityKey(str(number)) for number in range(entities)]
    plans = [plan(trial_weight=weight) for weight in (1, 5, 25)]
    before: set[EntityKey] = set()
    for one, share in zip(plans, (0.01, 0.05, 0.25), strict=True):
        drawn = draw(one)
        on_trial = {key for key in keys if drawn(key).version == 2}
        four_deviations = 4 * (entities * share * (1 - share)) ** 0.5
        assert abs(len(on_trial) - entities * share) <= four_deviations
        assert before <= on_trial
        before = on_trial


def test_the_place_of_an_entity_is_the_one_we_wrote_down():
    # Replicas of two releases and the platform must agree: these numbers never change.
    assert [place("repurchase", EntityKey(key)) for key in ("1", "4", "ü")] == [
        0.8065317250095615,
        0.45356529899336545,
        0.17708541982854342,
    ]
    assert all(0 < place("repurchase", key) < 1 for key in USERS[:1_000])


def test_places_of_two_rollouts_are_independent():
    both = sum(place("a", key) < 0.5 and place("b", key) < 0.5 for key in USERS)
    assert 4_750 <= both <= 5_250


def test_a_bandit_draws_anew_with_each_plan():
    def of(revision: int) -> TrafficPlan:
        return plan(trial_weight=50, revision=revision).model_copy(update={"strategy": Strategy.BANDIT})

    kept = sum(assign(of(1), key) == assign(of(2), key) for key in USERS)
    # 20,000 x 50 % = 10,000; four standard deviations of a binomial are 283.
    assert 9_717 <= kept <= 10_283


@given(key=keys, lower=weights, higher=weights)
def test_a_higher_shadow_share_only_adds_entities(key: EntityKey, lower: int, higher: int):
    lower, higher = sorted((lower, higher))
    if is_shadowed(plan(trial_weight=5).model_copy(update={"shadow_share": lower}), key):
        assert is_shadowed(plan(trial_weight=5).model_copy(update={"shadow_share": higher}), key)


def test_who_is_shadowed_does_not_depend_on_who_is_on_trial():
    half = plan(trial_weight=50).model_copy(update={"shadow_share": 50})
    both = sum(is_shadowed(half, key) and assign(half, key).version == 2 for key in USERS)
    # 20,000 x 25 % = 5,000; four standard deviations of a binomial are 245.
    assert 4_755 <= both <= 5_245
