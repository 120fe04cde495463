"""The table of risk: the highest term counts, what nobody measured is high, and more risk never asks for less."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests import scenarios
from assets_tests.scenarios import MODEL, NOON, evidence, version
from boucle.contracts.decision import GENESIS, Decision, DecisionKind, NewDecision
from boucle.contracts.verdict import GateMode, Verdict
from boucle.policy.approval import ApprovalPolicy, Consent, PromotionMode, Standing, standing, why_not
from boucle.policy.limits import PromotionPolicy
from boucle.policy.promotion import PromotionOutcome, decide
from boucle.policy.risk import Demand, RiskFacts, RiskPolicy, Steps, Tier, assess

TABLE = RiskPolicy(criticality=Tier.LOW, traffic_share=Steps(medium=0.25, high=2))
CALM = RiskFacts(traffic_share=0.05, data_change=0.1, worst_slice_loss=0.0, label_age_days=10)
BY_RISK = PromotionPolicy(mode=PromotionMode.RISK_BASED, risk=TABLE)
NAMES = list(asdict(CALM))
values = st.none() | st.floats(0, 200, allow_nan=False)
facts = st.builds(RiskFacts, **dict.fromkeys(NAMES, values))


def test_a_small_change_of_a_model_that_matters_little_moves_by_itself():
    risk = assess(TABLE, CALM)
    assert {term.tier for term in risk.terms} == {Tier.LOW}
    assert BY_RISK.asked(CALM).mode is PromotionMode.AUTOMATIC


@pytest.mark.parametrize(
    ("change", "tier", "said"),
    [
        ({"data_change": 0.49}, Tier.LOW, ""),
        ({"data_change": 0.5}, Tier.MEDIUM, "data_change: medium (0.5 ratio; medium from 0.5, high from 0.9)"),
        ({"worst_slice_loss": 0.015}, Tier.HIGH, "worst_slice_loss: high (0.015 nats"),
        ({"label_age_days": 120}, Tier.HIGH, "label_age_days: high (120 days"),
        ({"traffic_share": 1.0}, Tier.MEDIUM, "traffic_share: medium (1 ratio"),
        ({"label_age_days": None}, Tier.HIGH, "label_age_days: high (nothing measured"),
        ({"label_age_days": float("nan")}, Tier.HIGH, "label_age_days: high (nan days"),
    ],
)
def test_the_highest_term_counts_and_what_nobody_measured_is_high(change: dict, tier: Tier, said: str):
    risk = assess(TABLE, replace(CALM, **change))
    assert risk.tier is tier
    assert said in risk.sentence()


def test_what_its_owners_declare_is_a_term_like_the_others():
    critical = TABLE.model_copy(update={"criticality": Tier.HIGH})
    assert assess(critical, CALM).sentence() == "high risk (criticality: high (declared))"


@given(before=facts, name=st.sampled_from(NAMES), rise=st.floats(0, 200))
def test_a_term_that_rises_or_is_lost_never_lowers_the_tier(before: RiskFacts, name: str, rise: float):
    value = getattr(before, name)
    tier = assess(TABLE, before).tier
    for worse in (None, None if value is None else value + rise):
        assert assess(TABLE, replace(before, **{name: worse})).tier.rank >= tier.rank


@given(one=facts, other=facts)
def test_more_risk_never_asks_for_fewer_people_or_fewer_gates(one: RiskFacts, other: RiskFacts):
    low, high = sorted((one, other), key=lambda found: assess(TABLE, found).tier.rank)
    less, more = BY_RISK.asked(low), BY_RISK.asked(high)
    people = [Demand(mode=asked.mode, four_eyes=asked.approval.four_eyes).people for asked in (less, more)]
    assert people == sorted(people)
    assert less.loose_gates_block <= more.loose_gates_block


@pytest.mark.parametrize(
    "table",
    [
        {"low": {"mode": "manual"}, "medium": {"mode": "automatic"}},
        {"medium": {"mode": "manual", "four_eyes": True}, "high": {"mode": "manual"}},
        {"medium": {"mode": "manual", "loose_gates_block": True}, "high": {"mode": "manual"}},
        {"high": {"mode": "risk_based", "four_eyes": True}},
        {"data_change": {"medium": 0.9, "high": 0.5}},
    ],
)
def test_a_table_in_which_more_risk_asks_for_less_is_refused(table: dict):
    with pytest.raises(ValidationError):
        RiskPolicy.model_validate(table)


def test_a_declared_four_eyes_is_never_taken_back():
    policy = BY_RISK.model_copy(update={"approval": ApprovalPolicy(four_eyes=True)})
    assert policy.asked(CALM).approval.four_eyes


AGREED = Standing(consent=Consent.GIVEN, sentence="user:bob approved it")


def test_at_high_risk_a_gate_that_only_warns_must_pass_and_one_that_is_off_cannot():
    policy = PromotionPolicy.model_validate(
        {"mode": "risk_based", "gates": {"latency": {"limit": 5, "unit": "ms", "mode": "warn"}}}
    )
    judged = evidence(2, against=1)
    gates = tuple(
        gate.model_copy(update={"mode": GateMode.WARN, "verdict": Verdict.FAILED}) if gate.name == "latency" else gate
        for gate in judged.gates
    )
    slow = judged.model_copy(update={"gates": gates})

    def outcome(measured: RiskFacts) -> PromotionOutcome:
        asked = policy.asked(measured)
        return decide(policy, slow, production=version(1), rolled_back={}, people=AGREED, asked=asked).outcome

    assert outcome(CALM) is PromotionOutcome.PROMOTE
    assert outcome(replace(CALM, label_age_days=None)) is PromotionOutcome.REJECT


def test_the_decision_names_the_terms_that_made_its_risk():
    asked = BY_RISK.asked(replace(CALM, data_change=0.6))
    decision = decide(
        BY_RISK, evidence(2, against=1), production=version(1), rolled_back={}, people=AGREED, asked=asked
    )
    assert "medium risk (data_change: medium (0.6 ratio" in decision.reason
    assert asked.name == "risk_based, medium: semi_automatic"


def row(number: int, kind: DecisionKind, actor: str, **said: object) -> Decision:
    new = NewDecision(
        kind=kind,
        model=MODEL,
        at=NOON,
        actor=actor,
        reason="because",
        from_version=None,
        to_version=None,
        subject_version=version(2),
        evidence_digest=evidence(2, against=1).digest(),
        **said,
    )
    return Decision(decision_id=number, previous_hash=GENESIS, row_hash=GENESIS, decision=new)


@pytest.mark.parametrize(
    ("approver", "counts"),
    [("user:ada@shop.example", False), ("user:ada", False), ("user:Ada", False), ("user:bob", True)],
)
def test_who_wrote_the_code_that_a_sensor_asks_for_may_not_approve_it(approver: str, counts: bool):
    asked = row(1, DecisionKind.REQUEST, "sensor:repurchase_drift", requester="user:ada@shop.example")
    assert (why_not(ApprovalPolicy(four_eyes=True), asked, approver) == "") is counts
    assert why_not(ApprovalPolicy(), asked, approver) == ""


@given(mode=st.sampled_from([mode for mode in PromotionMode if mode is not PromotionMode.RISK_BASED]), measured=facts)
def test_whatever_the_mode_or_the_risk_nothing_automatic_undoes_a_person(mode: PromotionMode, measured: RiskFacts):
    said = [row(1, DecisionKind.REQUEST, "sensor:x"), row(2, DecisionKind.REJECT, "user:ada")]
    for policy in (PromotionPolicy(mode=mode), BY_RISK):
        asked = policy.asked(measured)
        digest = evidence(2, against=1).digest()
        people = standing(asked.mode, asked.approval, said, version=version(2), evidence_digest=digest, at=NOON)
        assert people.consent is Consent.REFUSED
        decision = decide(
            policy, evidence(2, against=1), production=version(1), rolled_back={}, people=people, asked=asked
        )
        assert decision.outcome is PromotionOutcome.REJECT


def test_a_row_without_a_requester_is_written_as_it_always_was():
    assert b"requester" not in row(1, DecisionKind.REQUEST, "user:ada").decision.canonical()
    assert scenarios.SOMEBODY.commit_author == ""
