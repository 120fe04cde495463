"""When a label may be used: only once its whole horizon lies behind the watermark."""

from datetime import datetime, timedelta


def known_at(as_of: datetime, horizon: timedelta) -> datetime:
    """The moment from which the label of `as_of` is known: the end, exclusive, of `[as_of, as_of + horizon)`.

    >>> from datetime import UTC
    >>> known_at(datetime(1997, 4, 1, tzinfo=UTC), timedelta(days=30)).isoformat()
    '1997-05-01T00:00:00+00:00'
    """
    return as_of + horizon


def is_mature(as_of: datetime, horizon: timedelta, watermark: datetime) -> bool:
    """Whether the label of `as_of` is known at `watermark`, up to which the data is complete: `known_at <= watermark`.

    >>> from datetime import UTC
    >>> is_mature(datetime(1997, 4, 1, tzinfo=UTC), timedelta(days=30), datetime(1997, 5, 1, tzinfo=UTC))
    True
    """
    return known_at(as_of, horizon) <= watermark
