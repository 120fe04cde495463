"""The real CDNOW history that stands for the shop: what it writes for each month (1997-01 to 1998-06)."""

from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pandas as pd

from boucle.errors import ConfigurationError
from boucle_platform.defs.repurchase.schema import ORDERS

_MEMBER = "lifetimes/datasets/CDNOW_master.txt"


def published_periods() -> tuple[str, ...]:
    """Periods that the source system can publish, oldest first."""
    return tuple(sorted(_history()["order_date"].str[:7].unique()))


def export_period(source: str, period_key: str) -> pd.DataFrame:  # noqa: ARG001 - there is one source
    """One period's orders as the source system writes them: text, ISO dates, in the order of the history.

    Raises:
        ConfigurationError: The history has no such period, or the package that holds it is not installed.
    """
    history = _history()
    rows = history.loc[history["order_date"].str[:7] == period_key]
    if rows.empty:
        periods = published_periods()
        raise ConfigurationError(
            f"The CDNOW history has no period '{period_key}'; it goes from {periods[0]} to {periods[-1]}."
        )
    return rows.reset_index(drop=True)


@cache
def _history() -> pd.DataFrame:
    rows = pd.read_csv(_history_file(), sep=r"\s+", dtype=str)
    rows.columns = pd.Index(ORDERS.column_names)
    day = rows["order_date"]
    return rows.assign(order_date=day.str[:4] + "-" + day.str[4:6] + "-" + day.str[6:])


def _history_file() -> Path:
    # Only the data file is used: importing the package fails on a Python without pkg_resources.
    try:
        return Path(str(distribution("lifetimes").locate_file(_MEMBER)))
    except PackageNotFoundError as error:
        raise ConfigurationError(
            "The CDNOW history comes with the package 'lifetimes', which is not installed: "
            "install boucle with the extra [examples] (`make install` does)."
        ) from error
