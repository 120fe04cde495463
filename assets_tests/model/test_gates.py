"""The gates on a real fit: what is good passes, and each thing made worse on purpose is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from assets_tests.judging import contract
from assets_tests.shop import CONTRACT, LATENCY, NAMES, TRIALS, answers, fitted, scores_of, shop
from boucle.contracts.facts import EvaluationFacts, LatencyFacts, RobustnessFacts
from boucle.contracts.measuring import CostMatrix
from boucle.contracts.verdict import Verdict, overall
from boucle.errors import ConfigurationError, NotEnoughDataError
from boucle.policy.evaluation import evaluate_gates
from boucle.policy.limits import PromotionPolicy
from boucle.training.evaluate import Contracts, evaluate
from boucle.training.fit import feature_matrix, fit, predict
from boucle.training.robustness import robustness
from boucle.training.slices import slices_of
from boucle_platform.defs.repurchase.estimator import build

POLICY = PromotionPolicy()


def judged(
    candidate=None, *, production=None, latency: LatencyFacts = LATENCY, contract=CONTRACT, costs=None
) -> EvaluationFacts:
    scores = scores_of(answers(fitted()) if candidate is None else candidate, production=production)
    return evaluate(
        shop().holdout,
        scores,
        Contracts(candidate=contract, declared=CONTRACT, served=None),
        replace(TRIALS, latency=latency),
        seed=7,
        slicing=POLICY.slicing,
        costs=costs,
    )


def verdicts(facts: EvaluationFacts) -> dict[str, Verdict]:
    return {gate.name: gate.verdict for gate in evaluate_gates(POLICY, facts)}


def test_a_model_that_learnt_something_passes_as_the_first_version():
    assert overall(evaluate_gates(POLICY, judged())) is Verdict.PASSED


def test_a_candidate_with_shuffled_labels_is_refused_by_floor_and_contest():
    found = verdicts(judged(answers(fitted(shuffled=True)), production=answers(fitted())))
    assert found["quality_floor"] is Verdict.FAILED
    assert found["auc_floor"] is Verdict.FAILED
    assert found["no_regression"] is Verdict.FAILED


def test_a_better_model_replaces_one_with_shuffled_labels():
    found = verdicts(judged(production=answers(fitted(shuffled=True))))
    # So different from production that a person should look.
    assert found.pop("score_shift") is Verdict.FAILED
    assert set(found.values()) == {Verdict.PASSED}


def test_a_model_that_is_only_worse_calibrated_is_a_regression_although_it_ranks_the_same():
    good = answers(fitted())
    found = verdicts(judged(np.minimum(1.2 * good, 1.0), production=good))
    assert found["auc_floor"] is Verdict.PASSED
    assert found["no_regression"] is Verdict.FAILED


def test_scores_that_all_promise_too_much_fail_calibration():
    assert verdicts(judged(np.clip(answers(fitted()) + 0.1, 0, 1)))["calibration"] is Verdict.FAILED


def test_scores_of_another_order_of_magnitude_are_not_plausible():
    assert verdicts(judged(answers(fitted()) / 10))["mean_score_plausible"] is Verdict.FAILED


@pytest.mark.parametrize("bad", [np.nan, -0.01, 1.01, np.inf])
def test_one_score_that_is_no_probability_fails_the_sanity_gate(bad: float):
    scores = answers(fitted()).copy()
    scores[17] = bad
    assert verdicts(judged(scores))["output_sanity"] is Verdict.FAILED


def test_scores_that_are_all_missing_are_refused_and_do_not_stop_the_evaluation():
    found = verdicts(judged(np.full(len(shop().holdout.labels), np.nan)))
    assert found["output_sanity"] is Verdict.FAILED
    assert found["quality_floor"] is Verdict.FAILED


def test_a_constant_score_is_refused():
    found = verdicts(judged(np.full(len(shop().holdout.labels), 0.25)))
    assert found["output_sanity"] is Verdict.FAILED


def test_a_model_that_became_worse_for_some_fails_although_it_is_better_on_the_whole():
    """Rows with a missing `usd` are a fifth: right in production, a constant from the candidate; others turn right."""
    good, missing = answers(fitted()), np.isnan(shop().holdout.features[:, 2])
    found = judged(np.where(missing, 0.6, good), production=np.where(missing, good, 0.8))
    gates = {gate.name: gate for gate in evaluate_gates(POLICY, found)}
    assert gates["no_regression"].verdict is Verdict.PASSED
    assert gates["slices"].verdict is Verdict.FAILED
    assert gates["slices"].detail.startswith("usd missing: the worst of 17 slices")


def test_a_model_whose_decisions_cost_more_fails_where_costs_are_declared():
    policy = POLICY.model_copy(update={"costs": CostMatrix(false_positive=1, false_negative=3, unit="EUR")})
    good = answers(fitted())
    cautious = judged(np.where(good < 0.35, 0.2, good), production=good, costs=policy.costs)
    assert {gate.name: gate.verdict for gate in evaluate_gates(policy, cautious)}["expected_cost"] is Verdict.FAILED
    same = judged(good, production=good, costs=policy.costs)
    assert {gate.name: gate.verdict for gate in evaluate_gates(policy, same)}["expected_cost"] is Verdict.PASSED


def asked(answer, **changes) -> RobustnessFacts:
    rows, base = shop().holdout, float(shop().labels.mean())
    specs = contract(*NAMES, **changes).features
    return robustness(answer, rows.features, rows.labels, specs, baseline_rate=base, seed=7)


def test_a_fitted_model_answers_rows_with_missing_and_extreme_values():
    found = asked(lambda rows: predict(fitted(), rows))
    assert found.useless == 0
    assert found.rows == 2_000 * 5 * 4
    assert 0.8 < found.worst_missing_ratio < 1.05
    gates = evaluate_gates(POLICY, replace(judged(), robustness=found))
    assert overall(gates) is Verdict.PASSED


@pytest.mark.parametrize("trap", [np.isnan, lambda values: np.abs(values) >= 1e9], ids=["missing", "extreme"])
def test_a_model_that_cannot_answer_such_rows_is_refused(trap):
    def answer(rows):
        return np.where(trap(rows).any(axis=1), np.nan, predict(fitted(), rows))

    found = asked(answer)
    assert found.useless > 0
    assert verdicts(replace(judged(), robustness=found))["robustness"] is Verdict.FAILED


def test_a_model_that_is_lost_without_one_feature_is_refused():
    def answer(rows):
        return np.where(np.isnan(rows[:, 1]), 0.99, predict(fitted(), rows))

    found = asked(answer)
    assert found.worst_missing == "freq"
    assert verdicts(replace(judged(), robustness=found))["missing_feature"] is Verdict.FAILED


def test_where_no_feature_may_be_missing_all_are_tried():
    assert asked(lambda rows: predict(fitted(), rows), nullable=False).worst_missing in NAMES


def test_slices_by_a_feature_that_is_not_there_are_refused():
    with pytest.raises(ConfigurationError, match="names age; the features are recency, freq, usd, noise"):
        list(slices_of(shop().holdout.features, NAMES, ("age",)))


@given(columns=arrays(np.float64, (60, 2), elements=st.floats(-5, 5) | st.just(np.nan)))
def test_every_row_is_in_exactly_one_slice_of_each_feature(columns):
    for name in ("a", "b"):
        masks = [mask for _, mask in slices_of(columns, ("a", "b"), (name,))]
        assert np.sum(masks, axis=0).tolist() == [1] * len(columns)


def test_scores_far_from_those_of_production_on_the_same_rows_are_refused():
    good = answers(fitted())
    near, far = (verdicts(judged(good, production=np.clip(good - by, 0, 1))) for by in (0.05, 0.2))
    assert near["score_shift"] is Verdict.PASSED
    assert far["score_shift"] is Verdict.FAILED


def test_a_first_version_that_answers_otherwise_than_in_training_is_refused():
    assert verdicts(judged(np.clip(answers(fitted()) + 0.15, 0, 1)))["score_shift"] is Verdict.FAILED


def test_a_slow_model_is_refused():
    found = verdicts(judged(latency=LatencyFacts(requests=500, median_ms=6, p99_ms=9)))
    assert found["latency"] is Verdict.FAILED


def test_a_model_of_other_features_than_the_schema_is_refused():
    assert verdicts(judged(contract=contract(*reversed(NAMES))))["signature"] is Verdict.FAILED


def test_the_evaluation_is_the_same_every_time():
    assert judged(production=answers(fitted(shuffled=True))) == judged(production=answers(fitted(shuffled=True)))


def test_fitting_needs_both_outcomes():
    with pytest.raises(NotEnoughDataError, match="0 of 3 labels are positive"):
        fit(build, np.zeros((3, 2)), np.zeros(3), seed=1)


def test_a_missing_feature_column_is_named():
    import pandas as pd

    with pytest.raises(ValueError, match="no column freq; they have recency"):
        feature_matrix(pd.DataFrame({"recency": [1.0]}), ["recency", "freq"])


def test_features_come_in_the_order_of_the_contract_with_missing_values_as_nan():
    import pandas as pd

    rows = pd.DataFrame({"a": pd.array([1, None], dtype="Int64"), "b": [0.5, 2.0]})
    assert feature_matrix(rows, ["b", "a"]).tolist() == [[0.5, 1.0], [2.0, pytest.approx(np.nan, nan_ok=True)]]
