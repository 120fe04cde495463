"""Intervals that hold at every look."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.stats.sequential import (
    Difference,
    Sample,
    difference,
    information_needed,
    interval,
    mean_of,
    pooled,
    share,
)

ALPHA, LOOKS, WALKS = 0.05, 2_000, 1_000
differences = st.builds(
    Difference, estimate=st.floats(-1e3, 1e3), standard_error=st.floats(1e-3, 1e3, exclude_min=True)
)


def walks(*, drift: float = 0.0) -> np.ndarray:
    """Means of each walk after 1, 2, … normal values of variance 1, shape [walks, looks]."""
    steps = np.random.default_rng(7).normal(drift, 1, (WALKS, LOOKS))
    return steps.cumsum(axis=1) / np.arange(1, LOOKS + 1)


def ends(n: int) -> float:
    """Half the width of the interval after n values of variance 1."""
    low, high = interval(Difference(estimate=0, standard_error=n**-0.5), alpha=ALPHA, planned_information=LOOKS / 4)
    assert low == -high
    return high


def test_at_every_look_together_the_truth_is_left_out_no_more_often_than_declared():
    radius = np.array([ends(n) for n in range(1, LOOKS + 1)])
    left = (np.abs(walks()) > radius).any(axis=1).mean()
    assert left <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / WALKS)
    fixed = 1.96 / np.sqrt(np.arange(1, LOOKS + 1))
    assert (np.abs(walks()) > fixed).any(axis=1).mean() > 5 * ALPHA  # what looking at an ordinary interval does


def test_with_the_information_asked_for_a_value_beside_the_truth_is_left_out_as_often_as_planned():
    distance, power = 0.2, 0.9
    needed = math.ceil(information_needed(distance, alpha=ALPHA, power=power))
    assert needed < LOOKS
    found = walks(drift=distance)[:, needed - 1]
    lows = [
        interval(Difference(estimate=mean, standard_error=needed**-0.5), alpha=ALPHA, planned_information=needed)[0]
        for mean in found
    ]
    left = (np.array(lows) > 0).mean()
    assert left == pytest.approx(power, abs=3 * math.sqrt(power * (1 - power) / WALKS))


@given(st.floats(1, 1e6), st.floats(1.001, 100), st.floats(1e-4, 0.2))
def test_more_information_never_widens_the_interval(v: float, more: float, alpha: float):
    def width(information: float) -> float:
        low, high = interval(
            Difference(estimate=1.0, standard_error=information**-0.5), alpha=alpha, planned_information=1_000
        )
        return high - low

    assert width(v * more) < width(v)


@given(st.floats(1e-4, 0.2), st.floats(0.01, 0.99))
def test_the_smaller_the_error_allowed_the_wider_the_interval(alpha: float, less: float):
    one = Difference(estimate=0.0, standard_error=0.1)
    assert (
        interval(one, alpha=alpha * less, planned_information=100)[1]
        > interval(one, alpha=alpha, planned_information=100)[1]
    )


def test_at_the_planned_information_no_other_plan_gives_a_narrower_interval():
    found = Difference(estimate=0.0, standard_error=0.1)  # information 100
    widths = {plan: interval(found, alpha=ALPHA, planned_information=plan)[1] for plan in (25, 50, 100, 200, 400)}
    assert min(widths, key=widths.__getitem__) == 100


@given(st.lists(differences, min_size=1, max_size=6))
def test_parts_make_a_whole_of_the_size_of_all_between_the_smallest_and_the_largest(parts: list[Difference]):
    whole = pooled(parts)
    assert whole is not None
    assert whole.size == pytest.approx(sum(part.size for part in parts))
    low, high = min(part.estimate for part in parts), max(part.estimate for part in parts)
    assert low - 1e-6 <= whole.estimate <= high + 1e-6


def test_parts_of_equal_spread_add_up_their_information():
    parts = [Difference(estimate=0.1, standard_error=n**-0.5, size=n) for n in (100, 300)]
    whole = pooled(parts)
    assert whole is not None
    assert whole.information == pytest.approx(400)


def test_a_long_time_without_a_failure_does_not_hide_that_everything_fails_now():
    quiet = difference(share(0, 10_000), share(0, 10_000))
    broken = difference(share(200, 200), share(0, 4_000))
    assert quiet is not None
    assert broken is not None
    whole = pooled([quiet, broken])
    assert whole is not None
    # Sizes 5,000 and 190.5: by information the quiet part alone would count.
    assert whole.estimate == pytest.approx(190.5 / 5_190.5, rel=0.01)


@given(st.lists(differences, min_size=2, max_size=6), st.data())
def test_it_does_not_matter_how_parts_are_put_together(parts: list[Difference], data: st.DataObject):
    cut = data.draw(st.integers(1, len(parts) - 1))
    halves = [half for half in (pooled(parts[:cut]), pooled(parts[cut:])) if half is not None]
    together, at_once = pooled(halves), pooled(parts)
    assert together is not None
    assert at_once is not None
    assert together.estimate == pytest.approx(at_once.estimate, rel=1e-9, abs=1e-9)
    assert together.standard_error == pytest.approx(at_once.standard_error, rel=1e-9)


def test_of_nothing_nothing_is_known():
    one, several = Sample(n=1, mean=1.0, variance=0.0), Sample(n=5, mean=1.0, variance=0.5)
    assert pooled([]) is None
    assert difference(one, several) is None
    assert difference(several, one) is None
    assert mean_of(one) is None
    assert mean_of(Sample(n=5, mean=1.0, variance=0.0)) is None


def test_a_share_without_a_hit_is_not_known_to_be_zero():
    found = difference(share(0, 50), share(0, 50))
    assert found is not None
    assert found.estimate == 0
    assert found.standard_error > 0.02


def test_the_difference_of_two_samples_is_that_of_a_textbook():
    found = difference(Sample(n=100, mean=3.0, variance=4.0), Sample(n=400, mean=2.0, variance=9.0))
    assert found is not None
    assert found.estimate == 1.0
    assert found.standard_error == pytest.approx(math.sqrt(4 / 100 + 9 / 400))


def test_a_negative_variance_is_refused():
    with pytest.raises(ValueError, match="cannot be negative"):
        difference(Sample(n=2, mean=0, variance=-1), Sample(n=2, mean=0, variance=0))
