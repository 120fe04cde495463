"""Which of two rankers is preferred: the draft, the credit, and the test."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from boucle.contracts.trials import Outcome, Preference, Preferences, Team
from boucle.contracts.verdict import Verdict
from boucle.policy.interleaving import (
    InterleavingPolicy,
    decided_requests_needed,
    first_team,
    first_teams,
    interleaving_gates,
    interleaving_outcome,
    preference,
    team_draft,
)

A, B = Team.A, Team.B
POLICY = InterleavingPolicy()
rankings = st.integers(0, 12).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n))))
firsts = st.one_of(st.sampled_from(Team), st.lists(st.sampled_from(Team), min_size=1, max_size=8))


def test_a_draft_is_worked_out_by_hand():
    """Round 1: A picks 1, B its best, 2. Round 2: B first, 4 (1 and 2 are gone); A then 3."""
    assert team_draft([A, B], [1, 2, 3, 4], [2, 1, 4, 3]) == [(1, A), (2, B), (4, B), (3, A)]
    assert team_draft(B, [1, 2, 3, 4], [2, 1, 4, 3]) == [(2, B), (1, A), (4, B), (3, A)]


def test_what_both_rank_alike_from_the_top_is_nobodys_and_the_draft_begins_after_it():
    assert team_draft(B, [1, 2, 3, 4, 5], [1, 2, 4, 3, 5]) == [(1, None), (2, None), (4, B), (3, A), (5, B)]
    assert team_draft(A, [1, 2], [1, 2]) == [(1, None), (2, None)]


@given(rankings, firsts)
def test_every_item_is_in_the_list_once(both: tuple[list[int], list[int]], first: Team | list[Team]):
    drafted = team_draft(first, *both)
    assert sorted(item for item, _ in drafted) == sorted(both[0])


@given(rankings, firsts)
def test_after_every_pick_the_teams_are_at_most_one_apart_and_after_every_round_equal(
    both: tuple[list[int], list[int]], first: Team | list[Team]
):
    teams = [team for _, team in team_draft(first, *both) if team]
    for picks in range(len(teams) + 1):
        credit = Counter(teams[:picks])
        assert abs(credit[A] - credit[B]) == picks % 2


@given(rankings, firsts)
def test_each_pick_is_the_best_that_its_ranker_had_left(both: tuple[list[int], list[int]], first: Team | list[Team]):
    left = {A: list(both[0]), B: list(both[1])}
    for item, team in team_draft(first, *both):
        assert item == left[team or A][0]
        assert team or item == left[B][0]
        left = {of: [one for one in items if one != item] for of, items in left.items()}


@given(rankings, st.integers(0, 15))
def test_a_shorter_list_is_the_beginning_of_the_whole(both: tuple[list[int], list[int]], length: int):
    assert team_draft(A, *both, length) == team_draft(A, *both)[:length]


def test_a_ranker_with_fewer_items_leaves_the_rest_to_the_other():
    assert team_draft(A, ["x"], ["y", "x", "z"]) == [("x", A), ("y", B), ("z", B)]
    assert team_draft(A, ["x"], ["x", "y"]) == [("x", None), ("y", B)]
    assert team_draft(A, [], ["y"]) == [("y", B)]


def test_an_item_that_is_ranked_twice_is_refused():
    with pytest.raises(ValueError, match=r"holds each item once; repeated: \['x'\]"):
        team_draft(A, ["x", "x"], ["x"])


def test_clicks_that_do_not_care_give_no_preference_over_all_draws_whatever_the_rankings():
    """All draws of two rounds, each pattern of clicks by place: A and B win alike often."""
    for ranking_a, ranking_b in product([(1, 2, 3, 4), (2, 1, 3, 4), (4, 3, 2, 1)], repeat=2):
        for clicks in product([False, True], repeat=4):
            won: Counter[Preference] = Counter()
            for first in product(Team, repeat=2):
                drafted = team_draft(first, ranking_a, ranking_b)
                clicked = [item for (item, _), hit in zip(drafted, clicks, strict=True) if hit]
                won[preference(drafted, clicked)] += 1
            assert won[Preference.A] == won[Preference.B]


def test_equal_rankings_give_no_preference_at_all():
    for clicked in ([], [1], [1, 2, 3]):
        assert preference(team_draft(A, [1, 2, 3], [1, 2, 3]), clicked) is Preference.TIE


def test_the_draw_is_fair_over_requests_and_rounds_and_the_same_for_whoever_asks():
    drawn = np.array([[team is A for team in first_teams("rollout", str(request))] for request in range(4_000)])
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 4 * 0.5 / 4_000**0.5
    assert abs((drawn[:, 0] == drawn[:, 1]).mean() - 0.5) < 4 * 0.5 / 4_000**0.5
    assert first_teams("rollout", "7") == first_teams("rollout", "7")
    assert first_team("rollout", "7") is first_teams("rollout", "7")[0]
    assert first_teams("rollout", "7") != first_teams("another", "7")


@pytest.mark.parametrize(
    ("clicked", "wins"),
    [
        ([], Preference.TIE),
        ([1], Preference.A),
        ([2], Preference.B),
        ([1, 2], Preference.TIE),
        ([1, 2, 4], Preference.B),
        ([1, 1, 1, 2], Preference.TIE),
    ],
)
def test_the_team_with_more_clicked_items_wins_the_request(clicked: list[int], wins: Preference):
    assert preference([(1, A), (2, B), (4, B), (3, A)], clicked) is wins


def test_a_click_on_an_item_that_was_not_shown_is_refused():
    with pytest.raises(ValueError, match=r"not in the list of this request: \[9\]"):
        preference([(1, A), (2, B)], [1, 9])


def result(challenger: int, production: int, *, ties: int = 0, days: float = 7):
    counts = Preferences(challenger=challenger, production=production, ties=ties)
    return interleaving_outcome(POLICY, interleaving_gates(POLICY, counts), days=days)


def test_a_ranker_that_is_preferred_wins_and_one_that_is_not_loses():
    assert result(700, 300).outcome is Outcome.WON
    assert result(700, 300).asks_for_promotion
    assert result(300, 700).outcome is Outcome.LOST
    assert result(20_000, 20_000).outcome is Outcome.NO_DIFFERENCE
    assert result(510, 490).outcome is Outcome.CONTINUE


def test_ties_say_nothing():
    many, none = result(560, 440, ties=100_000), result(560, 440)
    assert many.outcome is none.outcome
    assert (many.gates[0].low, many.gates[0].sample_size) == (none.gates[0].low, 1_000)


def test_without_preferences_nothing_is_known_and_at_the_end_the_trial_is_void():
    found = result(0, 0, ties=5_000)
    assert found.outcome is Outcome.CONTINUE
    assert (found.gates[0].verdict, found.gates[0].measured) == (Verdict.INCONCLUSIVE, None)
    assert result(99, 0).outcome is Outcome.CONTINUE
    assert result(100, 0).outcome is Outcome.WON
    assert result(0, 0, ties=5_000, days=28).outcome is Outcome.INVALID
    assert result(510, 490, days=28).outcome is Outcome.NO_DIFFERENCE


def test_with_the_requests_asked_for_the_least_preference_wins_as_often_as_declared():
    n = decided_requests_needed(POLICY)
    wins = np.random.default_rng(6).binomial(n, 0.5 + POLICY.min_preference, 500)
    won = [result(int(hits), n - int(hits)).outcome is Outcome.WON for hits in wins]
    assert np.mean(won) == pytest.approx(POLICY.power, abs=0.04)


def test_equal_rankers_are_told_apart_no_more_often_than_declared_however_often_one_looks():
    times, looks, step = 300, 25, 80
    hits = np.random.default_rng(9).binomial(step, 0.5, (times, looks)).cumsum(axis=1)
    wrong = 0
    for walk in hits:
        seen = [(int(won), step * (look + 1) - int(won)) for look, won in enumerate(walk)]
        said = {result(*counts).outcome for counts in seen}
        wrong += bool(said & {Outcome.WON, Outcome.LOST})
    assert wrong / times <= POLICY.alpha + 2 * (POLICY.alpha / times) ** 0.5


@pytest.mark.parametrize("values", [{"min_preference": 0.5}, {"alpha": 0}, {"clicks": 1}])
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, object]):
    with pytest.raises(ValidationError):
        InterleavingPolicy.model_validate(values)
