"""How versions come into traffic, over stores in memory: each step a row of the ledger with its plan."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets_tests.scenarios import MODEL, SOMEBODY, digest_of, evidence, version
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ledger import verify_chain
from boucle.contracts.rollout import Phase
from boucle.contracts.traffic_plan import Role, Strategy, TrafficPlan
from boucle.errors import ConfigurationError, ConflictError, NoProductionModelError, PromotionRefusedError
from boucle.operations import promotion, traffic
from boucle.policy.limits import PromotionPolicy
from boucle.policy.rollout import next_rollout
from boucle.policy.trials import TRIALS, TrafficPolicy
from boucle_adapters.memory import MemoryRegistry, MemoryStateStore

CANARY = TrafficPolicy(after_promotion=Strategy.CANARY)
LATER = replace(SOMEBODY, at=SOMEBODY.at + timedelta(hours=1))


@pytest.fixture
def state() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for _ in range(4):
        registry.register(MODEL)
    return registry


def promote(state, registry, number, against=None):
    return promotion.promote(
        state, registry, evidence=evidence(number, against=against), policy=PromotionPolicy(), actor=SOMEBODY
    )


def two_versions(state, registry) -> TrafficPlan:
    """Version 1 answers, version 2 was promoted and its canary begins."""
    promote(state, registry, 1)
    traffic.start_traffic(state, MODEL, policy=CANARY, actor=SOMEBODY)
    promote(state, registry, 2, against=1)
    return traffic.start_traffic(state, MODEL, policy=CANARY, actor=SOMEBODY)


def one_version(state, registry) -> None:
    promote(state, registry, 1)
    traffic.start_traffic(state, MODEL, policy=TrafficPolicy(), actor=SOMEBODY)


def try_2(state, strategy=Strategy.AB):
    return traffic.try_version(
        state,
        MODEL,
        challenger=version(2),
        bundle=digest_of(2),
        strategy=strategy,
        policy=TrafficPolicy(),
        actor=SOMEBODY,
        reason="is it better?",
    )


def arms(plan: TrafficPlan) -> list[tuple[int, float, Role]]:
    return [(arm.version, arm.weight, arm.role) for arm in plan.arms]


def step(state, plan: TrafficPlan) -> TrafficPlan:
    """The next step up, as if every metric had passed."""
    policy = CANARY.canary.model_copy(
        update={
            "steps": tuple(
                one.model_copy(update={"required_pass": False, "min_minutes": 0}) for one in CANARY.canary.steps
            )
        }
    )
    after = next_rollout(policy, plan.rollout, [], requests=10_000, at=plan.rollout.phase_began_at + timedelta(hours=1))
    return traffic.take_step(state, plan, after, reason="passed", actor=LATER)[1]


def test_the_first_version_has_nothing_to_be_compared_with_and_answers_everybody(state, registry):
    promote(state, registry, 1)
    plan = traffic.start_traffic(state, MODEL, policy=CANARY, actor=SOMEBODY)
    assert (plan.strategy, plan.rollout, arms(plan)) == (Strategy.DIRECT, None, [(1, 100, Role.PRODUCTION)])


def test_a_canary_begins_in_shadow_with_production_answering_everybody(state, registry):
    plan = two_versions(state, registry)
    assert arms(plan) == [(1, 100, Role.PRODUCTION), (2, 0, Role.CHALLENGER)]
    assert (plan.strategy, plan.rollout.phase, plan.shadow_share) == (Strategy.CANARY, Phase.SHADOW, 100)
    assert state.production(MODEL) == 2
    assert traffic.traffic_difference(state, MODEL) == ""


def test_beginning_twice_is_beginning_once_also_after_a_step_and_at_the_end(state, registry):
    plan = two_versions(state, registry)
    for _ in range(5):
        assert traffic.start_traffic(state, MODEL, policy=CANARY, actor=LATER) == plan
        if plan.rollout.is_open:
            plan = step(state, plan)
    assert plan.rollout.phase is Phase.COMPLETE


@pytest.mark.parametrize("ended", [False, True])
def test_materialising_traffic_again_never_begins_an_old_canary_anew(state, registry, ended: bool):
    plan = two_versions(state, registry)
    while plan.rollout.is_open:
        plan = step(state, plan)
    _, plan = traffic.try_version(
        state,
        MODEL,
        challenger=version(3),
        bundle=digest_of(3),
        strategy=Strategy.AB,
        policy=CANARY,
        actor=LATER,
        reason="is it better?",
    )
    if ended:
        _, plan = traffic.end_trial(state, plan, reason="no difference", actor=LATER)
    assert traffic.start_traffic(state, MODEL, policy=CANARY, actor=LATER) == plan


def test_a_policy_that_asks_for_canaries_by_now_takes_no_version_out_of_traffic(state, registry):
    promote(state, registry, 1)
    traffic.start_traffic(state, MODEL, policy=TrafficPolicy(), actor=SOMEBODY)
    promote(state, registry, 2, against=1)
    plan = traffic.start_traffic(state, MODEL, policy=TrafficPolicy(), actor=SOMEBODY)
    assert traffic.start_traffic(state, MODEL, policy=CANARY, actor=LATER) == plan


def test_a_version_that_was_promoted_comes_into_traffic_before_another_is_tried(state, registry):
    one_version(state, registry)
    promote(state, registry, 2, against=1)
    with pytest.raises(ConflictError, match="gives the requests to version 1, the ledger says version 2"):
        traffic.try_version(
            state,
            MODEL,
            challenger=version(3),
            bundle=digest_of(3),
            strategy=Strategy.AB,
            policy=CANARY,
            actor=LATER,
            reason="is it better?",
        )


def test_every_step_is_a_row_of_the_ledger_and_the_last_gives_everybody_to_the_challenger(state, registry):
    plan = two_versions(state, registry)
    weights = []
    while plan.rollout.is_open:
        plan = step(state, plan)
        weights.append([arm.weight for arm in plan.arms if arm.version == 2])
    assert weights == [[1], [5], [25], [100]]
    assert arms(plan) == [(2, 100, Role.PRODUCTION), (1, 0, Role.STANDBY)]
    rows = [row.decision for row in state.decisions(MODEL) if row.decision.kind is DecisionKind.ROLLOUT]
    assert [(row.subject_version, row.from_version, row.to_version) for row in rows] == [(2, 2, 2)] * 4
    verify_chain(state.decisions())


@pytest.mark.parametrize("steps", range(4))
def test_a_rollback_is_armed_at_every_step(state, registry, steps: int):
    plan = two_versions(state, registry)
    for _ in range(steps):
        plan = step(state, plan)
    decision, back = promotion.roll_back(state, MODEL, reason="it looks wrong", actor=LATER)
    assert (decision.decision.from_version, decision.decision.to_version) == (2, 1)
    assert (back.production.version, back.production.weight, back.rollout) == (1, 100, None)


@pytest.mark.parametrize("steps", range(4))
def test_an_abort_of_a_canary_takes_the_promotion_back(state, registry, steps: int):
    plan = two_versions(state, registry)
    for _ in range(steps):
        plan = step(state, plan)
    decision, back = traffic.abort(state, MODEL, reason="too slow", actor=LATER)
    assert (decision.decision.kind, state.production(MODEL)) == (DecisionKind.ROLLBACK, 1)
    assert arms(back)[0] == (1, 100, Role.PRODUCTION)


def test_two_who_judge_one_step_take_it_once(state, registry):
    plan = two_versions(state, registry)
    step(state, plan)
    rows = len(state.decisions())
    with pytest.raises(ConflictError, match="not revision 2 any more"):
        step(state, plan)
    assert len(state.decisions()) == rows


def test_a_step_that_a_rollback_overtook_is_not_taken(state, registry):
    plan = two_versions(state, registry)
    promotion.roll_back(state, MODEL, reason="it looks wrong", actor=LATER)
    with pytest.raises(ConflictError):
        step(state, plan)
    assert state.plan(MODEL).production.version == 1


def test_nothing_else_is_promoted_while_a_rollout_is_open(state, registry):
    two_versions(state, registry)
    with pytest.raises(PromotionRefusedError, match=r"version 2 .* is on its way .* `boucle abort"):
        promote(state, registry, 3, against=2)
    assert state.production(MODEL) == 2


def test_promoting_the_version_on_its_way_again_changes_nothing(state, registry):
    two_versions(state, registry)
    assert promote(state, registry, 2, against=1).decision.decision.to_version == 2


def test_after_a_rollback_traffic_is_direct(state, registry):
    two_versions(state, registry)
    promotion.roll_back(state, MODEL, reason="it looks wrong", actor=LATER)
    plan = traffic.start_traffic(state, MODEL, policy=CANARY, actor=LATER)
    assert (plan.strategy, plan.production.version) == (Strategy.DIRECT, 1)


@pytest.mark.parametrize(
    ("strategy", "weight", "share"),
    [(Strategy.SHADOW, 0, 100), (Strategy.AB, 50, 0), (Strategy.BANDIT, 50, 0), (Strategy.INTERLEAVING, 0, 0)],
)
def test_a_trial_moves_no_production(state, registry, strategy: Strategy, weight: float, share: float):
    one_version(state, registry)
    decision, plan = try_2(state, strategy)
    assert (decision.decision.kind, decision.decision.subject_version) == (DecisionKind.ROLLOUT, 2)
    assert arms(plan) == [(1, 100 - weight, Role.PRODUCTION), (2, weight, Role.CHALLENGER)]
    assert (plan.shadow_share, state.production(MODEL)) == (share, 1)
    assert traffic.traffic_difference(state, MODEL) == ""


def test_what_tries_no_version_is_refused(state, registry):
    one_version(state, registry)
    with pytest.raises(ConfigurationError, match="'canary' tries no version; shadow, ab, bandit, interleaving do"):
        try_2(state, Strategy.CANARY)


def test_without_production_there_is_nothing_to_try_a_version_against(state):
    with pytest.raises(NoProductionModelError):
        try_2(state)


def test_one_rollout_at_a_time(state, registry):
    one_version(state, registry)
    try_2(state)
    with pytest.raises(ConflictError, match="is on its way into traffic"):
        try_2(state, Strategy.SHADOW)


def test_the_end_of_a_trial_gives_everybody_back_to_production_and_says_why(state, registry):
    one_version(state, registry)
    _, plan = try_2(state)
    decision, back = traffic.end_trial(state, plan, reason="no difference", actor=LATER)
    assert (decision.decision.kind, decision.decision.reason) == (DecisionKind.ROLLOUT, "no difference")
    assert (arms(back), back.rollout) == ([(1, 100, Role.PRODUCTION)], None)


def test_a_person_aborts_a_trial_and_production_stays(state, registry):
    one_version(state, registry)
    try_2(state)
    decision, back = traffic.abort(state, MODEL, reason="enough", actor=LATER)
    assert (decision.decision.kind, decision.decision.subject_version) == (DecisionKind.ABORT, 2)
    assert (state.production(MODEL), back.production.weight, back.challengers) == (1, 100, ())


def test_without_a_rollout_there_is_nothing_to_abort(state, registry):
    one_version(state, registry)
    with pytest.raises(ConflictError, match="No rollout of 'repurchase' is open"):
        traffic.abort(state, MODEL, reason="enough", actor=LATER)


@given(path=st.lists(st.sampled_from(["step", "abort", "roll back", "try", "start"]), max_size=8))
def test_on_every_path_one_version_is_production_and_everybody_is_answered(path: list[str]):
    state, registry = MemoryStateStore(), MemoryRegistry()
    for _ in range(4):
        registry.register(MODEL)
    two_versions(state, registry)
    for action in path:
        plan = state.plan(MODEL)
        try:
            if action == "step" and plan.rollout and plan.strategy is Strategy.CANARY and plan.rollout.is_open:
                step(state, plan)
            elif action == "abort":
                traffic.abort(state, MODEL, reason="r", actor=LATER)
            elif action == "roll back":
                promotion.roll_back(state, MODEL, reason="r", actor=LATER, leaving=version(2))
            elif action == "try":
                try_2(state, TRIALS[len(path) % len(TRIALS)])
            else:
                traffic.start_traffic(state, MODEL, policy=CANARY, actor=LATER)
        except (ConflictError, NoProductionModelError):
            assert state.plan(MODEL) == plan
        after = state.plan(MODEL)
        assert sum(arm.weight for arm in after.arms) == 100
        assert traffic.traffic_difference(state, MODEL) == ""
    verify_chain(state.decisions())
