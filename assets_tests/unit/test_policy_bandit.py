"""How traffic follows rewards: weights, floors, rewards that are not known yet, and the end."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.ids import ModelVersion
from boucle.contracts.trials import ArmRewards, Outcome, TrialResult
from boucle.contracts.verdict import Verdict
from boucle.errors import ConfigurationError
from boucle.policy.bandit import (
    BanditPolicy,
    Logged,
    arm_rewards,
    bandit_gates,
    bandit_outcome,
    expected_losses,
    seeded,
    weights,
    win_probabilities,
)

POLICY = BanditPolicy(max_expected_loss=0.002)
QUICK = BanditPolicy(draws=200, floor=1)
ONE, TWO, THREE = ModelVersion(1), ModelVersion(2), ModelVersion(3)
WEEK = 7.0


def arm(version: ModelVersion, rewarded: int, reward_sum: float, *, pending: int = 0) -> ArmRewards:
    return ArmRewards(version=version, answered=rewarded + pending, rewarded=rewarded, reward_sum=reward_sum)


def planned(*arms: ArmRewards, policy: BanditPolicy = POLICY) -> dict[ModelVersion, float]:
    return weights(policy, arms, seeded("rollout", arms))


def outcome(*arms: ArmRewards, production: ModelVersion = ONE, days: float = WEEK) -> TrialResult:
    return bandit_outcome(POLICY, arms, seeded("rollout", arms), production=production, days=days)


rewards = st.integers(0, 100_000).flatmap(lambda n: st.tuples(st.just(n), st.floats(0, n)))


@given(st.lists(rewards, min_size=1, max_size=6), st.sampled_from([0.01, 1.0, 3.33, 16.66]))
def test_weights_are_hundredths_that_sum_to_everything_and_no_arm_is_below_the_floor(
    seen: list[tuple[int, float]], floor: float
):
    arms = [arm(ModelVersion(place), n, total) for place, (n, total) in enumerate(seen, 1)]
    found = planned(*arms, policy=QUICK.model_copy(update={"floor": floor}))
    assert sum(Decimal(str(weight)) for weight in found.values()) == 100
    assert all(weight >= floor and Decimal(str(weight)) % Decimal("0.01") == 0 for weight in found.values())
    assert list(found) == [one.version for one in arms]


def test_an_arm_that_is_surely_better_has_all_but_the_floors():
    assert planned(arm(ONE, 10_000, 100), arm(TWO, 10_000, 200), arm(THREE, 10_000, 100)) == {ONE: 5, TWO: 90, THREE: 5}


def test_without_any_reward_arms_are_alike():
    found = planned(arm(ONE, 0, 0), arm(TWO, 0, 0))
    assert found[ONE] == pytest.approx(50, abs=2)


def test_the_probability_of_being_best_is_worked_out_by_hand():
    """Beta(2, 1) against Beta(1, 1): the integral of x * 2x is 2/3."""
    arms = (arm(ONE, 1, 1), arm(TWO, 0, 0))
    policy = POLICY.model_copy(update={"draws": 100_000})
    assert win_probabilities(policy, arms, seeded("r", arms))[ONE] == pytest.approx(2 / 3, abs=0.01)


def test_the_expected_loss_is_worked_out_by_hand():
    """Of two uniform means the higher is 2/3 in expectation, one of them 1/2."""
    arms = (arm(ONE, 0, 0), arm(TWO, 0, 0))
    policy = POLICY.model_copy(update={"draws": 100_000})
    assert expected_losses(policy, arms, seeded("r", arms))[TWO] == pytest.approx(1 / 6, abs=0.005)


def test_pending_requests_are_no_zeros():
    few, many = arm(TWO, 1_000, 100), arm(TWO, 1_000, 100, pending=50_000)
    rng = np.random.default_rng
    assert many.pending == 50_000
    assert weights(POLICY, [arm(ONE, 1_000, 80), few], rng(1)) == weights(POLICY, [arm(ONE, 1_000, 80), many], rng(1))


def test_equal_facts_give_equal_weights_in_any_order_of_arms_and_other_facts_another_draw():
    arms = (arm(ONE, 300, 30), arm(TWO, 300, 33), arm(THREE, 300, 36))
    assert planned(*arms) == planned(*reversed(arms))
    assert seeded("a", arms).random() != seeded("b", arms).random()
    assert seeded("a", arms).random() != seeded("a", arms[:2]).random()


@pytest.mark.parametrize("arms", [(), tuple(arm(ModelVersion(place), 0, 0) for place in range(1, 22))])
def test_floors_that_do_not_fit_are_refused(arms: tuple[ArmRewards, ...]):
    with pytest.raises(ConfigurationError, match=f"{len(arms)} arms cannot have 5 per cent each"):
        planned(*arms)


def log(*rows: tuple[int, float, float, float, float]) -> Logged:
    """Rows of version, propensity, age, reward and delay."""
    version, propensity, age, reward, delay = (np.array(column) for column in zip(*rows, strict=True))
    return Logged(version=version, propensity=propensity, age_hours=age, reward=reward, delay_hours=delay)


NEVER = (float("nan"), float("nan"))


def test_a_reward_is_known_when_its_window_is_over_whatever_came():
    """Two known: one rewarded, one not. A reward that came early waits with the misses; one that came late is none."""
    found = arm_rewards(
        POLICY,
        log(
            (1, 0.5, 24.0, 1.0, 2.0),
            (1, 0.5, 24.0, *NEVER),
            (1, 0.5, 23.9, 1.0, 2.0),
            (1, 0.5, 23.9, *NEVER),
            (1, 0.5, 90.0, 1.0, 24.1),
        ),
        [ONE, TWO],
    )
    assert (found[0].answered, found[0].rewarded, found[0].reward_sum) == (5, pytest.approx(3), pytest.approx(1))
    assert found[1] == ArmRewards(version=TWO)


def test_counts_of_moving_weights_are_balanced_by_their_propensities():
    """Version 1 had 90 per cent of a good day (every request rewarded) and 10 of a bad one (none): with half of both it
    would have earned a half. Weights 10/9 and 10 for 9 and 1 requests: effective size 20^2 / (9 * 100/81 + 100)."""
    good = [(1, 0.9, 48.0, 1.0, 1.0)] * 9 + [(2, 0.1, 48.0, 1.0, 1.0)]
    bad = [(1, 0.1, 48.0, *NEVER)] + [(2, 0.9, 48.0, *NEVER)] * 9
    one, two = arm_rewards(POLICY, log(*good, *bad), [ONE, TWO])
    assert one.reward_sum / one.rewarded == pytest.approx(0.5)
    assert two.reward_sum / two.rewarded == pytest.approx(0.5)
    assert one.rewarded == pytest.approx(400 / (100 / 9 + 100))


def test_the_best_arm_wins_and_asks_for_promotion_but_moves_nothing_itself():
    found = outcome(arm(ONE, 20_000, 2_000), arm(TWO, 20_000, 2_400), arm(THREE, 2_000, 150))
    assert (found.outcome, found.winner) == (Outcome.WON, TWO)
    assert found.asks_for_promotion
    assert "Version 2 is the best arm" in found.reason
    assert {gate.name: gate.verdict for gate in found.gates} == {
        "expected_loss_of_1": Verdict.FAILED,
        "expected_loss_of_2": Verdict.PASSED,
        "expected_loss_of_3": Verdict.FAILED,
    }


def test_while_any_arm_has_too_few_known_rewards_none_is_chosen():
    found = outcome(arm(ONE, 20_000, 2_000), arm(TWO, 20_000, 3_000), arm(THREE, 999, 10, pending=5_000))
    assert found.outcome is Outcome.CONTINUE
    assert {gate.verdict for gate in found.gates} == {Verdict.INCONCLUSIVE}
    assert "fewer than 1000 known rewards" in found.gates[0].sentence()


def test_arms_without_rewards_have_no_measured_loss_and_are_never_good():
    gates = bandit_gates(POLICY, [arm(ONE, 0, 0), arm(TWO, 0, 0)], np.random.default_rng(1))
    assert {(gate.verdict, gate.measured) for gate in gates} == {(Verdict.INCONCLUSIVE, None)}


def test_where_production_is_best_or_as_good_nothing_is_promoted():
    best = outcome(arm(ONE, 20_000, 2_400), arm(TWO, 20_000, 2_000))
    assert (best.outcome, best.winner, best.asks_for_promotion) == (Outcome.LOST, ONE, False)
    alike = outcome(arm(ONE, 200_000, 20_000), arm(TWO, 200_000, 20_050))
    assert (alike.outcome, alike.winner, alike.asks_for_promotion) == (Outcome.NO_DIFFERENCE, ONE, False)


def test_it_is_not_over_before_the_least_days_and_over_after_the_most():
    sure = (arm(ONE, 20_000, 2_000), arm(TWO, 20_000, 2_400))
    assert outcome(*sure, days=0.9).outcome is Outcome.CONTINUE
    open_yet = (arm(ONE, 1_000, 100), arm(TWO, 1_000, 101))
    assert outcome(*open_yet, days=27.9).outcome is Outcome.CONTINUE
    late = outcome(*open_yet, days=28)
    assert (late.outcome, late.winner) == (Outcome.NO_DIFFERENCE, None)
    assert outcome(arm(ONE, 0, 0), arm(TWO, 0, 0), days=28).outcome is Outcome.INVALID


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"floor": 0}, "greater than 0"),
        ({"floor": 0.123}, "whole hundredths of a per cent"),
        ({"max_expected_loss": 0}, "greater than 0"),
        ({"epsilon": 0.1}, "Extra inputs"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, object], says: str):
    with pytest.raises(ValidationError, match=says):
        BanditPolicy.model_validate(values)


@pytest.mark.parametrize("values", [{"rewarded": 11, "reward_sum": 1}, {"rewarded": 5, "reward_sum": 6}])
def test_rewards_that_do_not_fit_their_requests_are_refused(values: dict[str, float]):
    with pytest.raises(ValidationError, match="cannot sum to"):
        ArmRewards.model_validate({"version": 1, "answered": 10, **values})
