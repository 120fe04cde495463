"""Promote, reject and roll back, over stores in memory."""

from dataclasses import replace
from datetime import timedelta

import pytest

from assets_tests.scenarios import MODEL, SOMEBODY, digest_of, evidence, version
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ledger import verify_chain
from boucle.contracts.traffic_plan import NewPlan, Role, Strategy
from boucle.contracts.verdict import Verdict
from boucle.errors import ApprovalError, ConflictError, NoProductionModelError, PromotionRefusedError
from boucle.operations import approval, promotion, traffic
from boucle.operations.aliases import alias_differences, reconcile_aliases
from boucle.operations.production import last_move, promoted_bundles
from boucle.policy.approval import ApprovalPolicy, PromotionMode
from boucle.policy.limits import PromotionPolicy
from boucle.policy.risk import RiskFacts
from boucle.policy.trials import TrafficPolicy
from boucle_adapters.memory import MemoryRegistry, MemoryStateStore

DIRECT = TrafficPolicy()


@pytest.fixture
def state() -> MemoryStateStore:
    return MemoryStateStore()


@pytest.fixture
def registry() -> MemoryRegistry:
    registry = MemoryRegistry()
    for _ in range(4):
        registry.register(MODEL)
    return registry


def kinds(state):
    return [row.decision.kind for row in state.decisions(MODEL)]


def reject(state, registry, subject, reason="worse"):
    return promotion.reject(state, registry, subject=subject, reason=reason, policy="automatic", actor=SOMEBODY)


def promote(state, registry, number, against=None):
    return promotion.promote(
        state, registry, evidence=evidence(number, against=against), policy=PromotionPolicy(), actor=SOMEBODY
    )


def test_the_first_passed_candidate_becomes_production_in_ledger_and_registry(state, registry):
    promote(state, registry, 1)
    assert state.production(MODEL) == 1
    assert registry.alias(MODEL, "production") == 1
    assert registry.alias(MODEL, "previous") is None


def test_the_next_one_leaves_the_first_as_previous(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    assert (registry.alias(MODEL, "production"), registry.alias(MODEL, "previous")) == (2, 1)


def test_promoting_twice_writes_one_decision(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 1)
    assert len(state.decisions(MODEL)) == 1


@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.INCONCLUSIVE])
def test_evidence_that_did_not_pass_moves_nothing(state, registry, verdict):
    promote(state, registry, 1)
    with pytest.raises(PromotionRefusedError, match="no_regression"):
        promotion.promote(
            state, registry, evidence=evidence(2, against=1, verdict=verdict), policy=PromotionPolicy(), actor=SOMEBODY
        )
    assert state.production(MODEL) == 1
    assert registry.alias(MODEL, "production") == 1


