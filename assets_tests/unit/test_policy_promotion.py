"""The gates of a promotion: each bites, the limit itself passes, and no data is never a pass."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests import scenarios
from assets_tests.judging import ANSWERS, ROBUST, contract, evaluation, interval, scored
from boucle.contracts.bundle import OutputSpec
from boucle.contracts.evidence import Evidence
from boucle.contracts.facts import (
    Interval,
    LatencyFacts,
    ParityFacts,
    ScoreFacts,
    SliceFacts,
    SlicesFacts,
    TrainingFacts,
)
from boucle.contracts.measuring import CostMatrix
from boucle.contracts.verdict import Gate, GateMode, Verdict
from boucle.policy import candidate
from boucle.policy import evaluation as gates_of
from boucle.policy.approval import Consent, PromotionMode, Standing
from boucle.policy.evaluation import evaluate_gates, judged_gates, required_gates
from boucle.policy.limits import GateLimit, GateLimits, PromotionPolicy
from boucle.policy.promotion import PromotionOutcome, decide
from boucle.policy.risk import RiskFacts

POLICY = PromotionPolicy()
GATES, REQUIRED = judged_gates(POLICY), required_gates(POLICY)
ASKED = POLICY.asked(RiskFacts())
NOBODY_ASKED = Standing(consent=Consent.NOT_NEEDED, sentence="automatic")
BEFORE = tuple(scenarios.gate(name, Verdict.PASSED) for name in REQUIRED if name not in GATES)
"""The gates of training set and candidate, passed."""


def declaring(**limits: tuple[float, str] | tuple[float, str, str]) -> PromotionPolicy:
    """A policy in which these gates have these limits, units and perhaps modes."""
    gates = {name: dict(zip(("limit", "unit", "mode"), said, strict=False)) for name, said in limits.items()}
    return PromotionPolicy.model_validate({"gates": gates})


def apart(*found: tuple[str, Interval], small: int = 0) -> SlicesFacts:
    """Slices with these gains."""
    judged = tuple(SliceFacts(name=name, gain=gain) for name, gain in found)
    return SlicesFacts(judged=judged, small=small, level=0.95)


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
        ("brier_floor", {"baseline": scored(0.28, auc=0.5, brier=0.0703)}),  # 0.07 / 0.0703 = 0.9957
        ("slices", {"slices": apart(("freq = 1", interval(-0.03, -0.04, -0.021)))}),
        ("score_shift", {"score_shift": 0.101}),
        ("robustness", {"robustness": replace(ROBUST, useless=1)}),
        ("missing_feature", {"robustness": replace(ROBUST, worst_missing_ratio=1.051)}),
        ("api_invariants", {"api": replace(ANSWERS, violations=("u1 got status 500",))}),
        ("api_latency", {"api": replace(ANSWERS, p99_ms=100.1)}),
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
        ("brier_floor", {"baseline": scored(brier=0.8), "candidate": scored(brier=0.796)}),  # 0.995
        ("slices", {"slices": apart(("freq = 1", interval(-0.02, -0.03, -0.01)))}),
        ("score_shift", {"score_shift": 0.1}),
        ("missing_feature", {"robustness": replace(ROBUST, worst_missing_ratio=1.05)}),
        ("api_latency", {"api": replace(ANSWERS, p99_ms=100.0)}),
    ],
)
def test_the_limit_itself_passes(name: str, changes: dict):
    found = {gate.name: gate.verdict for gate in evaluate_gates(POLICY, evaluation(**changes))}
    assert found[name] is Verdict.PASSED


@given(low=st.floats(-0.01, 0.01), width=st.floats(0, 0.01), limit=st.floats(-0.005, 0.005))
def test_no_regression_has_three_answers_by_where_the_interval_lies(low: float, width: float, limit: float):
    policy = declaring(no_regression=(limit, "nats"))
    gate = gates_of.no_regression(policy, evaluation(gain=interval(low + width / 2, low, low + width)))
    if low >= limit:
        assert gate.verdict is Verdict.PASSED
    elif low + width < limit:
        assert gate.verdict is Verdict.FAILED
    else:
        assert gate.verdict is Verdict.INCONCLUSIVE


def test_an_interval_that_ends_at_the_limit_is_inconclusive_and_not_a_regression():
    gate = gates_of.no_regression(POLICY, evaluation(gain=interval(-0.001, -0.002, 0.0)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_the_first_version_is_judged_against_the_baseline():
    gate = gates_of.no_regression(POLICY, evaluation(production=None, served=None))
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
    gate = gates_of.calibration(POLICY, evaluation(calibration=interval(0.031, 0.02, 0.04)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_a_metric_that_is_not_a_number_fails_and_is_not_written_as_one():
    gate = gates_of.latency(
        POLICY, evaluation(latency=LatencyFacts(requests=9, median_ms=float("nan"), p99_ms=float("nan")))
    )
    assert (gate.verdict, gate.measured) == (Verdict.FAILED, None)


def test_latency_that_nobody_measured_is_inconclusive():
    gate = gates_of.latency(POLICY, evaluation(latency=LatencyFacts(requests=0, median_ms=0, p99_ms=0)))
    assert gate.verdict is Verdict.INCONCLUSIVE


def test_scores_that_are_all_equal_are_useless():
    gate = gates_of.output_sanity(
        POLICY, evaluation(scores=ScoreFacts(rows=10_000, not_a_number=0, outside=0, spread=0.0))
    )
    assert (gate.verdict, gate.measured) == (Verdict.FAILED, 10_000)


def test_a_holdout_without_positives_has_no_plausible_mean():
    gate = gates_of.mean_score_plausible(POLICY, evaluation(positives=0))
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
        (contract(unit="miles"), "'freq' has unit 'miles', the schema has none"),
        (contract(maximum=7.0), "'recency' has maximum 7.0, the schema has none"),
        (contract(categories=("B6", "UA")), "'freq' has categories ('B6', 'UA'), the schema has none"),
    ],
)
def test_the_signature_names_every_difference(changed, words: str):
    gate = gates_of.signature(POLICY, evaluation(contract=changed, served=None))
    assert gate.verdict is Verdict.FAILED
    assert words in gate.detail


def test_a_model_may_learn_from_a_feature_that_production_does_not_know():
    wider = contract("recency", "freq", "age")
    assert gates_of.signature(POLICY, evaluation(contract=wider, declared=wider)).verdict is Verdict.PASSED


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
    gate = gates_of.signature(POLICY, evaluation(served=served))
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
    decision = decide(POLICY, evidence(), production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
    assert decision.outcome is PromotionOutcome.PROMOTE
    assert decision.reason.startswith("all 20 gates passed; no_regression: passed (measured 0.01 nats [0.008, 0.012]")


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [(interval(-0.002, -0.003, -0.001), Verdict.FAILED), (interval(0.0, -0.001, 0.001), Verdict.INCONCLUSIVE)],
)
def test_a_failed_and_an_inconclusive_gate_both_leave_production_where_it_is(gain, verdict: Verdict):
    decision = decide(POLICY, evidence(gain=gain), production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason.startswith(f"no_regression: {verdict}")


def test_evidence_against_another_version_than_production_decides_nothing():
    decision = decide(POLICY, evidence(), production=1, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
    assert decision.outcome is PromotionOutcome.REJECT
    assert "compared with version 2, but production is version 1" in decision.reason


@pytest.mark.parametrize("name", REQUIRED)
def test_evidence_that_lacks_a_gate_is_not_enough(name: str):
    whole = evidence()
    rest = tuple(gate for gate in whole.gates if gate.name != name)
    decision = decide(
        POLICY, whole.model_copy(update={"gates": rest}), production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED
    )
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason == f"{name}: missing in the evidence."


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("verdict", [Verdict.FAILED, Verdict.INCONCLUSIVE])
def test_a_gate_of_training_set_candidate_or_evaluation_that_did_not_pass_rejects(name: str, verdict: Verdict):
    whole = evidence()
    gates = tuple(scenarios.gate(each.name, verdict) if each.name == name else each for each in whole.gates)
    decision = decide(
        POLICY,
        whole.model_copy(update={"gates": gates}),
        production=2,
        rolled_back={},
        people=NOBODY_ASKED,
        asked=ASKED,
    )
    assert decision.outcome is PromotionOutcome.REJECT
    assert decision.reason.startswith(f"{name}: {verdict}")


def test_evidence_about_the_version_that_is_production_changes_nothing():
    decision = decide(
        POLICY, evidence(gain=interval(0.0, 0.0, 0.0)), production=3, rolled_back={}, people=NOBODY_ASKED, asked=ASKED
    )
    assert (decision.outcome, decision.reason) == (
        PromotionOutcome.KEEP,
        "Version 3 is production already: nothing new.",
    )


def test_a_doubt_about_the_evidence_rejects_although_every_gate_passed():
    decision = decide(
        POLICY,
        evidence(),
        production=2,
        rolled_back={},
        people=NOBODY_ASKED,
        asked=ASKED,
        doubts=["latency was never checked"],
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


BUDGET = GateLimit(limit=60, unit="CPU seconds")


def test_a_fit_may_use_its_whole_budget_and_no_more():
    assert candidate.within_compute_budget(60.0, BUDGET).verdict is Verdict.PASSED
    assert candidate.within_compute_budget(60.1, BUDGET).verdict is Verdict.FAILED


def brought(*, min_rows: int = 1_000, budget: GateLimit = BUDGET) -> dict[str, Gate]:
    """Gates that came with a version from elsewhere, as they are judged here."""
    parity = candidate.bundle_equals_estimator(ParityFacts(max_difference=1e-15, rows=900, probes=90))
    cost = candidate.within_compute_budget(50.0, GateLimit(limit=60, unit="CPU seconds"))
    there = (*candidate.training_gates(ENOUGH, min_rows=1, min_positives=1), parity, cost, *evidence().gates[5:])
    found = candidate.gates_of_elsewhere(
        there, min_rows=min_rows, min_positives=50, budget=budget, origin="version 4 of staging"
    )
    return {gate.name: gate for gate in found}


def test_gates_that_only_the_maker_could_measure_come_along_and_say_where_they_were_measured():
    found = brought()
    assert list(found) == [*candidate.TRAINING_MEANINGS, *candidate.CANDIDATE_MEANINGS]
    assert {gate.verdict for gate in found.values()} == {Verdict.PASSED}
    assert found["enough_rows"].detail == "Measured as version 4 of staging."
    assert found["bundle_equals_estimator"].detail.endswith("huge values. Measured as version 4 of staging.")


def test_gates_that_came_along_are_judged_by_the_limits_of_here():
    rows = brought(min_rows=1_000_000)["enough_rows"]
    assert (rows.verdict, rows.limit) == (Verdict.FAILED, 1_000_000)
    tight = GateLimit(limit=40, unit="CPU seconds", mode=GateMode.WARN)
    cost = brought(budget=tight)["within_compute_budget"]
    assert (cost.verdict, cost.limit, cost.mode) == (Verdict.FAILED, 40, GateMode.WARN)


def test_what_was_said_of_an_earlier_journey_is_not_said_again():
    again = candidate.gates_of_elsewhere(
        brought().values(), min_rows=1, min_positives=1, budget=BUDGET, origin="version 9 of prod"
    )
    assert [gate.detail for gate in again if gate.name == "enough_rows"] == ["Measured as version 9 of prod."]


def test_a_misspelt_limit_is_refused():
    with pytest.raises(ValidationError, match="auc_flor"):
        PromotionPolicy.model_validate({"gates": {"auc_flor": {"limit": 0.7, "unit": "ratio"}}})


def test_a_limit_in_another_unit_is_refused():
    with pytest.raises(ValidationError, match="gate 'latency' is measured in ms, not in s"):
        declaring(latency=(5, "s"))


def test_a_limit_that_makes_no_sense_is_refused():
    with pytest.raises(ValidationError, match=r"the limit of gate 'auc_floor' must lie in \[0, 1\] ratio"):
        declaring(auc_floor=(60, "ratio"))


@pytest.mark.parametrize("mode", ["warn", "off"])
def test_a_gate_that_blocks_nothing_lets_a_fault_pass_and_is_named_in_the_decision(mode: str):
    policy = declaring(latency=(5.0, "ms", mode))
    facts = evaluation(latency=LatencyFacts(requests=500, median_ms=1.0, p99_ms=9.0))
    judged = evidence().model_copy(update={"gates": (*BEFORE, *evaluate_gates(policy, facts))})
    decision = decide(policy, judged, production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
    assert decision.outcome is PromotionOutcome.PROMOTE
    said = {"warn": "latency: failed, only warns (measured 9 ms", "off": "latency: switched off (at most 5 ms"}
    assert "all 19 blocking gates passed" in decision.reason
    assert said[mode] in decision.reason


def test_a_gate_that_is_switched_off_measures_nothing_and_is_no_pass():
    found = {gate.name: gate for gate in evaluate_gates(declaring(latency=(5.0, "ms", "off")), evaluation())}["latency"]
    assert (found.verdict, found.measured, found.mode) == (Verdict.INCONCLUSIVE, None, GateMode.OFF)


def test_evidence_in_which_no_gate_blocks_is_not_passed():
    loose = tuple(gate.model_copy(update={"mode": GateMode.WARN}) for gate in evidence().gates)
    assert evidence().model_copy(update={"gates": loose}).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    "now", [("latency", (3.0, "ms")), ("latency", (5.0, "ms", "warn")), ("calibration", (0.02, "probability"))]
)
def test_evidence_by_other_limits_than_those_of_now_decides_nothing(now: tuple):
    name, said = now
    decision = decide(
        declaring(**{name: said}), evidence(), production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED
    )
    assert decision.outcome is PromotionOutcome.REJECT
    assert f"{name} was judged by another limit than the policy has now" in decision.reason


@pytest.mark.parametrize(
    "now", [{"min_rows": 5000}, {"min_positives": 500}, {"confidence": 0.99}, {"slicing": {"min_rows": 50}}]
)
def test_evidence_by_a_policy_that_has_changed_since_decides_nothing(now: dict):
    judged = evidence().model_copy(update={"policy_digest": POLICY.measuring_digest()})
    kept, changed = (
        decide(policy, judged, production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
        for policy in (POLICY, PromotionPolicy.model_validate(POLICY.model_dump() | now))
    )
    assert kept.outcome is PromotionOutcome.PROMOTE
    assert changed.outcome is PromotionOutcome.REJECT
    assert "that the policy asks for have changed since: evaluate it again" in changed.reason


def test_who_must_agree_is_no_part_of_what_evidence_is_measured_by():
    manual = POLICY.model_copy(update={"mode": PromotionMode.MANUAL})
    assert manual.measuring_digest() == POLICY.measuring_digest()


def test_a_forged_mode_in_the_evidence_does_not_switch_a_gate_off():
    gates = tuple(gate.model_copy(update={"mode": GateMode.OFF}) for gate in evidence().gates)
    forged = evidence().model_copy(update={"gates": gates})
    decision = decide(POLICY, forged, production=2, rolled_back={}, people=NOBODY_ASKED, asked=ASKED)
    assert decision.outcome is PromotionOutcome.REJECT


WORST = ("freq = 1", interval(-0.01, -0.012, -0.008))


@pytest.mark.parametrize(
    ("others", "verdict", "named"),
    [
        ((), Verdict.PASSED, "freq = 1"),
        ((("usd missing", interval(-0.03, -0.05, -0.01)),), Verdict.INCONCLUSIVE, "usd missing"),
        ((("usd missing", interval(-0.03, -0.04, -0.0201)),), Verdict.FAILED, "usd missing"),
        # A small slice may look worse by chance than the one that surely is.
        (
            (("a", interval(-0.03, -0.04, -0.0201)), ("b", interval(-0.05, -0.2, 0.1))),
            Verdict.FAILED,
            "a",
        ),
    ],
)
def test_the_worst_slice_decides(others: tuple, verdict: Verdict, named: str):
    gate = gates_of.slices(POLICY, evaluation(slices=apart(WORST, *others)))
    assert (gate.verdict, gate.detail.partition(":")[0]) == (verdict, named)


def test_slices_that_are_all_too_small_are_inconclusive():
    gate = gates_of.slices(POLICY, evaluation(slices=apart(small=7)))
    assert (gate.verdict, gate.measured) == (Verdict.INCONCLUSIVE, None)
    assert "None of 7 slices has 500 rows" in gate.detail


COSTS = PromotionPolicy(costs=CostMatrix(false_positive=1, false_negative=4, unit="EUR"))


@pytest.mark.parametrize(
    ("gain", "verdict"),
    [
        (interval(0.1, 0.0, 0.2), Verdict.PASSED),
        (interval(0.1, -0.01, 0.2), Verdict.INCONCLUSIVE),
        (interval(-0.1, -0.2, -0.01), Verdict.FAILED),
        (None, Verdict.INCONCLUSIVE),
    ],
)
def test_where_costs_are_declared_the_candidate_must_surely_not_cost_more(gain: Interval | None, verdict: Verdict):
    found = {gate.name: gate for gate in evaluate_gates(COSTS, evaluation(cost_gain=gain))}
    assert found["expected_cost"].verdict is verdict
    assert "expected_cost" not in {gate.name for gate in evaluate_gates(POLICY, evaluation(cost_gain=gain))}


def test_an_app_that_never_answered_is_in_violation_and_has_no_latency():
    api = replace(ANSWERS, requests=1, violations=("the serving app did not start: no port",), timed=0, p99_ms=None)
    found = {gate.name: gate for gate in evaluate_gates(POLICY, evaluation(api=api))}
    assert found["api_invariants"].verdict is Verdict.FAILED
    assert "did not start: no port" in found["api_invariants"].detail
    assert found["api_latency"].verdict is Verdict.INCONCLUSIVE


def test_every_gate_has_a_limit_in_the_declaration_and_every_limit_a_gate():
    assert set(GateLimits.model_fields) == {*gates_of.MEANINGS, "within_compute_budget"}
