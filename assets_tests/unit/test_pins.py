"""A person's pin: nothing automatic moves production against it, and a person still can."""

from dataclasses import replace

import pytest

from assets_tests.scenarios import MODEL, SOMEBODY, evidence, version
from boucle.contracts.decision import DecisionKind
from boucle.errors import ApprovalError, ConflictError, NoProductionModelError, PinnedError, PromotionRefusedError
from boucle.operations import pins, promotion
from boucle.policy.limits import PromotionPolicy
from boucle.policy.pins import pin_in_force
from boucle_adapters.memory import MemoryRegistry, MemoryStateStore

GUARD = replace(SOMEBODY, name="guard:replica-1")


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for _ in range(3):
        registry.register(MODEL)
    return registry


@pytest.fixture
def state(registry) -> MemoryStateStore:
    """Version 2 was promoted after 1, and pinned."""
    state = MemoryStateStore()
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    pins.pin(state, MODEL, reason="the sale is on", actor=SOMEBODY)
    return state


def promote(state, registry, number, against=None):
    return promotion.promote(
        state, registry, evidence=evidence(number, against=against), policy=PromotionPolicy(), actor=SOMEBODY
    )


def newest(state) -> DecisionKind:
    return state.decisions(MODEL)[-1].decision.kind


def test_nothing_automatic_rolls_a_pinned_version_back(state):
    with pytest.raises(PinnedError, match=r"version 2 of 'repurchase' is pinned by user:ada .*the sale is on"):
        promotion.roll_back(state, MODEL, reason="fails", actor=GUARD, leaving=version(2))
    assert (state.production(MODEL), newest(state)) == (2, DecisionKind.PIN)


def test_a_person_does_and_what_they_put_back_is_not_pinned(state):
    promotion.roll_back(state, MODEL, reason="after all", actor=SOMEBODY)
    assert (state.production(MODEL), pin_in_force(state.decisions(MODEL))) == (1, None)


def test_no_candidate_is_promoted_over_it_until_it_is_unpinned(state, registry):
    with pytest.raises(PromotionRefusedError, match="is pinned by user:ada"):
        promote(state, registry, 3, against=2)
    pins.unpin(state, MODEL, reason="the sale is over", actor=SOMEBODY)
    promote(state, registry, 3, against=2)
    assert state.production(MODEL) == 3


def test_unpinned_the_guard_may_act_again(state):
    pins.unpin(state, MODEL, reason="over", actor=SOMEBODY)
    promotion.roll_back(state, MODEL, reason="fails", actor=GUARD, leaving=version(2))
    assert state.production(MODEL) == 1


def test_pinning_twice_is_pinning_once(state):
    again = pins.pin(state, MODEL, reason="again", actor=SOMEBODY)
    assert (again.decision.reason, newest(state)) == ("the sale is on", DecisionKind.PIN)


def test_only_people_pin_and_unpin(state):
    with pytest.raises(ApprovalError, match="'guard:replica-1' is no person"):
        pins.unpin(state, MODEL, reason="", actor=GUARD)
    pins.unpin(state, MODEL, reason="over", actor=SOMEBODY)
    with pytest.raises(ApprovalError, match="'guard:replica-1' is no person"):
        pins.pin(state, MODEL, reason="", actor=GUARD)


def test_there_must_be_something_to_pin_and_to_unpin(state):
    with pytest.raises(NoProductionModelError):
        pins.pin(MemoryStateStore(), MODEL, reason="early", actor=SOMEBODY)
    with pytest.raises(ConflictError, match="No version of 'repurchase' is pinned"):
        pins.unpin(MemoryStateStore(), MODEL, reason="early", actor=SOMEBODY)


def test_a_pin_that_comes_between_look_and_rollback_holds_it(state, monkeypatch):
    pins.unpin(state, MODEL, reason="over", actor=SOMEBODY)
    decisions = state.decisions

    def pinned_after_the_look(model):
        known = decisions(model)
        monkeypatch.setattr(state, "decisions", decisions)
        pins.pin(state, MODEL, reason="wait", actor=SOMEBODY)
        return known

    monkeypatch.setattr(state, "decisions", pinned_after_the_look)
    with pytest.raises(ConflictError, match="were recorded after this rollback was judged"):
        promotion.roll_back(state, MODEL, reason="fails", actor=GUARD)
    assert state.production(MODEL) == 2
