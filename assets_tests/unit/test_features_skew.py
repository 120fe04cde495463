"""A served value that is not the kept one is found, wherever it is; nothing else is."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.features.skew import differing_values

NAMES = ("recency", "mean_gap")
NOON = pd.Timestamp("1997-05-01")
value = st.one_of(st.none(), st.floats(allow_nan=False, width=32))
rows_of_values = st.lists(st.tuples(value, value), min_size=1, max_size=20)


def rows(values: list[tuple[float | None, ...]], entities: list[str] | None = None) -> pd.DataFrame:
    """One row per entity, all of the same moment."""
    names = entities or [str(number) for number in range(len(values))]
    frame = pd.DataFrame(np.array(values, dtype=np.float64), columns=list(NAMES))
    return frame.assign(entity_key=names, features_as_of=NOON)


@given(rows_of_values)
def test_equal_rows_do_not_differ_missing_values_included(values):
    assert not differing_values(rows(values), rows(values).iloc[::-1], NAMES).to_numpy().any()


@given(rows_of_values, st.data())
def test_one_changed_value_is_the_only_one_that_differs(values, data):
    served = rows(values)
    row = data.draw(st.integers(0, len(values) - 1))
    name = data.draw(st.sampled_from(NAMES))
    kept = served.copy()
    kept.loc[row, name] = 0.5 if pd.isna(served.loc[row, name]) else np.nan
    found = differing_values(served, kept, NAMES)
    assert (found.to_numpy().sum(), found.loc[row, name]) == (1, True)


def test_a_row_that_was_not_kept_differs_in_every_value():
    found = differing_values(rows([(1, None), (2, 3)], ["a", "b"]), rows([(1, None)], ["a"]), NAMES)
    assert found.to_numpy().tolist() == [[False, False], [True, True]]


def test_a_feature_that_was_not_kept_differs_even_where_it_was_missing():
    found = differing_values(rows([(1, None)]), rows([(1, None)]).drop(columns="mean_gap"), NAMES)
    assert found.to_numpy().tolist() == [[False, True]]


def test_the_row_of_another_moment_is_not_the_row():
    found = differing_values(rows([(1, 2)]), rows([(1, 2)]).assign(features_as_of=pd.Timestamp("1997-06-01")), NAMES)
    assert found.to_numpy().all()


def test_an_entity_may_have_been_asked_about_many_times_in_any_order():
    served = rows([(1, 2), (7, 8), (1, 2)], ["a", "b", "a"]).set_index(pd.Index([9, 4, 6]))
    found = differing_values(served, rows([(7, 8), (1, 2)], ["b", "a"]), NAMES)
    assert found.index.tolist() == [9, 4, 6]
    assert not found.to_numpy().any()


def test_two_kept_rows_of_one_name_are_an_error():
    with pytest.raises(pd.errors.MergeError):
        differing_values(rows([(1, 2)]), rows([(1, 2), (3, 4)], ["0", "0"]), NAMES)
