"""Is a challenger better than production: the split, the gain with its interval, and what they say together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.rollout import Scores
from boucle.contracts.trials import AbCounts, Outcome, SideCounts, TrialResult
from boucle.contracts.verdict import Verdict
from boucle.policy.ab import AbPolicy, Better, ab_gates, ab_outcome, gain, samples_needed, scored_srm, srm

REWARD = AbPolicy(metric="reward", unit="EUR", better=Better.HIGHER, min_effect=0.1)
LOSS = AbPolicy(metric="loss", unit="nats", better=Better.LOWER, min_effect=0.1)
PASSED, FAILED, INCONCLUSIVE = Verdict.PASSED, Verdict.FAILED, Verdict.INCONCLUSIVE
NEEDED = samples_needed(REWARD, deviation=1.0)
WEEK = 7.0


def side(n: int, mean: float = 0.0, *, assigned: int | None = None, variance: float = 1.0) -> SideCounts:
    return SideCounts(assigned=n if assigned is None else assigned, scores=Scores(n=n, mean=mean, variance=variance))


def both(n: int, difference: float, **sides: SideCounts) -> AbCounts:
    """Sides of `n` entities; the challenger's mean is higher by the difference."""
    return AbCounts(**{"challenger": side(n, difference), "production": side(n), **sides})


def outcome(counts: AbCounts, *, policy: AbPolicy = REWARD, days: float = WEEK) -> TrialResult:
    return ab_outcome(policy, ab_gates(policy, counts), days=days)


def test_a_challenger_that_is_surely_better_wins_and_asks_for_promotion():
    found = outcome(both(NEEDED, 0.1))
    assert found.outcome is Outcome.WON
    assert found.is_final
    assert found.asks_for_promotion
    assert found.reason.startswith("The challenger is better; reward_gain: passed (measured 0.1 EUR [")


def test_a_challenger_that_is_surely_worse_loses_and_asks_for_nothing():
    found = outcome(both(NEEDED, -0.1))
    assert found.outcome is Outcome.LOST
    assert not found.asks_for_promotion


def test_the_declared_direction_says_what_better_means():
    assert outcome(both(NEEDED, 0.1), policy=LOSS).outcome is Outcome.LOST
    assert outcome(both(NEEDED, -0.1), policy=LOSS).outcome is Outcome.WON


def test_equal_sides_show_no_difference_once_the_minimum_effect_is_left_out():
    found = outcome(both(NEEDED, 0.0))
    assert found.outcome is Outcome.NO_DIFFERENCE
    assert "not better by the minimum effect of 0.1" in found.reason


