"""The gates on a real fit: what is good passes, and each thing made worse on purpose is refused."""

import numpy as np
import pytest

from assets_tests.judging import contract
from assets_tests.shop import CONTRACT, LATENCY, NAMES, answers, fitted, scores_of, shop
from boucle.contracts.facts import EvaluationFacts, LatencyFacts
from boucle.contracts.verdict import Verdict, overall
from boucle.errors import NotEnoughDataError
from boucle.policy.promotion import PromotionPolicy, evaluate_gates
from boucle.training.evaluate import Contracts, evaluate
from boucle.training.fit import feature_matrix, fit
from boucle_platform.defs.repurchase.estimator import build

POLICY = PromotionPolicy()


def judged(candidate=None, *, production=None, latency: LatencyFacts = LATENCY, contract=CONTRACT) -> EvaluationFacts:
    scores = scores_of(answers(fitted()) if candidate is None else candidate, production=production)
    return evaluate(
        shop().holdout, scores, Contracts(candidate=contract, declared=CONTRACT, served=None), latency, seed=7
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
