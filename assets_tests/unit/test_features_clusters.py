"""Rows of one entity are worth less than rows of different ones, and drift is not cried because callers ask again."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.features.clusters import design_effect, heard
from boucle.features.profiles import merge_columns, profile_like, profile_reference
from boucle.stats.distance import kolmogorov_smirnov
from boucle.stats.drift import chi_square, psi, psi_null_mean

LEVEL = 0.99


def asked(n: int, times: int, seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Values and entities of n rows of a normal feature, each entity asked about so many times."""
    entities = np.tile(np.arange(n // times), times)
    return np.random.default_rng(seed).normal(size=n // times)[entities], entities


REFERENCE = profile_reference(asked(10_000, 1, seed=1)[0], 30)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(1, 8))
def test_equal_rows_are_worth_one(bins: list[int], times: int):
    """Whatever the bins, so many equal rows of each entity are worth exactly one of them."""
    once = np.array(bins)
    found = design_effect(np.tile(once, times), np.tile(np.arange(len(bins)), times))
    assert found == pytest.approx(times) or (len(bins) == 1 and found == times)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=80))
def test_it_is_at_least_one_and_at_most_as_if_all_rows_of_an_entity_were_alike(rows: list[tuple[int, int]]):
    bins = np.array([bin_of for bin_of, _ in rows])
    _, entities = np.unique([entity for _, entity in rows], return_inverse=True)
    sizes = np.bincount(entities)
    assert 1 <= design_effect(bins, entities) <= max(1.0, float(np.sum(sizes**2)) / len(rows)) + 1e-9


def test_rows_of_few_entities_that_differ_as_much_as_any_keep_their_worth():
    """Three airports with a thousand flights each are a thousand flights, not three."""
    bins = np.random.default_rng(5).integers(0, 10, size=3_000)
    assert design_effect(bins, np.arange(3_000) % 3) < 3


def test_one_entity_that_asks_for_half_of_all_rows_is_one():
    entities = np.concatenate([np.zeros(1_000, dtype=np.intp), np.arange(1, 1_001)])
    bins = np.concatenate([np.zeros(1_000, dtype=np.intp), np.random.default_rng(5).integers(0, 30, size=1_000)])
    assert design_effect(bins, entities) > 400


def numbered(sizes: list[int]) -> np.ndarray:
    """So many rows of each entity, in turns."""
    return np.random.default_rng(7).permutation(np.repeat(np.arange(len(sizes)), sizes))


def test_of_an_entity_beyond_its_share_evenly_spaced_rows_count_and_of_the_others_all():
    """1,000 ask once and one 500 times: it may have M rows, M = 1 % of 1,000 + M, so 10, every fiftieth."""
    entities = np.array([*range(1_000), *[1_000] * 500])
    assert heard(entities).tolist() == [*range(1_000), *range(1_049, 1_500, 50)]


@pytest.mark.parametrize("sizes", [[5] * 400, [1_000, 900, 10], [1], [3, 1, 1, 1]])
def test_where_nobody_is_beyond_its_share_every_row_counts(sizes: list[int]):
    assert heard(numbered(sizes)) is None


@given(st.lists(st.integers(1, 400), min_size=1, max_size=80), st.lists(st.integers(1_000, 9_000), max_size=3))
def test_every_entity_is_heard_and_none_blinds_the_rest(sizes: list[int], chatty: list[int]):
    entities = numbered([*sizes, *chatty])
    places = heard(entities)
    kept = entities if places is None else entities[places]
    left = np.bincount(kept, minlength=len(sizes) + len(chatty))
    assert left.min() >= 1
    assert len(kept) / (np.sum(left**2) / len(kept)) >= len(left) / 10 - 1e-9
    assert heard(kept) is None, "once is enough"


def test_callers_who_ask_much_more_than_others_are_no_drift_however_long_the_window_is():
    """Of 2,000 entities one asks for 13 % of all rows, the second for 7 %, ...: in a day and in the reference."""
    rng = np.random.default_rng(11)
    share = 1 / np.arange(1, 2_001)
    value = rng.normal(size=2_000)

    def window(n: int) -> tuple[np.ndarray, np.ndarray]:
        asked_about = rng.choice(2_000, size=n, p=share / share.sum())
        return value[asked_about] + 0.3 * rng.normal(size=n), np.unique(asked_about, return_inverse=True)[1]

    values, entities = window(40_000)
    reference = profile_reference(values, 30, entities=entities)
    windows = [profile_like(values, reference, entities=entities) for values, entities in map(window, [2_000] * 20)]
    assert min(chi_square(reference, one, level=LEVEL).p_value for one in windows) > 0.01
    assert max(psi(reference, one) - psi_null_mean(reference, one) for one in windows) < 0.1


def test_callers_who_ask_again_are_no_drift():
    values, entities = asked(2_000, 10)
    blind, current = profile_like(values, REFERENCE), profile_like(values, REFERENCE, entities=entities)
    assert current.design_effect == pytest.approx(10)
    assert chi_square(REFERENCE, blind, level=LEVEL).p_value < 1e-9  # what it would be taken for
    assert chi_square(REFERENCE, current, level=LEVEL).p_value > 0.01
    assert kolmogorov_smirnov(REFERENCE, blind, level=LEVEL).p_value < 0.01
    assert kolmogorov_smirnov(REFERENCE, current, level=LEVEL).p_value > 0.01
    assert psi(REFERENCE, current) < 2 * psi_null_mean(REFERENCE, current)


def test_a_shift_is_still_seen_when_callers_ask_again():
    values, entities = asked(10_000, 5)
    assert chi_square(REFERENCE, profile_like(values + 0.5, REFERENCE, entities=entities), level=LEVEL).p_value < 1e-9


def test_periods_together_are_worth_the_mean_of_each_by_rows():
    alone = profile_like(asked(1_000, 1)[0], REFERENCE)
    again = [profile_like(*found[:1], REFERENCE, entities=found[1]) for found in (asked(3_000, 5), asked(0, 1))]
    assert merge_columns(alone, again[0]).design_effect == pytest.approx((1_000 + 3_000 * 5) / 4_000)
    assert merge_columns(again[0], again[1]).design_effect == pytest.approx(5)
    assert merge_columns(again[1], again[1]).design_effect == 1


def test_missing_and_other_values_are_bins_of_their_own():
    """A feature that is missing for an entity is missing each time it is asked."""
    known = profile_reference([0.0, 1.0, 2.0] * 100, 10, (0.0, 1.0, 2.0))
    entities = np.tile(np.arange(100), 4)
    values = np.tile(np.array([np.nan, 7.0, 0.0, 1.0] * 25), 4)
    assert profile_like(values, known, entities=entities).design_effect == pytest.approx(4)