def test_until_anything_is_sure_the_test_goes_on():
    found = outcome(both(NEEDED // 20, 0.02))
    assert found.outcome is Outcome.CONTINUE
    assert not found.is_final


@pytest.mark.parametrize(
    "counts",
    [
        AbCounts(),
        both(99, 5.0),
        AbCounts(challenger=side(5_000, 5.0), production=side(99, assigned=5_000)),
        AbCounts(challenger=side(5_000, variance=0), production=side(5_000, variance=0)),
    ],
)
def test_no_data_is_never_a_win_and_at_the_end_the_test_is_void(counts: AbCounts):
    found = gain(REWARD, counts)
    assert (found.verdict, found.measured, found.low, found.high) == (INCONCLUSIVE, None, None, None)
    assert ab_outcome(REWARD, [found], days=WEEK).outcome is Outcome.CONTINUE
    late = ab_outcome(REWARD, [found], days=28)
    assert late.outcome is Outcome.INVALID
    assert "Nothing could be measured in 28 days" in late.reason


def test_what_is_not_decided_at_the_end_leaves_production_where_it_is():
    found = outcome(both(NEEDED // 20, 0.02), days=28)
    assert found.outcome is Outcome.NO_DIFFERENCE
    assert "Not decided in 28 days, so production stays" in found.reason


def test_a_win_waits_for_the_least_time_a_loss_does_not():
    assert outcome(both(NEEDED, 0.1), days=0.99).outcome is Outcome.CONTINUE
    assert outcome(both(NEEDED, 0.0), days=0.99).outcome is Outcome.CONTINUE
    assert outcome(both(NEEDED, 0.1), days=1).outcome is Outcome.WON
    assert outcome(both(NEEDED, -0.1), days=0.01).outcome is Outcome.LOST


def test_a_wrong_split_voids_what_would_be_a_win():
    """47 per cent of 20,000 instead of 50: eight standard deviations."""
    counts = AbCounts(challenger=side(9_400, 0.3), production=side(10_600))
    found = outcome(counts)
    assert found.outcome is Outcome.INVALID
    assert "The challenger has 47.00% of 20000 entities, by the plan 50.00%." in found.reason


def test_a_side_that_loses_outcomes_voids_the_test_though_entities_were_split_rightly():
    counts = AbCounts(challenger=side(9_400, 0.3, assigned=12_000), production=side(10_600, assigned=12_000))
    assert srm(REWARD, counts).verdict is PASSED
    assert scored_srm(REWARD, counts).verdict is FAILED
    assert outcome(counts).outcome is Outcome.INVALID


def test_the_split_is_judged_against_the_weights_of_the_plan():
    tenth = REWARD.model_copy(update={"weight": 10.0})
    counts = AbCounts(challenger=side(1_000), production=side(9_000))
    assert srm(tenth, counts).verdict is PASSED
    assert srm(REWARD, counts).verdict is FAILED


def test_a_split_of_too_few_is_not_known():
    found = srm(REWARD, AbCounts(challenger=side(199)))
    assert found.verdict is INCONCLUSIVE
    assert found.measured is None
    assert srm(REWARD, AbCounts(challenger=side(200))).verdict is FAILED


def test_the_entities_asked_for_are_worked_out_by_hand():
    """alpha 0.05: k = 2 ln 20 + ln(1 + 2 ln 20) = 7.937; boundary sqrt((1 + 1/k) ln((1 + k) / 0.0025)) = 3.0353;
    plus 1.2816 for a power of 0.9, over 0.1, squared: 1,863.6; times 2^2 over 0.5 * 0.5."""
    assert samples_needed(REWARD, deviation=2.0) == pytest.approx(29_817, abs=10)
    assert samples_needed(REWARD, deviation=2.0, challenger_deviation=4.0) == pytest.approx(29_817 * 2.5, abs=25)
    quarter = REWARD.model_copy(update={"weight": 25.0})
    assert samples_needed(quarter, deviation=2.0) == pytest.approx(29_817 * 0.25 / 0.1875, abs=15)
    assert samples_needed(quarter, deviation=2.0, challenger_deviation=4.0) == pytest.approx(
        1_863.6 * (16 / 0.25 + 4 / 0.75), abs=50
    )


def test_with_the_entities_asked_for_the_minimum_effect_wins_and_none_ends_as_often_as_declared():
    rng, half = np.random.default_rng(2), NEEDED // 2
    noise = rng.normal(0, (2 / half) ** 0.5, 400)
    won = [outcome(both(half, 0.1 + error)).outcome is Outcome.WON for error in noise]
    ended = [outcome(both(half, error)).outcome is not Outcome.CONTINUE for error in noise]
    assert np.mean(won) == pytest.approx(REWARD.power, abs=0.05)
    assert np.mean(ended) >= REWARD.power - 0.05


def test_equal_sides_are_told_apart_no_more_often_than_declared_however_often_one_looks():
    rng, times, looks, n = np.random.default_rng(4), 300, 40, 200
    wrong = 0
    for _ in range(times):
        one, other = rng.normal(0, n**0.5, (2, looks)).cumsum(axis=1)
        seen = np.arange(1, looks + 1) * n
        wrong += any(
            gain(REWARD, both(int(m), float((a - b) / m))).verdict is not INCONCLUSIVE
            for a, b, m in zip(one, other, seen, strict=True)
        )
    assert wrong / times <= REWARD.alpha + 2 * (REWARD.alpha / times) ** 0.5


@given(st.integers(100, 10**6), st.integers(100, 10**6), st.floats(-1, 1), st.floats(0, 40))
def test_a_win_is_always_an_interval_above_nothing_with_both_splits_passed(m: int, n: int, gap: float, days: float):
    found = outcome(AbCounts(challenger=side(m, gap), production=side(n)), days=days)
    split, scored, what = found.gates
    if found.outcome is Outcome.WON:
        assert split.verdict is scored.verdict is PASSED
        assert what.low is not None
        assert what.low > 0
        assert days >= REWARD.min_days
    assert found.outcome is not Outcome.CONTINUE or days < REWARD.max_days


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"min_effect": 0}, "greater than 0"),
        ({"weight": 100}, "less than 100"),
        ({"better": "more"}, "'lower' or 'higher'"),
        ({"min_days": 28, "max_days": 28}, "must be below max_days"),
        ({"peeking": False}, "Extra inputs"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, object], says: str):
    with pytest.raises(ValidationError, match=says):
        AbPolicy.model_validate(REWARD.model_dump() | values)


def test_more_scores_than_entities_are_refused():
    with pytest.raises(ValidationError, match="5 entities have a score, but only 4 were assigned"):
        side(5, assigned=4)
