"""The gates of a promotion: each bites, the limit itself passes, and no data is never a pass."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests.judging import contract, evaluation, gate, interval, scored
from boucle.contracts.bundle import OutputSpec
from boucle.contracts.evidence import Evidence
from boucle.contracts.facts import LatencyFacts, ParityFacts, ScoreFacts, TrainingFacts
from boucle.contracts.verdict import Verdict
from boucle.policy import candidate, promotion
from boucle.policy.approval import Consent, Standing
from boucle.policy.promotion import GATES, REQUIRED, PromotionOutcome, PromotionPolicy, decide, evaluate_gates

POLICY = PromotionPolicy()
NOBODY_ASKED = Standing(consent=Consent.NOT_NEEDED, sentence="automatic")
BEFORE = tuple(gate(name, Verdict.PASSED) for name in REQUIRED if name not in GATES)
"""The gates of training set and candidate, passed."""


def evidence(**changes) -> Evidence:
    facts = evaluation(**changes)
    return Evidence.model_validate(
        {
            "model": "repurchase",
            "version": 3,
            "production_version": 2,
            "bundle_digest": "a" * 64,
            "data_digest": "b" * 64,
            "holdout_rows": facts.rows,
            "holdout_positive_rate": facts.positives / facts.rows,
            "candidate": facts.candidate,
            "production": facts.production,
            "baseline": facts.baseline,
            "gates": (*BEFORE, *evaluate_gates(POLICY, facts)),
            "run_id": "run-1",
            "created_at": datetime(1997, 6, 1, tzinfo=UTC),
        }
    )


def test_a_candidate_that_is_surely_better_passes_every_gate():
    found = evaluate_gates(POLICY, evaluation())
    assert [gate.name for gate in found] == list(GATES)
    assert {gate.verdict for gate in found} == {Verdict.PASSED}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quality_floor", {"candidate": scored(0.2745)}),  # 0.2745 / 0.28 = 0.9804
        ("auc_floor", {"candidate": scored(auc=0.599)}),
        ("no_regression", {"gain": interval(-0.002, -0.003, -0.0001)}),
        ("signature", {"contract": contract("recency")}),
        ("output_sanity", {"scores": ScoreFacts(rows=10_000, not_a_number=1, outside=0, spread=0.7)}),
        ("mean_score_plausible", {"candidate": scored(mean_score=0.161)}),  # 0.161 / 0.08 = 2.01
        ("calibration", {"calibration": interval(0.04, 0.031, 0.05)}),
        ("latency", {"latency": LatencyFacts(requests=500, median_ms=1.0, p99_ms=5.01)}),
    ],
)
def test_each_gate_fails_on_its_own_fault_and_the_others_do_not_mind(name: str, changes: dict):
    found = {gate.name: gate.verdict for gate in evaluate_gates(POLICY, evaluation(**changes))}
    assert found == dict.fromkeys(GATES, Verdict.PASSED) | {name: Verdict.FAILED}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("quality_floor", {"candidate": scored(0.49), "baseline": scored(0.5, auc=0.5)}),  # exactly 0.98
        ("auc_floor", {"candidate": scored(auc=0.6)}),
        ("no_regression", {"gain": interval(0.001, 0.0, 0.002)}),
        ("mean_score_plausible", {"candidate": scored(mean_score=0.16)}),
        ("calibration", {"calibration": interval(-0.03, -0.05, -0.02)}),
        ("latency", {"latency": LatencyFacts(requests=500, median_ms=1.0, p99_ms=5.0)}),
    ],
)
def test_the_limit_itself_passes(name: str, changes: dict):
    found = {gate.name: gate.verdict for gate in evaluate_gates(POLICY, evaluation(**changes))}
    assert found[name] is Verdict.PASSED


@given(low=st.floats(-0.01, 0.01), width=st.floats(0, 0.01), limit=st.floats(-0.005, 0.005))
def test_no_regression_has_three_answers_by_where_the_interval_lies(low: float, width: float, limit: float):
    policy = PromotionPolicy(min_gain=limit)
    gate = promotion.no_regression(policy, evaluation(gain=interval(low + width / 2, low, low + width)))
    if low >= limit:
        assert gate.verdict is Verdict.PASSED
    elif low + width < limit:
        assert gate.verdict is Verdict.FAILED
    else:
        assert gate.verdict is Verdict.INCONCLUSIVE


def test_an_interval_that_ends_at_the_limit_is_inconclusive_and_not_a_regression():
    gate = promotion.no_regression(POLICY, evaluation(gain=interval(-0.001, -0.002, 0.0)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_the_first_version_is_judged_against_the_baseline():
    gate = promotion.no_regression(POLICY, evaluation(production=None, served=None))
    assert gate.verdict is Verdict.PASSED
    assert "the baseline, as there is no production version" in gate.detail


@pytest.mark.parametrize("changes", [{"rows": 1_999}, {"positives": 99}])
def test_too_few_rows_or_positives_are_inconclusive_however_good_the_candidate_looks(changes: dict):
    found = {gate.name: gate.verdict for gate in evaluate_gates(POLICY, evaluation(**changes))}
    unsure = ("quality_floor", "auc_floor", "no_regression", "mean_score_plausible", "calibration")
    assert all(found[name] is Verdict.INCONCLUSIVE for name in unsure)


def test_exactly_as_many_rows_and_positives_as_asked_are_enough():
    found = evaluate_gates(POLICY, evaluation(rows=2_000, positives=160))
    assert {gate.verdict for gate in found} == {Verdict.PASSED}


def test_a_calibration_gap_beyond_the_limit_that_may_be_chance_is_inconclusive():
    gate = promotion.calibration(POLICY, evaluation(calibration=interval(0.031, 0.02, 0.04)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_a_metric_that_is_not_a_number_fails_and_is_not_written_as_one():
    gate = promotion.latency(
        POLICY, evaluation(latency=LatencyFacts(requests=9, median_ms=float("nan"), p99_ms=float("nan")))
    )
    assert (gate.verdict, gate.measured) == (Verdict.FAILED, None)


def test_latency_that_nobody_measured_is_inconclusive():
    gate = promotion.latency(POLICY, evaluation(latency=LatencyFacts(requests=0, median_ms=0, p99_ms=0)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_scores_that_are_all_equal_are_useless():
    gate = promotion.output_sanity(
        POLICY, evaluation(scores=ScoreFacts(rows=10_000, not_a_number=0, outside=0, spread=0.0))
    )
    assert (gate.verdict, gate.measured) == (Verdict.FAILED, 10_000)


def test_a_holdout_without_positives_has_no_plausible_mean():
    gate = promotion.mean_score_plausible(POLICY, evaluation(positives=0))
    assert (gate.verdict, gate.measured) == (Verdict.INCONCLUSIVE, None)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (contract("recency"), "feature 'freq' of the schema is missing"),
        (contract("recency", "freq", "age"), "feature 'age' is not in the schema"),
        (contract("freq", "recency"), "another order than those of the schema"),
        (contract(dtype="int64"), "'freq' is int64 or missing, the schema has float64 or missing"),
        (contract(nullable=False), "'recency' is float64, the schema has float64 or missing"),
        (contract(entity="customer"), "the entity is 'customer', the schema has 'user_id'"),
    ],
)
def test_the_signature_names_every_difference(changed, words: str):
    gate = promotion.signature(POLICY, evaluation(contract=changed, served=None))
    assert gate.verdict is Verdict.FAILED
    assert words in gate.detail


def test_a_model_may_learn_from_a_feature_that_production_does_not_know():
    wider = contract("recency", "freq", "age")
    assert promotion.signature(POLICY, evaluation(contract=wider, declared=wider)).verdict is Verdict.PASSED


@pytest.mark.parametrize(
    ("served", "words"),
    [
        (contract(entity="customer"), "the entity is 'user_id', production has 'customer'"),
        (
            contract().model_copy(update={"output": OutputSpec(description="returns within 14 days")}),
            "the answer is 'buys within 30 days', production has 'returns within 14 days'",
        ),
    ],
)
def test_callers_of_production_must_be_able_to_ask_and_read_as_before(served, words: str):
    gate = promotion.signature(POLICY, evaluation(served=served))
    assert gate.verdict is Verdict.FAILED
    assert words in gate.detail


@pytest.mark.parametrize(
    ("difference", "verdict"),
    [(1e-9, Verdict.PASSED), (1.1e-9, Verdict.FAILED), (float("nan"), Verdict.FAILED)],
)
def test_an_export_equals_its_estimator_up_to_one_in_a_billion(difference: float, verdict: Verdict):
    gate = candidate.bundle_equals_estimator(ParityFacts(max_difference=difference, rows=100, probes=10))
    assert gate.verdict is verdict


def test_a_parity_without_rows_is_no_parity():
    gate = candidate.bundle_equals_estimator(ParityFacts(max_difference=0.0, rows=0, probes=0))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_passed_evidence_promotes_with_the_numbers_of_the_contest():
    decision = decide(evidence(), production=2, rolled_back={}, people=NOBODY_ASKED)
    assert decision.outcome is PromotionOutcome.PROMOTE
    assert decision.reason.startswith("all 13 gates passed; no_regression: passed (measured 0.01 nats [0.008, 0.012]")


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(interval(-0.002, -0.003, -0.001), Verdict.FAILED), (interval(0.0, -0.001, 0.001), Verdict.INCONCLUSIVE)],
)
def test_a_failed_and_an_inconclusive_gate_both_leave_production_where_it_is(gain, verdict: Verdict):
    decision = decide(evidence(gain=gain), production=2, rolled_back={}, people=NOBODY_ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason.startswith(f"no_regression: {verdict}")


def test_evidence_against_another_version_than_production_decides_nothing():
    decision = decide(evidence(), production=1, rolled_back={}, people=NOBODY_ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert "compared with version 2, but production is version 1" in decision.reason


@pytest.mark.parametrize("name", REQUIRED)
def test_evidence_that_lacks_a_gate_is_not_enough(name: str):
    whole = evidence()
    rest = tuple(gate for gate in whole.gates if gate.name != name)
    decision = decide(whole.model_copy(update={"gates": rest}), production=2, rolled_back={}, people=NOBODY_ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason == f"{name}: missing in the evidence."


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.INCONCLUSIVE])
def test_a_gate_of_training_set_candidate_or_evaluation_that_did_not_pass_rejects(name: str, verdict: Verdict):
    whole = evidence()
    gates = tuple(gate(each.name, verdict) if each.name == name else each for each in whole.gates)
    decision = decide(whole.model_copy(update={"gates": gates}), production=2, rolled_back={}, people=NOBODY_ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason.startswith(f"{name}: {verdict}")


def test_evidence_about_the_version_that_is_production_changes_nothing():
    decision = decide(evidence(gain=interval(0.0, 0.0, 0.0)), production=3, rolled_back={}, people=NOBODY_ASKED)
    assert (decision.outcome, decision.reason) == (
        PromotionOutcome.KEEP,
        "Version 3 is production already: nothing new.",
    )


def test_a_doubt_about_the_evidence_rejects_although_every_gate_passed():
    decision = decide(
        evidence(), production=2, rolled_back={}, people=NOBODY_ASKED, doubts=["latency was never checked"]
    )
    assert (decision.outcome, decision.reason) == (PromotionOutcome.REJECT, "latency was never checked.")


ENOUGH = TrainingFacts(train_rows=1_000, train_positives=90, holdout_rows=500, holdout_positives=60, late_labels=0)


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({}, ""),
        ({"train_rows": 999}, "enough_rows"),
        ({"train_positives": 49}, "enough_positives"),
        ({"holdout_positives": 49}, "enough_positives"),
        ({"late_labels": 1}, "labels_are_mature"),
    ],
)
def test_a_training_set_needs_rows_positives_in_both_parts_and_labels_in_time(change: dict, failed: str):
    found = candidate.training_gates(replace(ENOUGH, **change), min_rows=1_000, min_positives=50)
    assert [gate.name for gate in found] == list(candidate.TRAINING_MEANINGS)
    assert [gate.name for gate in found if gate.verdict is not Verdict.PASSED] == [failed] * bool(failed)


def test_a_fit_may_use_its_whole_budget_and_no_more():
    assert candidate.within_compute_budget(60.0, max_cpu_seconds=60).verdict is Verdict.PASSED
    assert candidate.within_compute_budget(60.1, max_cpu_seconds=60).verdict is Verdict.FAILED


def test_a_misspelt_limit_is_refused():
    with pytest.raises(ValidationError, match="min_aucc"):
        PromotionPolicy.model_validate({"min_aucc": 0.7})
