"""What a trial and a shadow have shown, out of the logs: each number worked out by hand from a few records."""

import math
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from assets_tests.rollout_world import CHALLENGER, DIGESTS, NOON, PRODUCTION, RolloutWorld, plan
from boucle.contracts.ids import EntityKey, ModelVersion
from boucle.contracts.rollout import Phase, Scores
from boucle.contracts.traffic_plan import Arm, Role
from boucle.contracts.trials import AbCounts, SideCounts
from boucle.policy.bandit import BanditPolicy, arm_rewards
from boucle.policy.shadow_report import Shadowed, quantile_slices, shadow_figures
from boucle.policy.traffic import assign
from boucle_adapters.rollout_facts import ab_counts, bandit_log, shadow_report

SHADOW, TRIAL = 1, 2
PLANS = (plan(SHADOW, Phase.SHADOW), plan(TRIAL, Phase.TRIAL, weight=50))
NIGHT = NOON + timedelta(days=1)


@pytest.fixture
def world(tmp_path: Path) -> RolloutWorld:
    return RolloutWorld(tmp_path)


def test_nothing_is_nothing(world: RolloutWorld):
    empty = AbCounts(challenger=SideCounts(), production=SideCounts())
    assert ab_counts(world.logs, (), "loss") == ab_counts(world.logs, PLANS, "reward") == empty
    assert shadow_report(world.logs, (), {}) is None
    for plans in ((), PLANS):
        assert len(bandit_log(world.logs, plans, NIGHT).logged.version) == 0


def test_each_entity_is_on_one_side_with_its_first_known_value(world: RolloutWorld):
    world.answer("a")
    second, third = (world.answer("a") for _ in range(2))
    world.hear(second, 0.2)
    world.hear(third, 0.9)
    world.answer("b")
    world.hear(world.challenged("c"), 0.6)
    counts = ab_counts(world.logs, PLANS, "outcome")
    assert counts.production == SideCounts(assigned=2, scores=Scores(n=1, mean=0.2))
    assert counts.challenger == SideCounts(assigned=1, scores=Scores(n=1, mean=0.6))


def test_an_entity_stays_on_the_side_of_its_first_request(world: RolloutWorld):
    world.answer("a")
    world.hear(world.challenged("a"), 0.9)
    counts = ab_counts(world.logs, PLANS, "outcome")
    assert (counts.production, counts.challenger) == (SideCounts(assigned=1), SideCounts())


def test_a_request_that_production_answered_for_the_challenger_is_on_the_challengers_side(world: RolloutWorld):
    world.hear(world.challenged("a", 0.8, fallback="failed"), 1.0)
    counts = ab_counts(world.logs, PLANS, "loss")
    assert counts.production == SideCounts()
    assert counts.challenger.scores.mean == pytest.approx(-math.log(0.8))


def test_log_loss_is_of_outcomes_of_1_or_0_and_rewards_are_another_metric(world: RolloutWorld):
    for entity, outcome in (("a", 0.0), ("b", 7.0)):
        world.hear(world.answer(entity, 0.25), outcome)
    world.hear(world.answer("c"), reward=0.5)
    loss, reward = (ab_counts(world.logs, PLANS, metric).production.scores for metric in ("loss", "reward"))
    assert (loss.n, loss.mean) == (1, pytest.approx(-math.log(0.75)))
    assert reward == Scores(n=1, mean=0.5)


def test_who_was_only_shadowed_is_in_no_trial(world: RolloutWorld):
    world.hear(world.answer("a", revision=SHADOW), 1.0)
    assert ab_counts(world.logs, PLANS, "outcome").production == SideCounts()
    assert len(bandit_log(world.logs, PLANS, NIGHT).logged.version) == 0


