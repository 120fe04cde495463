"""Periods of the history: half-open windows `[start, end)` in UTC, named by their partition key."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import PeriodKey
from boucle.errors import ConfigurationError


class Cadence(StrEnum):
    """How the history is cut into periods."""

    MONTHLY = "monthly"
    DAILY = "daily"

    @property
    def key_format(self) -> str:
        """The `strftime` format of a period key."""
        return {Cadence.MONTHLY: "%Y-%m", Cadence.DAILY: "%Y-%m-%d"}[self]


class Period(Document):
    """One period. Its data is published at `end`; the features made of it have an `as_of` in `(start, end]`."""

    key: PeriodKey
    start: AwareDatetime
    end: AwareDatetime

    @property
    def length(self) -> timedelta:
        """From its start to its end."""
        return self.end - self.start

    def contains(self, moment: datetime) -> bool:
        """Whether `start <= moment < end`."""
        return self.start <= moment < self.end


def period_of(key: str, cadence: Cadence) -> Period:
    """The period with this key.

    Raises:
        ConfigurationError: The key is not one of this cadence.

    >>> period_of("1997-12", Cadence.MONTHLY).end.isoformat()
    '1998-01-01T00:00:00+00:00'
    """
    try:
        start = datetime.strptime(key, cadence.key_format).replace(tzinfo=UTC)
        # Keys are compared as text and are names of files: strptime would take "1997-4" as well.
        if start.strftime(cadence.key_format) != key:
            raise ValueError("not the written form of a key")
    except ValueError as error:
        raise ConfigurationError(
            f"'{key}' is not a {cadence} period; write it like {datetime(1997, 4, 1, tzinfo=UTC):{cadence.key_format}}."
        ) from error
    return Period(key=PeriodKey(key), start=start, end=_next_start(start, cadence))


def period_named(key: str) -> Period:
    """The period with this key, of the cadence in whose form it is written.

    Raises:
        ConfigurationError: The key is in the form of none.

    >>> period_named("1997-12").length.days, period_named("2013-12-24").length.days
    (31, 1)
    """
    for cadence in Cadence:
        try:
            return period_of(key, cadence)
        except ConfigurationError:
            continue
    raise ConfigurationError(f"'{key}' is the key of no period; it looks like 1997-12 or 1997-12-24.")


def period_at(moment: datetime, cadence: Cadence) -> Period:
    """The period that contains `moment`."""
    return period_of(moment.astimezone(UTC).strftime(cadence.key_format), cadence)


def next_period(period: Period, cadence: Cadence) -> Period:
    """The period that starts where this one ends."""
    return period_at(period.end, cadence)


def previous_period(period: Period, cadence: Cadence) -> Period:
    """The period that ends where this one starts."""
    return period_at(period.start - timedelta(microseconds=1), cadence)


def period_asking(as_of: datetime, cadence: Cadence) -> Period:
    """The period whose features have this `as_of`: `start < as_of <= end`.

    >>> period_asking(datetime(1997, 5, 1, tzinfo=UTC), Cadence.MONTHLY).key
    '1997-04'
    """
    return period_at(as_of - timedelta(microseconds=1), cadence)


def _next_start(start: datetime, cadence: Cadence) -> datetime:
    if cadence is Cadence.DAILY:
        return start + timedelta(days=1)
    return (start.replace(day=1) + timedelta(days=32)).replace(day=1)