def test_evidence_taken_against_another_production_is_refused(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    with pytest.raises(PromotionRefusedError, match="compared with version 1, but production is version 2 now"):
        promote(state, registry, 3, against=1)
    assert state.production(MODEL) == 2


def test_the_bundle_of_production_is_what_was_promoted_whatever_was_refused_since(state, registry):
    promote(state, registry, 1)
    reject(state, registry, evidence(2, against=1, verdict=Verdict.FAILED))
    assert promoted_bundles(state, MODEL) == {1: evidence(1).bundle_digest}


def test_a_rejection_is_on_record_once_and_moves_nothing(state, registry):
    promote(state, registry, 1)
    for run in ("run-1", "run-2"):
        reject(state, registry, evidence(2, against=1, verdict=Verdict.FAILED, run_id=run))
    assert kinds(state) == [DecisionKind.PROMOTE, DecisionKind.REJECT]
    assert state.production(MODEL) == 1
    assert registry.version(MODEL, version(2)).tags["validation_status"] == "rejected"


def test_another_reason_is_another_rejection(state, registry):
    promote(state, registry, 1)
    for reason in ("worse", "slower"):
        reject(state, registry, evidence(2, against=1, verdict=Verdict.FAILED), reason=reason)
    assert kinds(state)[1:] == [DecisionKind.REJECT] * 2


def test_a_rejection_that_says_nothing_about_the_model_leaves_its_status_alone(state, registry):
    promote(state, registry, 1)
    reject(state, registry, evidence(2, against=1), reason="production moved")
    assert "validation_status" not in registry.version(MODEL, version(2)).tags


def test_production_itself_is_never_rejected(state, registry):
    promote(state, registry, 1)
    assert reject(state, registry, evidence(1, against=1, verdict=Verdict.FAILED)) is None
    assert kinds(state) == [DecisionKind.PROMOTE]
    assert registry.version(MODEL, version(1)).tags["validation_status"] == "approved"


def test_every_refusal_is_on_record_before_it_is_raised(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    with pytest.raises(PromotionRefusedError):
        promote(state, registry, 3, against=1)
    doubtful = evidence(3, against=2)
    with pytest.raises(PromotionRefusedError, match="never checked"):
        promotion.promote(
            state,
            registry,
            evidence=doubtful,
            policy=PromotionPolicy(),
            actor=SOMEBODY,
            doubts=["latency was never checked"],
        )
    promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    with pytest.raises(PromotionRefusedError):
        promote(state, registry, 2, against=1)
    reasons = [row.decision.reason for row in state.decisions(MODEL) if row.decision.kind is DecisionKind.REJECT]
    assert [reason.split(":")[0] for reason in reasons] == [
        "Version 3 was compared with version 1, but production is version 2 now",
        "latency was never checked.",
        "Version 2 was rolled back (decision 5 by user",
    ]


@pytest.fixture
def just_before_the_ledger(monkeypatch):
    """Something that happens once, when a promotion was judged and is not recorded yet."""

    def happens(event):
        judge = promotion.judge

        def judged(*args, **kwargs):
            found = judge(*args, **kwargs)
            monkeypatch.setattr(promotion, "judge", judge)
            event()
            return found

        monkeypatch.setattr(promotion, "judge", judged)

    return happens


def test_a_promotion_that_loses_the_race_is_on_record_as_refused(state, registry, just_before_the_ledger):
    promote(state, registry, 1)
    just_before_the_ledger(lambda: promote(state, registry, 2, against=1))
    with pytest.raises(PromotionRefusedError, match=r"production is version 2 now: evaluate it again.*stays version 2"):
        promote(state, registry, 3, against=1)
    assert state.production(MODEL) == 2
    assert kinds(state) == [DecisionKind.PROMOTE, DecisionKind.PROMOTE, DecisionKind.REJECT]


ADA = replace(SOMEBODY, name="user:ada", dagster_run_id="")


def test_a_refusal_in_the_last_moment_counts(state, registry, just_before_the_ledger):
    just_before_the_ledger(lambda: approval.refuse_version(state, MODEL, version(1), actor=ADA, reason="no"))
    with pytest.raises(PromotionRefusedError, match=r"user:ada \(decision 1: no\) refused it"):
        promote(state, registry, 1)
    assert state.production(MODEL) is None


def test_what_is_said_about_another_version_in_the_last_moment_holds_nothing_up(
    state, registry, just_before_the_ledger
):
    just_before_the_ledger(lambda: approval.refuse_version(state, MODEL, version(7), actor=ADA, reason="no"))
    promote(state, registry, 1)
    assert state.production(MODEL) == 1


def test_an_alias_moved_behind_the_ledger_is_named_by_the_promotion_that_puts_it_right(state, registry):
    promote(state, registry, 1)
    registry.set_alias(MODEL, "production", version(4))
    done = promotion.promote(state, registry, evidence=evidence(2, against=1), policy=PromotionPolicy(), actor=SOMEBODY)
    sentence = "alias 'production' points to version 4, the ledger says version 1"
    assert done.repaired == (sentence,)
    assert done.decision.decision.reason.endswith(f"Put right: {sentence}.")
    assert registry.alias(MODEL, "production") == 2


def test_traffic_goes_to_production_and_keeps_the_previous_version_warm(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    plan = traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    assert [(arm.version, arm.weight, arm.role) for arm in plan.arms] == [
        (2, 100, Role.PRODUCTION),
        (1, 0, Role.STANDBY),
    ]
    assert plan.production.bundle_digest == digest_of(2)


def test_starting_the_same_traffic_twice_is_one_revision(state, registry):
    promote(state, registry, 1)
    first = traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    assert traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY).revision == first.revision == 1


def test_a_plan_for_a_move_that_another_one_followed_is_refused(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    late = last_move(state, MODEL)
    _, plan = promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    with pytest.raises(ConflictError, match="not its newest move"):
        state.publish_plan(
            late, plan=NewPlan(strategy=Strategy.DIRECT, arms=plan.arms), actor="dagster", at=SOMEBODY.at
        )
    assert state.plan(MODEL) == plan
    assert traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY) == plan


def test_the_version_that_the_next_rollback_goes_to_stands_by(state, registry):
    for number in (1, 2, 3):
        promote(state, registry, number, against=number - 1 or None)
    _, once = promotion.roll_back(state, MODEL, reason="once", actor=SOMEBODY)
    assert [arm.version for arm in once.arms] == [2, 1]
    _, twice = promotion.roll_back(state, MODEL, reason="twice", actor=SOMEBODY, leaving=version(2))
    assert [arm.version for arm in twice.arms] == [1, 2]


def test_a_version_in_production_without_traffic_is_named(state, registry):
    assert traffic.traffic_difference(state, MODEL) == ""
    promote(state, registry, 1)
    assert traffic.traffic_difference(state, MODEL) == (
        "the traffic plan gives the requests to no version, the ledger says version 1"
    )
    traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    assert traffic.traffic_difference(state, MODEL) == ""


def test_rollback_moves_ledger_and_traffic_together_and_needs_no_registry(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    decision, plan = promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    assert state.production(MODEL) == plan.production.version == 1
    assert plan.decision_id == decision.decision_id
    assert registry.alias(MODEL, "production") == 2
    assert reconcile_aliases(state, registry, MODEL)
    assert registry.alias(MODEL, "production") == 1


@pytest.fixture
def rolled_back(state, registry):
    """From version 3 to 2; 1 was promoted too."""
    for number in (1, 2, 3):
        promote(state, registry, number, against=number - 1 or None)
    return promotion.roll_back(state, MODEL, reason="once", actor=SOMEBODY)


@pytest.mark.parametrize("wanted", [{"leaving": 3}, {"to": 2}, {"leaving": 3, "to": 2}])
def test_two_who_see_one_incident_undo_it_once(state, rolled_back, wanted):
    said = {name: version(number) for name, number in wanted.items()}
    assert promotion.roll_back(state, MODEL, reason="me too", actor=SOMEBODY, **said) == rolled_back
    assert kinds(state).count(DecisionKind.ROLLBACK) == 1


@pytest.mark.parametrize("wanted", [{"leaving": 3, "to": 1}, {"leaving": 1}, {"leaving": 1, "to": 2}])
def test_a_rollback_from_a_version_that_is_not_production_moves_nothing(state, rolled_back, wanted):
    said = {name: version(number) for name, number in wanted.items()}
    with pytest.raises(ConflictError, match=r"is not in production, version 2 is\. Nothing was changed"):
        promotion.roll_back(state, MODEL, reason="late", actor=SOMEBODY, **said)
    assert state.production(MODEL) == 2


def test_further_back_goes_only_who_says_that_the_version_that_is_back_is_wrong_too(state, rolled_back):
    with pytest.raises(ConflictError, match=r"rolled back already, at .* by \S+ \(decision 4: once\); version 2 is in"):
        promotion.roll_back(state, MODEL, reason="twice", actor=SOMEBODY)
    assert state.production(MODEL) == 2
    promotion.roll_back(state, MODEL, reason="twice", actor=SOMEBODY, leaving=version(2))
    assert state.production(MODEL) == 1


def test_the_only_version_cannot_be_rolled_back(state, registry):
    promote(state, registry, 1)
    with pytest.raises(NoProductionModelError, match="Nothing was changed"):
        promotion.roll_back(state, MODEL, reason="why not", actor=SOMEBODY)
    assert state.production(MODEL) == 1


def test_a_version_that_was_never_promoted_is_no_target(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    with pytest.raises(NoProductionModelError, match="promoted earlier: 1"):
        promotion.roll_back(state, MODEL, reason="typo", to=version(7), actor=SOMEBODY)


def test_an_alias_moved_behind_the_ledger_is_named(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    registry.set_alias(MODEL, "production", version(4))
    assert alias_differences(state, registry, MODEL) == (
        "alias 'production' points to version 4, the ledger says version 2",
    )


def test_a_deleted_alias_is_named(state, registry):
    promote(state, registry, 1)
    registry.set_alias(MODEL, "production", None)
    assert "points to no version, the ledger says version 1" in alias_differences(state, registry, MODEL)[0]


def test_the_ledger_stays_a_chain_through_all_verbs(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    _, plan = promotion.roll_back(state, MODEL, reason="test", actor=SOMEBODY)
    traffic.note_served(state, plan, seconds=0.2, actor=SOMEBODY)
    verify_chain(state.decisions())
    assert state.decisions()[-1].decision.seconds == 0.2


def test_a_plan_is_noted_as_served_once(state, registry):
    promote(state, registry, 1)
    plan = traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    first = traffic.note_served(state, plan, seconds=0.2, actor=SOMEBODY)
    assert traffic.note_served(state, plan, seconds=0.3, actor=SOMEBODY) == first
    assert [row.decision.kind for row in state.decisions()] == ["promote", "served"]


def test_a_plan_that_a_rollback_replaced_is_not_noted_as_served(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    replaced = traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    assert traffic.note_served(state, replaced, seconds=0.2, actor=SOMEBODY) is None
    assert "served" not in [row.decision.kind for row in state.decisions()]


def test_a_rollback_while_a_plan_is_noted_as_served_wins(state, registry, monkeypatch):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    plan = traffic.start_traffic(state, MODEL, policy=DIRECT, actor=SOMEBODY)
    record = state.record

    def rolled_back_first(*args, **kwargs):
        monkeypatch.setattr(state, "record", record)
        promotion.roll_back(state, MODEL, reason="just now", actor=SOMEBODY)
        return record(*args, **kwargs)

    monkeypatch.setattr(state, "record", rolled_back_first)
    assert traffic.note_served(state, plan, seconds=0.2, actor=SOMEBODY) is None
    assert [row.decision.kind for row in state.decisions()][-1] == "rollback"


def test_the_evidence_that_promoted_a_version_does_not_undo_its_rollback(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    with pytest.raises(PromotionRefusedError, match="was rolled back"):
        promote(state, registry, 2, against=1)
    assert state.production(MODEL) == 1


def test_another_candidate_may_follow_a_rollback(state, registry):
    promote(state, registry, 1)
    promote(state, registry, 2, against=1)
    promotion.roll_back(state, MODEL, reason="answers look wrong", actor=SOMEBODY)
    promote(state, registry, 3, against=1)
    assert state.production(MODEL) == 3


def test_a_promotion_that_was_interrupted_before_the_registry_is_finished_by_the_next_run(state, registry):
    class Gone(MemoryRegistry):
        def set_alias(self, model, alias, version):
            raise ConnectionError("registry is away")

    with pytest.raises(ConnectionError):
        promote(state, Gone(), 1)
    assert (state.production(MODEL), registry.alias(MODEL, "production")) == (1, None)
    promote(state, registry, 1)
    assert registry.alias(MODEL, "production") == 1
    assert registry.version(MODEL, version(1)).tags["validation_status"] == "approved"
    assert len(state.decisions(MODEL)) == 1


RISK = RiskFacts()
SEMI = PromotionPolicy(mode=PromotionMode.SEMI_AUTOMATIC, approval=ApprovalPolicy(four_eyes=True, valid_hours=24))
MANUAL = PromotionPolicy(mode=PromotionMode.MANUAL, approval=ApprovalPolicy(approvers=("user:bob",)))
BOB = replace(SOMEBODY, name="user:bob", dagster_run_id="")


def decide(state, registry, policy, number=1, *, by=SOMEBODY):
    return promotion.promote(state, registry, evidence=evidence(number), policy=policy, actor=by)


def test_a_version_that_needs_approval_waits_and_asks_once(state, registry):
    for _ in range(2):
        waiting = decide(state, registry, SEMI)
        assert isinstance(waiting, promotion.Waiting)
        assert waiting.request == state.decisions(MODEL)[0]
    assert kinds(state) == [DecisionKind.REQUEST]
    assert (state.production(MODEL), registry.alias(MODEL, "production")) == (None, None)
    assert registry.version(MODEL, version(1)).tags["validation_status"] == "pending"


def test_once_approved_it_is_promoted_and_the_waiting_is_measured(state, registry):
    decide(state, registry, SEMI)
    later = replace(BOB, at=BOB.at + timedelta(hours=2))
    row = approval.approve(state, evidence=evidence(1), asked=SEMI.asked(RISK), actor=later, reason="looks good")
    assert row.decision.seconds == 2 * 3600
    done = decide(state, registry, SEMI, by=later)
    assert isinstance(done, promotion.Promotion)
    assert "user:bob (decision 2: looks good) approved it" in done.decision.decision.reason
    assert state.production(MODEL) == 1
    verify_chain(state.decisions())


@pytest.mark.parametrize(
    ("actor", "number", "words"),
    [
        (replace(BOB, name="user:ada"), 1, "wants four eyes"),
        (replace(BOB, name="sensor:x"), 1, "is no person"),
        (replace(BOB, at=BOB.at + timedelta(hours=25)), 1, "expired at 1997-06-02 12:00 UTC"),
        (BOB, 2, "nobody asked for it"),
    ],
)
def test_an_approval_that_cannot_count_is_an_error_and_not_on_record(state, registry, actor, number, words):
    decide(state, registry, SEMI)
    with pytest.raises(ApprovalError, match=words):
        approval.approve(state, evidence=evidence(number), asked=SEMI.asked(RISK), actor=actor, reason="yes")
    assert kinds(state) == [DecisionKind.REQUEST]


def test_another_evaluation_ends_the_request(state, registry):
    decide(state, registry, SEMI)
    again = evidence(1, run_id="run-2")
    with pytest.raises(ApprovalError, match="evaluated again since it was asked for"):
        approval.approve(state, evidence=again, asked=SEMI.asked(RISK), actor=BOB, reason="yes")


def test_under_manual_nothing_moves_or_is_asked_until_a_person_asks(state, registry):
    assert isinstance(decide(state, registry, MANUAL), promotion.Waiting)
    assert kinds(state) == []
    with pytest.raises(ApprovalError, match="'user:ada' is not among those who may ask"):
        approval.request(state, evidence=evidence(1), asked=MANUAL.asked(RISK), actor=SOMEBODY, reason="now")
    approval.request(state, evidence=evidence(1), asked=MANUAL.asked(RISK), actor=BOB, reason="now")
    assert isinstance(decide(state, registry, MANUAL), promotion.Promotion)


def test_what_a_person_refused_is_not_promoted_automatically(state, registry):
    approval.refuse(state, MODEL, version(1), policy=PromotionPolicy(), actor=BOB, reason="unfair to new customers")
    with pytest.raises(PromotionRefusedError, match="unfair to new customers"):
        decide(state, registry, PromotionPolicy())
    assert state.production(MODEL) is None


def test_production_is_rolled_back_and_not_refused(state, registry):
    promote(state, registry, 1)
    with pytest.raises(ApprovalError, match="`boucle rollback repurchase` takes it out"):
        approval.refuse(state, MODEL, version(1), policy=PromotionPolicy(), actor=BOB, reason="no")


def test_somebody_whom_the_policy_does_not_name_cannot_refuse(state):
    stranger = replace(BOB, name="user:eve")
    with pytest.raises(ApprovalError, match="may: user:bob"):
        approval.refuse(state, MODEL, version(1), policy=MANUAL, actor=stranger, reason="no")