def test_decisions_have_version_propensity_age_reward_and_delay(world: RolloutWorld):
    at = NOON + timedelta(hours=2)
    first = world.challenged("a", propensity=0.5, at=at)
    world.answer("b", propensity=0.5, at=at + timedelta(hours=1))
    world.challenged("a", propensity=0.4, at=at + timedelta(hours=2))
    world.hear(first, reward=0.7, received_at=at + timedelta(hours=3))
    log = bandit_log(world.logs, PLANS, at + timedelta(hours=10))
    logged = log.logged
    assert logged.version.tolist() == [2, 1, 2]
    assert logged.propensity.tolist() == [0.5, 0.5, 0.4]
    assert logged.age_hours.tolist() == [10, 9, 8]
    np.testing.assert_array_equal(logged.reward, [0.7, np.nan, np.nan])
    np.testing.assert_array_equal(logged.delay_hours, [3, np.nan, np.nan])
    assert log.entities[0] == log.entities[2] != log.entities[1]


def test_a_corrected_reward_keeps_the_delay_of_the_first(world: RolloutWorld):
    of = world.challenged("a", at=NOON)
    world.hear(of, reward=1.0)
    world.hear(of, reward=0.25)
    logged = bandit_log(world.logs, PLANS, NIGHT).logged
    assert (logged.reward.tolist(), logged.delay_hours.tolist()) == ([0.25], [1.0])


def test_what_came_later_was_not_known_then(world: RolloutWorld):
    of = world.challenged("a", at=NOON)
    world.challenged("b", at=NIGHT)
    world.hear(of, reward=1.0, received_at=NOON + timedelta(hours=5))
    before, then = (bandit_log(world.logs, PLANS, NOON + timedelta(hours=h)).logged for h in (4, 5))
    assert np.isnan(before.reward).tolist() == [True]
    assert then.reward.tolist() == [1.0]


def test_a_fallback_is_a_decision_for_the_arm_that_was_drawn(world: RolloutWorld):
    """With two challengers only the draw itself says which: it is drawn again, by the plan of the request."""
    third = Arm(version=ModelVersion(3), bundle_digest=DIGESTS[2], weight=30, role=Role.CHALLENGER)
    shares = (PLANS[1].arms[0], PLANS[1].arms[1].model_copy(update={"weight": 20}), third)
    plans = (PLANS[1].model_copy(update={"arms": shares}),)
    keys = [EntityKey(str(number)) for number in range(60)]
    drawn = {key: assign(plans[0], key) for key in keys}
    asked = [key for key in keys if drawn[key].role is Role.CHALLENGER]
    for key in asked:
        world.challenged(key, fallback="cut")
    versions = bandit_log(world.logs, plans, NIGHT).logged.version.tolist()
    assert versions == [drawn[key].version for key in asked]
    assert {2, 3} == set(versions)


def test_a_reward_outside_0_to_1_leaves_its_request_out_and_is_counted(world: RolloutWorld):
    for entity, reward in (("a", 1.5), ("b", 1.0), ("c", -0.1)):
        world.hear(world.challenged(entity), reward=reward)
    log = bandit_log(world.logs, PLANS, NIGHT)
    assert (log.logged.reward.tolist(), len(log.entities), log.unusable) == ([1.0], 1, 2)


def test_the_rewards_of_arms_come_from_such_a_log(world: RolloutWorld):
    for number in range(10):
        of = world.challenged(f"c{number}", propensity=0.5, at=NOON)
        world.answer(f"p{number}", propensity=0.5, at=NOON)
        if number < 4:
            world.hear(of, reward=1.0)
    log = bandit_log(world.logs, PLANS, NOON + timedelta(hours=24))
    two = arm_rewards(BanditPolicy(), log.logged, [PRODUCTION, CHALLENGER])
    assert [(arm.answered, arm.rewarded, arm.reward_sum) for arm in two] == [(10, 10, 0), (10, 10, 4)]


