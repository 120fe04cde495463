"""The split of labelled rows by time: learn from what was known before the holdout begins, judge on the holdout."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from boucle.errors import NotEnoughDataError


@dataclass(frozen=True, kw_only=True)
class TimeSplit:
    """Rows to learn from and rows to judge on. Every training label was known by `holdout_from`.

    `train_as_of` and `holdout_as_of` are the ends of their periods: the `as_of` itself where a model asks once a
    period.
    """

    train: pd.DataFrame
    holdout: pd.DataFrame
    train_as_of: tuple[datetime, ...]
    holdout_as_of: tuple[datetime, ...]
    holdout_from: datetime


def split_by_time(rows: pd.DataFrame, *, watermark: datetime, holdout_periods: int) -> TimeSplit:
    """Split by period: the newest mature ones are the holdout, and what was known when it began is for training.

    A period is mature when every label of it was known at or before `watermark`. A label known after the holdout's
    first `as_of` is left out of both (purged): whoever had predicted then could not have learnt from it.

    Args:
        rows: One row per prediction: `as_of`, `period_end` (end of the period that asks, not before `as_of`),
            `known_at` (when its label became known; all UTC), anything else.
        watermark: Nothing after it is known.
        holdout_periods: Number of periods in the holdout.

    Raises:
        NotEnoughDataError: What is missing and from when on it is there, as far as `rows` tell.
    """
    periods = rows.groupby("period_end").agg(first=("as_of", "min"), known=("known_at", "max")).sort_index()
    mature = periods[periods["known"] <= watermark]
    holdout_as_of = list(mature.index[-holdout_periods:])
    if len(holdout_as_of) == holdout_periods:
        holdout_from = mature["first"].iloc[-holdout_periods]
        train = rows[(rows["period_end"] < holdout_as_of[0]) & (rows["known_at"] <= holdout_from)]
        if len(train):
            return TimeSplit(
                train=train,
                holdout=rows[rows["period_end"].isin(holdout_as_of)],
                train_as_of=_moments(train["period_end"].unique()),
                holdout_as_of=_moments(holdout_as_of),
                holdout_from=pd.Timestamp(holdout_from).to_pydatetime(),
            )
    raise NotEnoughDataError(_what_is_missing(periods, len(mature), watermark, holdout_periods))


def _moments(values: Iterable[object]) -> tuple[datetime, ...]:
    return tuple(moment.to_pydatetime() for moment in pd.DatetimeIndex(list(values)).sort_values())


def _what_is_missing(periods: pd.DataFrame, mature: int, watermark: datetime, holdout_periods: int) -> str:
    when = _first_possible(periods, holdout_periods)
    hope = (
        f"With the rows at hand it is possible from {when:%Y-%m-%d} on."
        if when is not None
        else "The rows at hand will not do even when all their labels are known: land further periods."
    )
    return (
        f"A time split needs {holdout_periods} mature periods for the holdout and, before it, labels that were known "
        f"when the holdout begins; at {watermark:%Y-%m-%d} {mature} of {len(periods)} periods are mature. {hope} "
        "Nothing was trained."
    )


def _first_possible(periods: pd.DataFrame, holdout_periods: int) -> datetime | None:
    """The earliest watermark at which a split exists, or None."""
    firsts, known = list(periods["first"]), list(periods["known"])
    for end in range(holdout_periods, len(periods)):
        start = end - holdout_periods + 1
        if any(moment <= firsts[start] for moment in known[:start]):
            return pd.Timestamp(max(known[: end + 1])).to_pydatetime()
    return None
