"""What a rollout has shown, out of the logs: each number worked out by hand from a few records."""

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from assets_tests.rollout_world import FIRST, MODEL, NOON, PLANS, PRODUCTION, SECOND, SHADOW, RolloutWorld, plan
from boucle.contracts.ids import ModelName
from boucle.contracts.rollout import ArmCounts, Phase, Scores, StepCounts
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.contracts.verdict import Verdict
from boucle.policy.canary import CanaryPolicy, canary_gates, canary_verdict
from boucle_adapters.log_tables import RolloutLogs
from boucle_adapters.rollout_facts import arm_latencies, canary_steps


class World(RolloutWorld):
    """With what is asked of it here."""

    def steps(self, plans: tuple[TrafficPlan, ...] = PLANS, **changes: Any) -> tuple[StepCounts, ...]:
        return canary_steps(self.logs, plans, **changes)

    def first_step(self) -> StepCounts:
        return self.steps()[1]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def scores(*values: float) -> Scores:
    mean = sum(values) / len(values)
    return Scores(n=len(values), mean=mean, variance=sum((value - mean) ** 2 for value in values) / len(values))


def close(found: Scores, *values: float) -> bool:
    wanted = scores(*values)
    return found.n == wanted.n and (found.mean, found.variance) == pytest.approx((wanted.mean, wanted.variance))


def test_without_data_every_phase_and_step_is_there_with_zeros(world: World):
    assert world.steps() == (StepCounts(in_shadow=True), StepCounts(), StepCounts())


def test_without_a_rollout_there_is_no_step(world: World):
    world.answer("a")
    assert world.steps(()) == ()
    assert world.steps((PLANS[0].model_copy(update={"rollout": None}),)) == ()


def test_plans_of_one_step_are_counted_together_and_steps_apart(world: World):
    again = plan(4, Phase.CANARY, step=1, weight=60)
    for revision, times in ((FIRST, 1), (SECOND, 2), (4, 3)):
        for number in range(times):
            world.challenged(f"{revision}/{number}", revision=revision)
    assert [step.challenger.requests for step in world.steps((*PLANS, again))] == [0, 1, 5]


def test_a_request_counts_for_the_arm_it_was_drawn_for_also_when_production_answered_it(world: World):
    world.answer("a", 0.1)
    world.challenged("b", 0.2)
    for entity, why in (("c", "failed"), ("d", "stalled"), ("e", "cut")):
        world.challenged(entity, 0.9, fallback=why)
    step = world.first_step()
    assert step.challenger == ArmCounts(requests=4, failed=3, slow=1, scores=scores(0.2))
    assert step.production == ArmCounts(requests=1, scores=scores(0.1))


def test_slow_is_beyond_twice_the_99th_percentile_of_production_in_the_same_step(world: World):
    """Of 101 requests with 0 to 100 ms the 99th percentile is 99 ms: the limit is 198 ms, and itself not slow."""
    for latency in range(101):
        world.answer(f"e{latency}", latency_ms=float(latency))
        world.answer(f"e{latency}", revision=SECOND, latency_ms=1_000.0)
    world.answer("outlier of the second step", revision=SECOND, latency_ms=2_000.1)
    for number, latency in enumerate((198.0, 198.1, 500.0)):
        world.challenged(f"c{number}", latency_ms=latency)
    _, first, second = world.steps()
    assert (first.challenger.slow, first.production.slow, second.production.slow) == (2, 0, 1)
    assert world.steps(slow_factor=1.0)[1].challenger.slow == 3


def test_a_stalled_request_is_slow_also_where_production_has_none_to_compare_with(world: World):
    world.challenged("a", fallback="stalled")
    world.challenged("b", latency_ms=9_999.0)
    assert world.first_step().challenger.slow == 1


def test_an_entity_has_one_score_in_a_step_its_first_and_another_one_in_the_next_step(world: World):
    late = NOON + timedelta(hours=2)
    world.challenged("a", 0.9, at=late)  # written first, answered last
    world.challenged("a", 0.2)
    world.challenged("b", 0.4)
    world.challenged("a", 0.7, revision=SECOND)
    _, first, second = world.steps()
    assert first.challenger.requests == 3
    assert close(first.challenger.scores, 0.2, 0.4)
    assert close(second.challenger.scores, 0.7)


def test_a_request_that_named_no_entity_was_drawn_for_nobody(world: World):
    world.answer(None)
    assert world.first_step() == StepCounts()


