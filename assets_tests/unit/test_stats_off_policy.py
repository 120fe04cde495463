"""What another policy would have earned, from the log of the one that decided."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.stats.off_policy import every_arm, ips, snips

TARGET = np.array([1.0, 1.0, 0.0, 0.0])
PROPENSITY = np.array([0.5, 0.25, 0.5, 0.75])
REWARD = np.array([1.0, 0.0, 1.0, 1.0])
decisions = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0.01, 1), st.floats(-5, 5, allow_subnormal=False)), min_size=1, max_size=30
)


def test_both_estimates_are_worked_out_by_hand():
    """Weights 2, 4, 0, 0: IPS 2 / 4; SNIPS 2 / 6; effective size 36 / 20."""
    by_ips, by_snips = ips(TARGET, PROPENSITY, REWARD), snips(TARGET, PROPENSITY, REWARD)
    assert by_ips is not None
    assert by_snips is not None
    assert by_ips.estimate == pytest.approx(0.5)
    assert by_snips.estimate == pytest.approx(1 / 3)
    assert (by_ips.n, by_ips.matched, by_ips.effective_n) == (4, 2, pytest.approx(1.8))


def test_both_errors_are_worked_out_by_hand():
    """IPS: terms 2, 0, 0, 0 around 0.5, squares 2.25 + 3 * 0.25 = 3, root over 4. SNIPS: parts 2 * (2/3) and 4 * (-1/3)
    over 6, squares 2 * (16/9) / 36."""
    by_ips, by_snips = ips(TARGET, PROPENSITY, REWARD), snips(TARGET, PROPENSITY, REWARD)
    assert by_ips is not None
    assert by_snips is not None
    assert by_ips.standard_error == pytest.approx(3**0.5 / 4)
    assert by_snips.standard_error == pytest.approx((32 / 9 / 36) ** 0.5)
    assert by_ips.low == pytest.approx(0.5 - 1.959964 * 3**0.5 / 4)
    assert by_ips.high == pytest.approx(0.5 + 1.959964 * 3**0.5 / 4)


def test_where_the_target_is_what_decided_both_are_the_mean_reward():
    rewards = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    for estimator in (ips, snips):
        found = estimator(np.full(5, 0.3), np.full(5, 0.3), rewards)
        assert found is not None
        assert found.estimate == pytest.approx(0.6)
        assert found.effective_n == pytest.approx(5)


def test_without_a_decision_that_the_target_would_take_nothing_is_known():
    empty = np.array([])
    for estimator in (ips, snips):
        assert estimator(np.zeros(4), PROPENSITY, REWARD) is None
        assert estimator(empty, empty, empty) is None
    assert every_arm([7], np.array([1, 2]), np.array([0.5, 0.5]), np.array([1.0, 1.0])) == {7: None}


def test_where_nothing_varies_there_is_no_interval():
    """An arm whose few rewards are all zero is not surely worth zero."""
    found = every_arm([1], np.array([1, 2, 1]), np.full(3, 0.5), np.array([0.0, 1.0, 0.0]))[1]
    assert found is not None
    assert (found.ips.low, found.ips.high) == (None, None)
    assert (found.snips.low, found.snips.high) == (None, None)


@given(decisions)
def test_the_self_normalised_estimate_is_never_outside_the_rewards_that_were_seen(
    log: list[tuple[float, float, float]],
):
    target, propensity, reward = (np.array(column) for column in zip(*log, strict=True))
    found = snips(target, propensity, reward)
    if found is None:
        assert not target.any()
    else:
        seen = reward[target > 0]
        assert seen.min() - 1e-9 <= found.estimate <= seen.max() + 1e-9
        assert 0 < found.effective_n <= found.matched + 1e-9


@given(decisions, st.integers(1, 5))
def test_repeating_every_decision_of_an_entity_tells_nothing_new(log: list[tuple[float, float, float]], times: int):
    once = [np.array(column) for column in zip(*log, strict=True)]
    again = [np.repeat(column, times) for column in once]
    for estimator in (ips, snips):
        one = estimator(*once, entities=np.arange(len(log)))
        more = estimator(*again, entities=np.repeat(np.arange(len(log)), times))
        assert (one is None) == (more is None)
        if one is not None and more is not None:
            assert more.standard_error == pytest.approx(one.standard_error, abs=1e-9)


@pytest.mark.parametrize("wrong", [0.0, -0.1, 1.01, float("nan")])
def test_a_decision_that_could_not_be_taken_is_refused(wrong: float):
    with pytest.raises(ValueError, match=r"cannot have a propensity of .*must be in \(0, 1\]"):
        ips(TARGET, np.array([0.5, wrong, 0.5, 0.5]), REWARD)


def test_unknown_rewards_are_refused_not_taken_for_zero():
    with pytest.raises(ValueError, match="leave unknown rewards out"):
        snips(TARGET, PROPENSITY, np.array([1.0, np.nan, 1.0, 1.0]))


def test_columns_of_different_length_are_refused():
    with pytest.raises(ValueError, match="4 decisions, 3 propensities and 4 rewards"):
        ips(TARGET, PROPENSITY[:3], REWARD)


def adaptive_log(rng: np.random.Generator, means: np.ndarray, n: int) -> tuple[np.ndarray, ...]:
    """Decisions in ten batches; the arm that has the better mean so far gets 90 per cent of the next one."""
    taken, propensity, reward = [], [], []
    first = 0.5
    for _ in range(10):
        arm = (rng.random(n // 10) >= first).astype(np.int64)
        taken.append(arm)
        propensity.append(np.where(arm == 0, first, 1 - first))
        reward.append((rng.random(n // 10) < means[arm]).astype(np.float64))
        so_far, earned = np.concatenate(taken), np.concatenate(reward)
        first = 0.9 if earned[so_far == 0].mean() >= earned[so_far == 1].mean() else 0.1
    return np.concatenate(taken), np.concatenate(propensity), np.concatenate(reward)


def test_intervals_cover_the_truth_at_their_level_though_propensities_follow_rewards():
    rng, means, times = np.random.default_rng(8), np.array([0.3, 0.35]), 400
    inside = np.zeros((2, 2))
    for _ in range(times):
        for arm, found in every_arm([0, 1], *adaptive_log(rng, means, 2_000)).items():
            assert found is not None
            for place, one in enumerate((found.ips, found.snips)):
                assert one.low is not None
                assert one.high is not None
                inside[place, arm] += one.low <= means[arm] <= one.high
    assert inside.min() / times >= 0.95 - 3 * (0.95 * 0.05 / times) ** 0.5
    assert inside.max() / times <= 0.95 + 3 * (0.95 * 0.05 / times) ** 0.5