def test_a_report_counts_errors_disagreement_and_distance(world: RolloutWorld):
    """Pairs: 0.4 and 0.5 (another side: half counts as above), 0.4 and 0.1, 0.8 and 0.9. Apart by 0.1, 0.3 and 0.1."""
    for proba, other in ((0.4, 0.5), (0.4, 0.1), (0.8, 0.9)):
        world.shadow(world.answer("a", proba, revision=SHADOW, latency_ms=5.0), other)
    world.shadow(world.answer("b", revision=SHADOW), None, error="failed", latency_ms=1.0)
    world.shadow(world.answer("c", revision=SHADOW), None, error="stalled", latency_ms=1.0)
    world.answer("d", revision=SHADOW)
    world.shadow(world.challenged("e", revision=TRIAL), 0.1, model_version=PRODUCTION, revision=TRIAL)
    report = shadow_report(world.logs, PLANS, {})
    assert report is not None
    found = report.figures
    assert (found.requests, found.pairs, found.failed, found.stalled, found.entities) == (5, 3, 1, 1, 1)
    assert found.disagreement == pytest.approx(1 / 3)
    assert found.mean_difference == pytest.approx(0.5 / 3)
    assert (found.shift, found.shift_low) == (None, None)  # of one entity nothing is known
    assert report.production_latency is not None
    assert report.challenger_latency is not None
    assert (report.production_latency.p50_ms, report.challenger_latency.p50_ms) == (5.0, 0.2)


def test_without_pairs_there_is_no_figure_that_looks_like_agreement(world: RolloutWorld):
    world.shadow(world.answer("a", revision=SHADOW), None)
    report = shadow_report(world.logs, PLANS, {"age": 0})
    assert report is not None
    assert (report.figures.disagreement, report.figures.mean_difference, report.figures.shift) == (None, None, None)


def test_slices_are_quantiles_of_a_feature_as_it_was_logged_and_the_rows_without_it(world: RolloutWorld):
    for number in range(8):
        of = world.answer(f"e{number}", 0.4, revision=SHADOW, features=(9.0, float(number)))
        world.shadow(of, 0.6 if number < 2 else 0.4)
    world.shadow(world.answer("x", 0.4, revision=SHADOW, features=(9.0, float("nan"))), 0.6)
    report = shadow_report(world.logs, PLANS, {"income": 1, "constant": 0})
    assert report is not None
    seen = [(one.low, one.high, one.figures.pairs, one.figures.disagreement) for one in report.slices]
    assert seen == [(0, 1, 1, 1), (1, 3, 2, 0.5), (3, 5, 2, 0), (5, 7, 3, 0), (None, None, 1, 1), (9, 9, 9, 3 / 9)]


def shadowed(challenger: list[float], production: list[float]) -> Shadowed:
    n = len(production)
    return Shadowed(
        production=np.array(production),
        challenger=np.array(challenger),
        stalled=np.zeros(n, dtype=bool),
        entity=np.arange(n),
        production_ms=np.ones(n),
        challenger_ms=np.ones(n),
    )


def test_a_shift_is_in_standard_deviations_of_production_with_its_interval():
    """Production: 0.2 and 0.4 by turns, deviation 0.1; the challenger is higher by 0.03, give or take 0.01."""
    production = [0.2, 0.4] * 500
    challenger = [score + 0.03 + wave for score, wave in zip(production, [0.01, 0.01, -0.01, -0.01] * 250, strict=True)]
    found = shadow_figures(shadowed(challenger, production))
    assert found.shift == pytest.approx(0.3)
    assert found.shift_low is not None
    assert found.shift_high is not None
    assert 0.2 < found.shift_low < 0.3 < found.shift_high < 0.4


def test_a_shift_without_an_interval_is_that_of_models_equally_far_apart_everywhere():
    found = shadow_figures(shadowed([0.25, 0.5] * 100, [0.25, 0.5] * 100))
    assert (found.shift, found.shift_low, found.disagreement) == (0.0, None, 0.0)


def test_no_value_falls_between_slices():
    values = np.array([0.0, 1.0, 1.0, 1.0, 2.0, 5.0, np.nan])
    members = [some for _, _, some in quantile_slices(values, 4)]
    assert np.sum(members, axis=0).tolist() == [1] * 7