def test_an_id_that_is_twice_in_the_logs_counts_once(world: World):
    for replica in ("one", "two"):
        world.answer("a", prediction_id="same", replica=replica, revision=SHADOW)
        world.shadow("same", 0.4, replica=replica)
    shadow = world.steps()[0]
    assert (shadow.production.requests, shadow.challenger.requests) == (1, 1)


def test_torn_and_damaged_lines_are_no_records_and_the_rest_counts(world: World):
    of = world.answer("a", revision=SHADOW)
    world.shadow(of, 0.4)
    world.hear(of, 1.0)
    for name, stream in (("predictions", MODEL), ("shadows", MODEL), ("feedback", "all")):
        (file,) = (world.root / name / stream).glob("*/*.jsonl")
        whole = file.read_text()
        file.write_text('{"prediction_id": "x", "proba": "high"}\nnot json\n' + whole + whole[: len(whole) // 2])
    shadow = world.steps()[0]
    assert (shadow.production.requests, shadow.challenger.requests, shadow.loss.n) == (1, 1, 1)


def test_in_shadow_the_challenger_has_its_shadows_and_the_scores_of_the_same_requests(world: World):
    asked = (("a", 0.1), ("a", 0.2), ("b", 0.3), ("c", 0.4), ("d", 0.5))
    first, again, second, third, fourth = (world.answer(*one, revision=SHADOW) for one in asked)
    for of, proba in ((first, 0.15), (again, 0.99), (second, 0.35)):
        world.shadow(of, proba)
    world.shadow(third, None, error="stalled", latency_ms=1_000.0)
    world.shadow(fourth, None, error="failed")
    step = world.steps()[0]
    assert (step.challenger.requests, step.challenger.failed, step.challenger.slow) == (5, 2, 1)
    assert (step.production.requests, step.production.failed, step.production.slow) == (5, 0, 0)
    assert close(step.challenger.scores, 0.15, 0.35)
    assert close(step.production.scores, 0.1, 0.3)


def test_loss_is_of_requests_with_both_scores_and_an_outcome_whoever_answered(world: World):
    """By hand: a: -ln 0.8 + ln 0.5; b, answered by the challenger: -ln(1 - 0.4) + ln(1 - 0.3)."""
    a = world.answer("a", 0.5)
    world.shadow(a, 0.8, revision=FIRST)
    b = world.challenged("b", 0.4)
    world.shadow(b, 0.3, revision=FIRST, model_version=PRODUCTION)
    unpaired, unheard = world.answer("c", 0.9), world.answer("d", 0.9)
    world.shadow(unheard, 0.1, revision=FIRST)
    for of, outcome in ((a, 1.0), (b, 0.0), (unpaired, 1.0)):
        world.hear(of, outcome)
    step = world.first_step()
    assert close(step.loss, math.log(0.5) - math.log(0.8), math.log(0.7) - math.log(0.6))
    assert step.production_loss == pytest.approx((-math.log(0.5) - math.log(0.7)) / 2)


def test_an_entity_has_one_loss_that_of_its_first_pair_with_an_outcome(world: World):
    for proba, outcome in ((0.9, None), (0.5, 1.0), (0.1, 1.0)):
        of = world.answer("a", proba)
        world.shadow(of, 0.5, revision=FIRST)
        if outcome is not None:
            world.hear(of, outcome)
    step = world.first_step()
    assert (step.loss, step.production_loss) == (Scores(n=1), pytest.approx(math.log(2)))


def test_a_certain_and_wrong_answer_is_clipped_as_everywhere(world: World):
    of = world.answer("a", 1.0)
    world.shadow(of, 0.5, revision=FIRST)
    world.hear(of, 0.0)
    assert world.first_step().production_loss == pytest.approx(34.5, abs=0.1)


def test_of_corrected_feedback_the_last_counts_and_what_is_sent_again_changes_nothing(world: World):
    of = world.answer("a", 0.2)
    world.shadow(of, 0.2, revision=FIRST)
    world.hear(of, 0.0)
    world.hear(of, 1.0)
    world.hear(of, 0.0)  # the first message, delivered again
    assert world.first_step().production_loss == pytest.approx(-math.log(0.2))
    world.hear(of, 0.0, at=NOON + timedelta(minutes=1))  # a correction back
    assert world.first_step().production_loss == pytest.approx(-math.log(0.8))


def test_an_outcome_that_is_not_1_or_0_has_no_log_loss(world: World):
    of = world.answer("a")
    world.shadow(of, 0.2, revision=FIRST)
    world.hear(of, 0.5)
    assert world.first_step().loss == Scores()


def test_matured_labels_count_as_outcomes_before_what_callers_said(world: World, tmp_path: Path):
    a, b = world.answer("a", 0.2), world.answer("b", 0.5)
    for of in (a, b):
        world.shadow(of, 0.2, revision=FIRST)
    world.hear(a, 0.0)
    labels = tmp_path / "2026-03.parquet"
    duckdb.sql(f"select * from (values ('{a}', 1), ('{b}', 1), ('other', 1)) t(prediction_id, label)").write_parquet(
        str(labels)
    )
    logs = RolloutLogs(
        predictions=world.logs.predictions, shadows=world.logs.shadows, feedback=world.logs.feedback, labels=(labels,)
    )
    step = canary_steps(logs, PLANS)[1]
    assert step.loss.n == 2
    assert step.production_loss == pytest.approx((-math.log(0.2) - math.log(0.5)) / 2)


def test_records_of_another_rollout_or_model_are_not_counted(world: World):
    before = plan(7, Phase.CANARY, weight=10, began_at=NOON - timedelta(days=1)).model_copy(update={"revision": 0})
    world.challenged("a", revision=FIRST)
    world.challenged("b", revision=FIRST, plan_revision=0)
    world.challenged("c", revision=FIRST, plan_revision=99)
    world.challenged("d", revision=FIRST, model=ModelName("another"))
    assert [step.challenger.requests for step in world.steps((before, *PLANS))] == [0, 1, 0]


def test_a_revision_of_a_forgotten_store_does_not_bring_records_of_other_times(world: World):
    world.challenged("a")
    world.challenged("b", at=NOON - timedelta(days=30))
    assert world.first_step().challenger.requests == 1


def test_only_segments_that_may_hold_the_rollout_are_read(world: World):
    """A sealed segment of another time is not opened: that somebody wrote other moments into it is not noticed."""
    before = NOON - timedelta(days=30)
    world.challenged("a", at=before)
    world.logs.predictions.close()
    (file,) = (world.root / "predictions" / MODEL).glob("*/*.jsonl")
    file.write_text(file.read_text().replace(f"{before:%Y-%m-%d}", f"{NOON:%Y-%m-%d}"))
    world.challenged("b")
    world.logs.predictions.close()
    assert world.first_step().challenger.requests == 1
    file.with_suffix(".seal.json").unlink()
    assert world.first_step().challenger.requests == 2


def test_a_complete_rollout_ends_with_the_plan_that_followed(world: World):
    complete = plan(4, Phase.COMPLETE, step=1, weight=100)
    world.challenged("a", revision=SECOND)
    world.challenged("b", revision=4)
    assert [step.challenger.requests for step in world.steps((*PLANS, complete))] == [0, 0, 1]


def grown(world: World, *, failed: int, proba: float) -> Verdict:
    """A first step: production answers 400 entities, the challenger 400 others, or fails so many of them."""
    answers = [("a", False, None)] * 400 + [("b", True, None)] * (400 - failed) + [("c", True, "failed")] * failed
    for number, (name, is_challengers, why) in enumerate(answers):
        entity, usual = f"{name}{number}", 0.2 + 0.2 * (number % 2)
        if is_challengers:
            world.challenged(entity, usual if why else usual + proba, fallback=why)
        else:
            world.answer(entity, usual)
    policy = CanaryPolicy()
    gates = canary_gates(policy, world.steps())
    return canary_verdict(policy, gates, required_pass=False)


def test_the_facts_of_an_equal_challenger_do_not_stop_it(world: World):
    assert grown(world, failed=0, proba=0.0) is Verdict.PASSED


def test_the_facts_of_a_challenger_that_fails_stop_it(world: World):
    assert grown(world, failed=200, proba=0.0) is Verdict.FAILED


def test_the_facts_of_a_challenger_that_answers_otherwise_stop_it(world: World):
    assert grown(world, failed=0, proba=0.1) is Verdict.FAILED


def test_latencies_are_of_the_newest_step_by_the_version_that_answered(world: World):
    world.answer("a", revision=FIRST, latency_ms=9_999.0)
    for latency in (1.0, 2.0, 3.0):
        world.answer("a", revision=SECOND, latency_ms=latency)
    world.challenged("b", revision=SECOND, latency_ms=7.0)
    world.challenged("c", revision=SECOND, latency_ms=2.0, fallback="stalled")
    found = arm_latencies(world.logs, PLANS)
    assert {version: one.p50_ms for version, one in found.items()} == {1: 2.0, 2: 7.0}
    assert found[PRODUCTION].p99_ms == pytest.approx(2.97)  # between 2 and 3, at place 0.99 * 3
