"""Metrics, with values worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import NotEnoughDataError
from boucle.stats import metrics


def vector(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_log_loss_is_the_mean_negative_log_of_what_was_given_to_what_happened():
    rows = metrics.log_loss_rows(vector(1, 0), vector(0.25, 0.2))
    assert rows.tolist() == pytest.approx([math.log(4), -math.log(0.8)])
    assert metrics.log_loss(vector(1, 0), vector(0.25, 0.2)) == pytest.approx((math.log(4) - math.log(0.8)) / 2)


def test_a_certain_and_wrong_answer_costs_what_the_clipping_says_and_not_infinity():
    rows = metrics.log_loss_rows(vector(1, 0), vector(0, 1))
    assert rows.tolist() == pytest.approx([34.5388, 34.5388], abs=0.01)


def test_auc_counts_pairs_and_a_tie_as_half_a_pair():
    # Pairs of (positive, negative): .8 > .1, .8 > .4, .4 > .1, .4 = .4: 3.5 of 4.
    assert metrics.auc(vector(1, 1, 0, 0), vector(0.8, 0.4, 0.4, 0.1)) == pytest.approx(3.5 / 4)


def test_scores_that_are_all_equal_rank_like_chance():
    assert metrics.auc(vector(1, 0, 0), vector(0.3, 0.3, 0.3)) == 0.5


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_equals_the_share_of_pairs_ranked_right(rows: list[tuple[float, int]]):
    positive = [score for label, score in rows if label == 1]
    negative = [score for label, score in rows if label == 0]
    if not positive or not negative:
        return
    right = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative) / (len(positive) * len(negative))
    labels, scores = vector(*(label for label, _ in rows)), vector(*(score for _, score in rows))
    assert metrics.auc(labels, scores) == pytest.approx(right)


def test_auc_of_one_outcome_is_an_error_and_not_a_half():
    with pytest.raises(NotEnoughDataError, match="3 of 3 rows are positive"):
        metrics.auc(vector(1, 1, 1), vector(0.1, 0.2, 0.3))


def test_brier_is_the_mean_squared_difference():
    assert metrics.brier(vector(1, 0), vector(0.5, 0.25)) == pytest.approx((0.25 + 0.0625) / 2)


def test_calibration_error_is_positive_when_the_model_promises_too_much():
    assert metrics.calibration_error(vector(1, 0), vector(0.75, 0.5)) == pytest.approx(0.125)


def test_reliability_bins_keep_every_row_and_their_means():
    bins = metrics.reliability_curve(vector(0, 1, 0, 1), vector(0.1, 0.2, 0.6, 0.8), bins=2)
    assert [(round(b.mean_score, 6), b.positive_rate, b.count) for b in bins] == [(0.15, 0.5, 2), (0.7, 0.5, 2)]


def test_equal_scores_share_one_reliability_bin():
    bins = metrics.reliability_curve(vector(0, 1, 1), vector(0.3, 0.3, 0.3))
    assert [b.count for b in bins] == [3]


@pytest.mark.parametrize("metric", [metrics.log_loss, metrics.brier, metrics.calibration_error, metrics.auc])
def test_no_rows_is_an_error_and_not_a_number(metric):
    with pytest.raises(NotEnoughDataError, match="no labelled row"):
        metric(vector(), vector())


def test_a_missing_label_is_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        metrics.log_loss(vector(math.nan, 1), vector(0.5, 0.5))


def test_labels_without_a_score_are_refused():
    with pytest.raises(ValueError, match="2 labels and 1 scores"):
        metrics.brier(vector(0, 1), vector(0.5))
