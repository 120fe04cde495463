"""A column is input, steps and a table; its limits are where the answer changes, to the last bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.training.columns import Column, Fill, Single, Standardise, Stretch, Table, evaluate, limits, then

PLAN = Table(keys=(0.0, 1.0, 2.5), values=(0.0, 1.0, 2.0), missing=-2.0, unknown=-1.0)
FINITE = st.floats(-1e6, 1e6)
POSITIVE = st.floats(1e-3, 1e3)


@given(mean=FINITE, scale=POSITIVE, factor=POSITIVE, offset=FINITE, threshold=FINITE, rounds=st.booleans())
def test_a_limit_is_the_largest_value_that_does_not_exceed_the_threshold(
    mean, scale, factor, offset, threshold, rounds
):
    steps = (Fill(value=3.0), Standardise(mean=mean, scale=scale), Stretch(factor=factor, offset=offset))
    steps = (*steps, Single()) if rounds else steps
    limit = limits(Column(source=0, steps=steps), np.array([threshold]))[0]
    below, above = evaluate(steps, np.array([limit, np.nextafter(limit, np.inf)]))
    assert below <= threshold < above


def test_without_steps_the_limits_are_the_thresholds():
    assert list(limits(Column(source=0), np.array([-1.5, 0.0, 7.0]))) == [-1.5, 0.0, 7.0]


def test_a_threshold_that_no_value_reaches_has_no_limit():
    doubled = Column(source=0, steps=(Stretch(factor=0.5, offset=0.0),))
    assert list(limits(doubled, np.array([-1.5e308, 3.0, 1.5e308]))) == [6.0]


def test_rounding_has_the_limit_of_the_rounded_and_that_of_the_exact_value():
    # Half a unit in the last place of single precision above 1.5, and 1.5 itself; ties round to even, which 1.5 is.
    assert list(limits(Column(source=0, steps=(Single(),)), np.array([1.5]))) == [1.5 + 2.0**-24, 1.5]


def test_the_limits_of_a_table_are_its_keys_and_a_value_on_either_side():
    assert sorted(limits(Column(source=0, table=PLAN), np.array([0.5]))) == [-1.0, 0.0, 1.0, 2.5, 3.5]
    assert len(limits(Column(source=0, table=Table(keys=(), values=(), missing=1.0, unknown=0.0)), np.array([]))) == 0


def test_what_follows_a_table_is_computed_into_it():
    coded = then(Column(source=0), PLAN)
    scaled = then(coded, Standardise(mean=1.0, scale=2.0))
    assert scaled.table == Table(keys=PLAN.keys, values=(-0.5, 0.0, 0.5), missing=-1.5, unknown=-1.0)
    side = Table(keys=(-2.0, 2.0), values=(10.0, 20.0), missing=30.0, unknown=40.0)
    assert then(coded, side).table == Table(keys=PLAN.keys, values=(40.0, 40.0, 20.0), missing=10.0, unknown=40.0)


@pytest.mark.parametrize(("value", "missing"), [(2.5, 2.0), (9.0, -1.0)])
def test_filling_before_a_table_is_what_the_table_says_of_a_missing_value(value: float, missing: float):
    column = then(then(Column(source=3), Fill(value=value)), PLAN)
    assert column == Column(
        source=3, table=Table(keys=PLAN.keys, values=PLAN.values, missing=missing, unknown=PLAN.unknown)
    )


def test_a_code_that_is_not_a_number_is_looked_up_as_missing():
    coded = then(Column(source=0), Table(keys=(1.0,), values=(0.0,), missing=np.nan, unknown=np.nan))
    assert then(coded, PLAN).table == Table(keys=(1.0,), values=(0.0,), missing=-2.0, unknown=-2.0)
