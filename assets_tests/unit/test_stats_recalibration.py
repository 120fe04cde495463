"""What scores lose for want of calibration."""

import numpy as np
import pytest

from boucle.errors import NotEnoughDataError
from boucle.stats.metrics import Vector
from boucle.stats.recalibration import recalibrated, recalibration_gain

ROWS = 200
ENTITIES = np.arange(ROWS)


def half_each(low: float, high: float) -> Vector:
    return np.repeat([low, high], ROWS // 2)


def outcomes(low_positives: int, high_positives: int) -> Vector:
    """0 and 1 for 100 rows with the low score, then for 100 with the high one."""
    return np.concatenate([np.arange(100) < low_positives, np.arange(100) < high_positives]).astype(np.float64)


def test_two_groups_are_put_at_their_rates():
    fixed = recalibrated(outcomes(20, 50), half_each(0.1, 0.5))
    assert fixed[[0, -1]] == pytest.approx([0.2, 0.5], abs=1e-6)


def test_the_gain_is_the_distance_to_the_rates_less_what_two_parameters_flatter():
    found = recalibration_gain(outcomes(20, 50), half_each(0.1, 0.5), ENTITIES)
    by_hand = 0.5 * (0.2 * np.log(0.2 / 0.1) + 0.8 * np.log(0.8 / 0.9))
    assert found.estimate == pytest.approx(by_hand - 2 / ROWS, abs=1e-6)
    assert found.low < found.estimate < found.high
    assert found.sample_size == ROWS


def test_calibrated_scores_have_nothing_to_gain():
    assert recalibration_gain(outcomes(10, 50), half_each(0.1, 0.5), ENTITIES).estimate == pytest.approx(-2 / ROWS)


def test_scores_that_are_all_equal_are_put_at_the_rate():
    assert recalibrated(outcomes(60, 40), half_each(0.2, 0.2)).tolist() == [0.5] * ROWS


def test_scores_that_are_certain_and_perfect_end_as_such():
    fixed = recalibrated(outcomes(0, 100), half_each(0.0, 1.0))
    assert fixed[0] < 1e-6
    assert fixed[-1] > 1 - 1e-6


def test_without_both_outcomes_there_is_no_answer():
    with pytest.raises(NotEnoughDataError, match="200 labels are all equal"):
        recalibration_gain(np.ones(ROWS), half_each(0.1, 0.5), ENTITIES)
