"""The split by time: no training label that was not known when the holdout began."""

from datetime import timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets_tests.judging import day
from boucle.errors import NotEnoughDataError
from boucle.training.split import split_by_time

MONTHS = [f"1997-{month:02}-01" for month in range(2, 9)]


def history(months: list[str], *, horizon_days: int = 30, users: int = 2) -> pd.DataFrame:
    rows = [(f"u{user}", day(month)) for month in months for user in range(users)]
    frame = pd.DataFrame(rows, columns=["entity_key", "as_of"])
    frame["period_end"] = frame["as_of"]
    frame["known_at"] = frame["as_of"] + timedelta(days=horizon_days)
    return frame


def test_the_newest_mature_as_of_is_the_holdout_and_what_was_known_then_is_for_training():
    split = split_by_time(history(MONTHS[:4]), watermark=day("1997-05-01"), holdout_periods=1)
    assert split.holdout_as_of == (day("1997-04-01"),)
    assert split.train_as_of == (day("1997-02-01"), day("1997-03-01"))
    assert split.holdout_from == day("1997-04-01")
    assert (len(split.train), len(split.holdout)) == (4, 2)


def test_a_label_known_exactly_when_the_holdout_begins_is_learnt_from():
    # 1997-05-01 + 31 days = 1997-06-01.
    split = split_by_time(history(MONTHS, horizon_days=31), watermark=day("1997-07-02"), holdout_periods=1)
    assert split.holdout_from == day("1997-06-01")
    assert split.train_as_of[-1] == day("1997-05-01")


def test_a_label_known_a_day_after_the_holdout_begins_is_purged():
    split = split_by_time(history(MONTHS, horizon_days=32), watermark=day("1997-07-03"), holdout_periods=1)
    assert split.holdout_from == day("1997-06-01")
    assert split.train_as_of[-1] == day("1997-04-01")


def test_a_label_known_exactly_at_the_watermark_is_mature():
    at = split_by_time(history(MONTHS), watermark=day("1997-05-01"), holdout_periods=1)
    before = split_by_time(history(MONTHS), watermark=day("1997-05-30"), holdout_periods=1)
    after = split_by_time(history(MONTHS), watermark=day("1997-05-31"), holdout_periods=1)
    assert at.holdout_from == before.holdout_from == day("1997-04-01")
    assert after.holdout_from == day("1997-05-01")


def test_one_young_label_makes_its_whole_as_of_wait():
    rows = history(MONTHS[:4])
    rows.loc[rows.index[-1], "known_at"] = day("1997-09-01")
    split = split_by_time(rows, watermark=day("1997-06-15"), holdout_periods=1)
    assert split.holdout_from == day("1997-04-01")


def test_too_little_history_says_from_when_on_there_is_enough():
    # February's label is known on 3 March, so April is the first as_of with something to learn before it.
    with pytest.raises(NotEnoughDataError, match=r"2 of 3 periods are mature.*possible from 1997-05-01 on"):
        split_by_time(history(MONTHS[:3]), watermark=day("1997-04-01"), holdout_periods=1)


def test_history_that_can_never_do_says_so():
    with pytest.raises(NotEnoughDataError, match="land further periods"):
        split_by_time(history(MONTHS[:1]), watermark=day("1997-12-01"), holdout_periods=1)


def test_no_rows_at_all_is_not_enough():
    with pytest.raises(NotEnoughDataError, match="0 of 0 periods are mature"):
        split_by_time(history(MONTHS).iloc[:0], watermark=day("1997-12-01"), holdout_periods=1)


@given(
    horizon=st.integers(1, 70),
    watermark=st.integers(60, 300),
    holdout_periods=st.integers(1, 3),
    months=st.lists(st.sampled_from(MONTHS), unique=True, min_size=3),
)
def test_no_training_label_is_younger_than_the_holdout_and_nothing_is_in_both(
    horizon: int, watermark: int, holdout_periods: int, months: list[str]
):
    now = day("1997-02-01") + timedelta(days=watermark)
    rows = history(months, horizon_days=horizon, users=1)
    try:
        split = split_by_time(rows, watermark=now, holdout_periods=holdout_periods)
    except NotEnoughDataError:
        return
    assert (split.train["known_at"] <= split.holdout["as_of"].min()).all()
    assert (split.holdout["known_at"] <= now).all()
    assert set(split.train.index).isdisjoint(split.holdout.index)
    assert len(split.holdout_as_of) == holdout_periods
    assert max(split.train_as_of) < min(split.holdout_as_of)
