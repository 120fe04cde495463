"""The states of a rollout: up one step at a time, down from everywhere, and never anywhere without data."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.verdict import Gate, Verdict
from boucle.policy.canary import CanaryPolicy, Say, canary_gates
from boucle.policy.rollout import FINAL, aborted, first_rollout, next_rollout
from boucle.policy.trials import TrafficPolicy

POLICY = CanaryPolicy()
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LADDER = (0, 1, 5, 25, 100)
"""Weights of the default policy, in the order in which a rollout may take them."""
PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE


def all_say(verdict: Verdict) -> list[Gate]:
    return [gate.model_copy(update={"verdict": verdict}) for gate in canary_gates(POLICY, ())]


def begin(policy: CanaryPolicy = POLICY) -> Rollout:
    return first_rollout(policy, ModelName("m"), challenger=ModelVersion(2), production=ModelVersion(1), at=BEGIN)


def follow(*verdicts: Verdict, requests: int = 10_000, minutes: float = 30) -> list[Rollout]:
    """The states after each verdict."""
    states, at = [begin()], BEGIN
    for verdict in verdicts:
        at += timedelta(minutes=minutes)
        states.append(next_rollout(POLICY, states[-1], all_say(verdict), requests=requests, at=at))
    return states[1:]


def test_a_good_challenger_climbs_every_step():
    states = follow(*[PASSED] * 4)
    assert [state.weight for state in states] == [1, 5, 25, 100]
    assert [state.phase for state in states] == [Phase.CANARY] * 3 + [Phase.COMPLETE]


def test_without_shadow_it_begins_at_the_first_step():
    state = begin(POLICY.model_copy(update={"shadow": None}))
    assert (state.phase, state.step, state.weight) == (Phase.CANARY, 0, 1)


@pytest.mark.parametrize("passed", range(4))
def test_it_is_stopped_at_once_in_every_state(passed: int):
    state = follow(*[PASSED] * passed, FAILED)[-1]
    assert (state.phase, state.weight) == (Phase.ABORTED, 0)


@pytest.mark.parametrize("passed", range(4))
def test_a_person_may_abort_in_every_state(passed: int):
    state = aborted([begin(), *follow(*[PASSED] * passed)][-1], at=BEGIN)
    assert (state.phase, state.weight) == (Phase.ABORTED, 0)


def test_what_has_ended_stays_as_it_is():
    for end in (follow(*[PASSED] * 4)[-1], follow(FAILED)[-1]):
        for verdict in Verdict:
            later = BEGIN + timedelta(days=30)
            assert next_rollout(POLICY, end, all_say(verdict), requests=10**6, at=later) == end
        assert aborted(end, at=BEGIN) == end


def test_without_an_answer_it_holds_and_then_gives_up():
    assert [state.weight for state in follow(PASSED, PASSED, INCONCLUSIVE, INCONCLUSIVE)] == [1, 5, 5, 5]
    at_5 = follow(PASSED, PASSED)[-1]
    almost, over = (at_5.phase_began_at + timedelta(hours=hours) for hours in (71.9, 72))
    assert next_rollout(POLICY, at_5, all_say(INCONCLUSIVE), requests=10**6, at=almost) == at_5
    assert next_rollout(POLICY, at_5, all_say(INCONCLUSIVE), requests=10**6, at=over).phase is Phase.ABORTED


def test_nothing_measured_never_goes_up():
    at_1 = follow(PASSED)[-1]
    later = at_1.phase_began_at + timedelta(hours=1)
    assert next_rollout(POLICY, at_1, [], requests=0, at=later) == at_1
    at_5 = follow(PASSED, PASSED)[-1]
    later = at_5.phase_began_at + timedelta(hours=1)
    assert next_rollout(POLICY, at_5, [], requests=10**6, at=later) == at_5


@pytest.mark.parametrize(("requests", "minutes"), [(499, 30), (10_000, 9)])
def test_a_step_lasts_for_its_least_time_and_requests(requests: int, minutes: float):
    assert follow(PASSED, requests=requests, minutes=minutes)[-1].phase is Phase.SHADOW


def test_at_the_first_step_it_is_enough_that_nothing_failed():
    at_1 = follow(PASSED)[-1]
    later = at_1.phase_began_at + timedelta(minutes=10)
    assert next_rollout(POLICY, at_1, all_say(INCONCLUSIVE), requests=500, at=later).weight == 5


@given(
    st.lists(st.tuples(st.sampled_from(Verdict), st.integers(0, 2_000), st.floats(0, 80 * 60)), min_size=1, max_size=30)
)
def test_on_every_path_no_step_up_is_skipped_and_the_weight_is_that_of_the_state(
    path: list[tuple[Verdict, int, float]],
):
    state, at = begin(), BEGIN
    for verdict, requests, minutes in path:
        at += timedelta(minutes=minutes)
        after = next_rollout(POLICY, state, all_say(verdict), requests=requests, at=at)
        place = LADDER.index(state.weight)
        assert after == state or after.phase is Phase.ABORTED or LADDER.index(after.weight) == place + 1
        if verdict is FAILED and state.phase not in FINAL:
            assert after.phase is Phase.ABORTED
        assert (after.phase is Phase.COMPLETE) == (after.weight == 100)
        if after.phase is Phase.CANARY:
            assert after.weight == POLICY.steps[after.step].weight
        assert (after.challenger, after.production, after.began_at) == (2, 1, BEGIN)
        state = after


def test_a_policy_that_has_fewer_steps_by_now_neither_breaks_nor_holds_a_rollout_for_ever():
    at_25 = follow(PASSED, PASSED, PASSED)[-1]
    shorter = POLICY.model_copy(update={"steps": POLICY.steps[:1]})
    later = at_25.phase_began_at + timedelta(hours=1)
    assert next_rollout(shorter, at_25, all_say(PASSED), requests=10_000, at=later).phase is Phase.COMPLETE
    assert next_rollout(shorter, at_25, all_say(FAILED), requests=10_000, at=later).phase is Phase.ABORTED


def test_a_policy_under_which_every_canary_would_wait_in_vain_is_refused():
    with pytest.raises(ValidationError, match="a canary would wait in vain"):
        TrafficPolicy(shadow_share=0)
    veto = POLICY.loss.model_copy(update={"say": Say.VETO})
    assert TrafficPolicy(shadow_share=0, canary=POLICY.model_copy(update={"shadow": None, "loss": veto}))
