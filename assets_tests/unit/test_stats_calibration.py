"""What became known of scores: sums that merge, and intervals over whole entities."""

import numpy as np
import pytest

from boucle.errors import NotEnoughDataError
from boucle.stats.calibration import (
    build_calibration,
    calibration_gap,
    log_loss_increase,
    mean_log_loss,
    merge_calibration,
)
from boucle.stats.intervals import clustered_interval
from boucle.stats.metrics import log_loss_rows

EDGES = (0.0, 0.25, 0.5)
RNG = np.random.default_rng(6)
SCORES = RNG.uniform(size=900)
LABELS = (RNG.uniform(size=900) < SCORES).astype(float)
ENTITIES = RNG.integers(0, 400, size=900)


def test_scores_are_counted_by_bin_with_their_labels():
    found = build_calibration(np.array([1.0, 0.0, 1.0]), np.array([0.1, 0.3, 0.9]), ["a", "b", "c"], EDGES)
    assert found.counts == (0, 1, 1, 1)
    assert found.positives == (0, 1, 0, 1)
    assert found.score_sums == (0, 0.1, 0.3, 0.9)
    assert found.loss_sums == pytest.approx((0, -np.log(0.1), -np.log(0.7), -np.log(0.9)))
    assert (found.rows, found.entities) == (3, 3)


def test_intervals_from_sums_are_those_from_rows():
    known = build_calibration(LABELS, SCORES, ENTITIES, EDGES)
    gap = clustered_interval(SCORES - LABELS, ENTITIES, level=0.9)
    loss = clustered_interval(log_loss_rows(LABELS, SCORES), ENTITIES, level=0.9)
    for found, expected in ((calibration_gap(known, level=0.9), gap), (mean_log_loss(known, level=0.9), loss)):
        assert (found.estimate, found.low) == pytest.approx((expected.estimate, expected.low))
        assert found.high == pytest.approx(expected.high)
        assert (found.sample_size, found.entities) == (900, expected.entities)


def test_merged_periods_are_the_profile_of_both_where_no_entity_is_in_both():
    order = np.argsort(ENTITIES)
    labels, scores, entities = LABELS[order], SCORES[order], ENTITIES[order]
    cut = int(np.searchsorted(entities, 200))
    halves = (np.s_[:cut], np.s_[cut:])
    parts = [build_calibration(labels[half], scores[half], entities[half], EDGES) for half in halves]
    merged, whole = merge_calibration(parts), build_calibration(labels, scores, entities, EDGES)
    assert (merged.counts, merged.positives, merged.entities) == (whole.counts, whole.positives, whole.entities)
    assert merged.loss_sums == pytest.approx(whole.loss_sums)
    assert calibration_gap(merged, level=0.9).low == pytest.approx(calibration_gap(whole, level=0.9).low)
    assert merge_calibration(parts[::-1]).gap.squares == pytest.approx(merged.gap.squares)


def test_an_increase_is_as_uncertain_as_both_sides():
    known = build_calibration(LABELS, SCORES, ENTITIES, EDGES)
    alone, found = mean_log_loss(known, level=0.9), log_loss_increase(known, known, level=0.9)
    assert found.estimate == 0
    assert found.high == pytest.approx(np.sqrt(2) * (alone.high - alone.estimate))


def test_no_outcome_is_an_error_and_not_a_gap_of_zero():
    none = build_calibration(np.empty(0), np.empty(0), [], EDGES)
    assert none.rows == none.entities == 0
    with pytest.raises(NotEnoughDataError, match="there is 0"):
        calibration_gap(none, level=0.9)


def test_profiles_on_different_score_bins_do_not_merge():
    none = build_calibration(np.empty(0), np.empty(0), [], EDGES)
    with pytest.raises(ValueError, match="same score bins"):
        merge_calibration([none, build_calibration(np.empty(0), np.empty(0), [], (0.0,))])
    with pytest.raises(ValueError, match="increase strictly"):
        build_calibration(np.empty(0), np.empty(0), [], ())
