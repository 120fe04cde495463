"""Who must agree, and whether they did: a table over the ledger."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets_tests.scenarios import MODEL, NOON, evidence, version
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest
from boucle.operations.promotion import judge
from boucle.policy.approval import ApprovalPolicy, Consent, PromotionMode, Standing, open_requests, standing
from boucle.policy.limits import PromotionPolicy
from boucle.policy.promotion import PromotionOutcome
from boucle_adapters.memory import MemoryStateStore

EVIDENCE, OTHER = evidence(2), Digest("f" * 64)
ADA, BOB, SENSOR = "user:ada", "user:bob", "sensor:repurchase_drift"
REQUEST, APPROVE, REJECT = DecisionKind.REQUEST, DecisionKind.APPROVE, DecisionKind.REJECT
MANUAL, SEMI, AUTOMATIC = PromotionMode.MANUAL, PromotionMode.SEMI_AUTOMATIC, PromotionMode.AUTOMATIC
HOUR = timedelta(hours=1)


def ledger(*said: tuple[object, ...]) -> MemoryStateStore:
    """Rows (kind, actor), an hour apart from noon on; then perhaps the evidence, and the run that said it."""
    state = MemoryStateStore()
    for hours, (kind, actor, *rest) in enumerate(said):
        digest, run = (rest + [EVIDENCE.digest(), ""][len(rest) :])[:2]
        new = NewDecision(
            kind=kind,
            model=MODEL,
            at=NOON + hours * HOUR,
            actor=actor,
            reason="because",
            from_version=None,
            to_version=None,
            subject_version=EVIDENCE.version,
            evidence_digest=digest,
            dagster_run_id=run,
        )
        state.record(new, expected_production=None)
    return state


def stands(mode: PromotionMode, *said: tuple[object, ...], at: datetime | None = None, **policy: object) -> Standing:
    return standing(
        mode,
        ApprovalPolicy.model_validate(policy),
        ledger(*said).decisions(),
        version=EVIDENCE.version,
        evidence_digest=EVIDENCE.digest(),
        at=at or NOON + len(said) * HOUR,
    )


@pytest.mark.parametrize(
    ("mode", "said", "consent"),
    [
        (AUTOMATIC, [], Consent.NOT_NEEDED),
        (MANUAL, [], Consent.MISSING),
        (MANUAL, [(REQUEST, ADA)], Consent.GIVEN),
        (MANUAL, [(REQUEST, SENSOR)], Consent.MISSING),
        (MANUAL, [(REQUEST, ADA, EVIDENCE.digest(), "a run that ada launched")], Consent.MISSING),
        (SEMI, [], Consent.MISSING),
        (SEMI, [(REQUEST, SENSOR)], Consent.ASKED),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, ADA)], Consent.GIVEN),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, SENSOR)], Consent.ASKED),
        (SEMI, [(APPROVE, ADA), (REQUEST, SENSOR)], Consent.ASKED),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, ADA), (REQUEST, SENSOR)], Consent.ASKED),
        (SEMI, [(REQUEST, SENSOR, OTHER), (APPROVE, ADA, OTHER)], Consent.MISSING),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, ADA, OTHER)], Consent.ASKED),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, ADA), (REJECT, BOB)], Consent.REFUSED),
        (SEMI, [(REQUEST, SENSOR), (REJECT, BOB), (APPROVE, ADA)], Consent.GIVEN),
        (AUTOMATIC, [(REJECT, BOB)], Consent.REFUSED),
        (AUTOMATIC, [(REJECT, BOB, OTHER)], Consent.REFUSED),
        (AUTOMATIC, [(REJECT, BOB, OTHER, "a run that bob launched")], Consent.NOT_NEEDED),
        (AUTOMATIC, [(REJECT, BOB), (REQUEST, SENSOR)], Consent.REFUSED),
        (AUTOMATIC, [(REJECT, BOB), (REQUEST, ADA)], Consent.NOT_NEEDED),
        (AUTOMATIC, [(REJECT, BOB), (REQUEST, ADA, OTHER)], Consent.REFUSED),
        (AUTOMATIC, [(REJECT, BOB), (REQUEST, ADA, EVIDENCE.digest(), "a run that ada launched")], Consent.REFUSED),
        (AUTOMATIC, [(REJECT, BOB), (APPROVE, ADA)], Consent.REFUSED),
        (SEMI, [(REQUEST, SENSOR), (REJECT, BOB), (APPROVE, ADA, OTHER)], Consent.REFUSED),
        (SEMI, [(REQUEST, SENSOR), (APPROVE, ADA), (REJECT, BOB), (REQUEST, ADA)], Consent.ASKED),
    ],
)
def test_what_the_ledger_says_of_people(mode: PromotionMode, said: list[tuple[object, ...]], consent: Consent):
    assert stands(mode, *said).consent is consent


@pytest.mark.parametrize(("approver", "consent"), [(ADA, Consent.ASKED), (BOB, Consent.GIVEN)])
def test_four_eyes_want_somebody_else_than_who_asked(approver: str, consent: Consent):
    assert stands(SEMI, (REQUEST, ADA), (APPROVE, approver), four_eyes=True).consent is consent


def test_four_eyes_want_to_know_whose_code_a_sensor_asks_for():
    assert stands(SEMI, (REQUEST, SENSOR), (APPROVE, ADA), four_eyes=True).consent is Consent.ASKED
    assert stands(SEMI, (REQUEST, SENSOR), (REQUEST, BOB), (APPROVE, ADA), four_eyes=True).consent is Consent.GIVEN


@pytest.mark.parametrize(
    ("actor", "semi", "manual"), [(ADA, Consent.ASKED, Consent.MISSING), (BOB, *[Consent.GIVEN] * 2)]
)
def test_only_those_whom_the_policy_names_count(actor: str, semi: Consent, manual: Consent):
    assert stands(SEMI, (REQUEST, SENSOR), (APPROVE, actor), approvers=[BOB]).consent is semi
    assert stands(MANUAL, (REQUEST, actor), approvers=[BOB]).consent is manual


@pytest.mark.parametrize("mode", [MANUAL, SEMI, AUTOMATIC])
def test_a_refusal_is_taken_back_only_by_one_who_may_approve(mode: PromotionMode):
    said = [(REQUEST, BOB), (APPROVE, BOB), (REJECT, BOB)]
    assert stands(mode, *said, (REQUEST, ADA), approvers=[BOB]).consent is Consent.REFUSED
    assert stands(mode, *said, (APPROVE, ADA), approvers=[BOB]).consent is Consent.REFUSED
    assert stands(mode, *said, (REQUEST, BOB), approvers=[BOB]).consent is not Consent.REFUSED
    assert stands(mode, *said, (APPROVE, BOB), approvers=[BOB]).consent is not Consent.REFUSED
    assert stands(mode, *said, (APPROVE, BOB), approvers=[BOB], valid_hours=2.5).consent is Consent.REFUSED


def test_with_four_eyes_nobody_takes_a_refusal_back_by_approving_what_he_asked_for():
    said = [(REQUEST, ADA), (REJECT, BOB), (APPROVE, ADA)]
    assert stands(SEMI, *said, four_eyes=True).consent is Consent.REFUSED
    assert stands(SEMI, *said).consent is Consent.GIVEN


def test_what_a_person_asked_for_is_carried_out_although_nobody_must_agree():
    assert stands(AUTOMATIC).answer is None
    asked = stands(AUTOMATIC, (REJECT, BOB), (REQUEST, ADA))
    assert asked.answer is not None
    assert (asked.consent, asked.answer.decision.actor) == (Consent.NOT_NEEDED, ADA)


@pytest.mark.parametrize("mode", [MANUAL, SEMI])
def test_a_request_counts_up_to_its_last_moment(mode: PromotionMode):
    said = [(REQUEST, ADA), (APPROVE, BOB)]
    last = NOON + 5 * HOUR
    assert stands(mode, *said, at=last, valid_hours=5).consent is Consent.GIVEN
    late = stands(mode, *said, at=last + timedelta(seconds=1), valid_hours=5)
    assert late.consent is Consent.EXPIRED
    assert "expired at 1997-06-01 17:00 UTC" in late.sentence


rows = st.lists(
    st.tuples(
        st.sampled_from([REQUEST, APPROVE, REJECT]),
        st.sampled_from([ADA, BOB, SENSOR]),
        st.sampled_from([EVIDENCE.digest(), OTHER]),
        st.sampled_from(["", "run"]),
    ),
    max_size=6,
)


@given(said=rows)
def test_a_stricter_policy_never_promotes_what_a_laxer_one_would_not(said: list[tuple[object, ...]]):
    state, at = ledger(*said), NOON + len(said) * HOUR

    def promotes(mode: PromotionMode, **approval: object) -> bool:
        policy = PromotionPolicy(mode=mode, approval=ApprovalPolicy.model_validate(approval))
        return judge(state, EVIDENCE, policy, at=at)[0].outcome is PromotionOutcome.PROMOTE

    semi, four_eyes = promotes(SEMI), promotes(SEMI, four_eyes=True)
    named = promotes(SEMI, four_eyes=True, approvers=[ADA])
    assert named <= four_eyes <= semi <= promotes(AUTOMATIC)
    assert promotes(MANUAL) <= promotes(AUTOMATIC)


@given(said=rows)
def test_what_a_person_refused_last_is_promoted_in_no_mode(said: list[tuple[object, ...]]):
    state = ledger(*said, (REJECT, ADA))
    for mode in PromotionMode:
        decision, people = judge(state, EVIDENCE, PromotionPolicy(mode=mode), at=NOON + 9 * HOUR)
        assert (decision.outcome, people.consent) == (PromotionOutcome.REJECT, Consent.REFUSED)
        assert "user:ada" in decision.reason


@given(said=rows, after=rows)
def test_nothing_promotes_what_was_refused_but_a_word_that_the_policy_counts(
    said: list[tuple[object, ...]], after: list[tuple[object, ...]]
):
    state = ledger(*said, (REJECT, BOB), *[row for row in after if row[1:] != (ADA, EVIDENCE.digest(), "")])
    for mode in PromotionMode:
        policy = PromotionPolicy(mode=mode, approval=ApprovalPolicy(approvers=(ADA,)))
        assert judge(state, EVIDENCE, policy, at=NOON + 20 * HOUR)[0].outcome is PromotionOutcome.REJECT


def test_nobody_says_anything_about_another_version():
    said = standing(
        SEMI,
        ApprovalPolicy(),
        ledger((REQUEST, SENSOR), (APPROVE, ADA)).decisions(),
        version=version(3),
        evidence_digest=EVIDENCE.digest(),
        at=NOON,
    )
    assert said.consent is Consent.MISSING


@pytest.mark.parametrize(
    ("said", "waits"),
    [
        ([], False),
        ([(REQUEST, SENSOR)], True),
        ([(REQUEST, SENSOR), (APPROVE, ADA)], False),
        ([(REQUEST, SENSOR), (REJECT, ADA)], False),
        ([(REQUEST, SENSOR), (REJECT, ADA), (REQUEST, SENSOR)], True),
        ([(REQUEST, SENSOR), (DecisionKind.ROLLBACK, ADA)], False),
        ([(REQUEST, SENSOR), (DecisionKind.RETRAIN, SENSOR)], True),
    ],
)
def test_a_request_waits_until_it_is_answered_or_production_moves(said: list[tuple[object, ...]], waits: bool):
    assert bool(open_requests(ledger(*said).decisions())) is waits


def test_of_one_version_the_newest_request_waits():
    (request,) = open_requests(ledger((REQUEST, SENSOR), (REQUEST, BOB)).decisions())
    assert request.decision.actor == BOB
