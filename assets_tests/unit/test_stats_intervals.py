"""Intervals: coverage, entities, seeds."""

import numpy as np
import pytest

from boucle.contracts.measuring import CostMatrix
from boucle.errors import NotEnoughDataError
from boucle.stats import intervals


def test_the_estimate_is_the_mean_and_lies_in_the_interval():
    values = np.array([1.0, 2.0, 3.0, 6.0])
    found = intervals.mean_interval(values, ["a", "b", "c", "d"], seed=1)
    assert found.estimate == 3.0
    assert found.low <= 3.0 <= found.high
    assert (found.sample_size, found.entities) == (4, 4)


def test_the_same_seed_gives_the_same_interval():
    values = np.random.default_rng(0).normal(size=500)
    keys = np.arange(500)
    assert intervals.mean_interval(values, keys, seed=5) == intervals.mean_interval(values, keys, seed=5)


def test_the_width_is_that_of_the_normal_approximation():
    values = np.random.default_rng(0).normal(size=4_000)
    found = intervals.mean_interval(values, np.arange(4_000), seed=1)
    # 1.96 * 1 / sqrt(4000) = 0.031 on either side.
    assert (found.high - found.low) / 2 == pytest.approx(0.031, rel=0.1)


def test_rows_of_one_entity_do_not_make_us_surer_than_the_entity_alone():
    values = np.random.default_rng(0).normal(size=400)
    once = intervals.mean_interval(values, np.arange(400), seed=1)
    nine_times = intervals.mean_interval(np.tile(values, 9), np.tile(np.arange(400), 9), seed=1)
    assert nine_times.high - nine_times.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_the_interval_covers_the_truth_about_as_often_as_it_promises():
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(200):
        found = intervals.mean_interval(rng.normal(size=120), np.arange(120), seed=trial, resamples=300)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_entities_beyond_the_limit_are_pooled_and_the_interval_keeps_its_width(monkeypatch):
    values, keys = np.random.default_rng(0).normal(size=6_000), np.arange(6_000)
    exact = intervals.mean_interval(values, keys, seed=1)
    monkeypatch.setattr(intervals, "MAX_GROUPS", 1_000)
    pooled = intervals.mean_interval(values, keys, seed=1)
    assert pooled.entities == 6_000
    assert pooled.high - pooled.low == pytest.approx(exact.high - exact.low, rel=0.12)


def test_a_model_against_itself_gains_exactly_nothing():
    labels, scores = np.array([0.0, 1.0, 0.0]), np.array([0.1, 0.7, 0.2])
    found = intervals.paired_gain(labels, reference=scores, candidate=scores, entities=["a", "b", "c"], seed=1)
    assert (found.low, found.estimate, found.high) == (0.0, 0.0, 0.0)


def test_the_gain_is_positive_when_the_candidate_is_better():
    labels = np.array([1.0, 0.0])
    found = intervals.paired_gain(
        labels, reference=np.array([0.5, 0.5]), candidate=np.array([0.8, 0.2]), entities=["a", "b"], seed=1
    )
    assert found.estimate == pytest.approx(np.log(0.8) - np.log(0.5))


def test_one_entity_gives_no_interval():
    with pytest.raises(NotEnoughDataError, match="at least two entities, there is 1"):
        intervals.mean_interval(np.array([1.0, 2.0]), ["a", "a"], seed=1)


def test_a_missing_value_is_refused():
    with pytest.raises(ValueError, match="finite"):
        intervals.mean_interval(np.array([1.0, np.nan]), ["a", "b"], seed=1)


def test_wilson_interval_of_eight_in_ten():
    found = intervals.wilson_interval(8, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (0.4902, 0.9433)


@pytest.mark.parametrize(("successes", "low", "high"), [(0, 0.0, 0.2775), (10, 0.7225, 1.0)])
def test_wilson_interval_at_the_ends_stays_a_proportion(successes: int, low: float, high: float):
    found = intervals.wilson_interval(successes, 10)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_no_trial_gives_no_proportion():
    with pytest.raises(NotEnoughDataError):
        intervals.wilson_interval(0, 0)


def test_a_normal_interval_by_entity_is_about_the_bootstrap_s():
    rng = np.random.default_rng(3)
    entities = rng.integers(0, 400, 2_000)
    values = rng.normal(size=400)[entities] + rng.normal(size=2_000)
    normal = intervals.clustered_interval(values, entities, level=0.95)
    bootstrap = intervals.mean_interval(values, entities, seed=1, resamples=4_000)
    assert normal.estimate == bootstrap.estimate
    assert normal.high - normal.low == pytest.approx(bootstrap.high - bootstrap.low, rel=0.1)


def test_one_entity_has_no_normal_interval():
    with pytest.raises(NotEnoughDataError, match="at least two entities, there is 1"):
        intervals.clustered_interval(np.array([0.1, 0.2]), ["a", "a"], level=0.95)


def test_the_cost_of_decisions_is_compared_row_by_row():
    costs = CostMatrix(false_positive=1, false_negative=4, unit="EUR")
    labels, candidate, reference = (np.array(x) for x in ([1.0, 0.0], [0.9, 0.1], [0.1, 0.9]))
    found = intervals.paired_cost_gain(
        labels, reference=reference, candidate=candidate, costs=costs, entities=["a", "b"], seed=1
    )
    assert found.estimate == 2.5  # the reference misses one (4) and acts once for nothing (1)


def test_the_interval_of_an_auc_is_delong_s_where_each_row_is_an_entity():
    """Three of four pairs; components (1, .5) and (.5, 1), each of variance .125: sqrt(.125 / 2 + .125 / 2)."""
    labels, scores = np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.8, 0.4, 0.6, 0.2])
    found = intervals.auc_interval(labels, scores, ["a", "b", "c", "d"], level=0.95)
    assert (found.estimate, found.high) == (0.75, 1.0)
    assert found.low == pytest.approx(0.75 - 1.959964 * 0.353553, abs=1e-6)


def test_rows_that_are_asked_about_nine_times_do_not_make_an_auc_surer():
    rng = np.random.default_rng(4)
    labels, scores, keys = (rng.random(300) < 0.3).astype(float), rng.random(300), np.arange(300)
    once = intervals.auc_interval(labels, scores, keys, level=0.95)
    many = intervals.auc_interval(np.tile(labels, 9), np.tile(scores, 9), np.tile(keys, 9), level=0.95)
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=1e-9)


def test_the_interval_of_an_auc_covers_the_truth_about_as_often_as_it_promises():
    """Scores N(1, 1) against N(0, 1): the true AUC is the normal distribution at 1 / sqrt 2, .7602."""
    rng, hits = np.random.default_rng(6), 0
    labels = np.repeat([1.0, 0.0], [60, 140])
    for _ in range(300):
        found = intervals.auc_interval(labels, rng.normal(labels, 1), np.arange(200), level=0.95)
        hits += found.low <= 0.76025 <= found.high
    assert 0.91 <= hits / 300 <= 0.99


def test_an_auc_of_one_positive_entity_has_no_interval():
    with pytest.raises(NotEnoughDataError, match="two entities of either label"):
        intervals.auc_interval(np.array([1.0, 0.0, 0.0]), np.array([0.9, 0.2, 0.1]), ["a", "b", "c"], level=0.95)
