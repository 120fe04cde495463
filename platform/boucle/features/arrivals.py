"""Which landed period is loaded next: content against content, in the order of the periods."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from boucle.contracts.ids import Digest, PeriodKey


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A period whose landed content is not what is loaded. `stamp` names the content."""

    period: PeriodKey
    stamp: str


def landing_stamp(before: str, file_digest: Digest) -> str:
    """The name of a period's content: its file's and, through the stamp of the period before, that of all earlier ones.

    Features and labels of a period depend on earlier orders, so that a corrected file changes every stamp from its
    period on.
    """
    return hashlib.sha256(f"{before}/{file_digest}".encode()).hexdigest()[:16]


def next_arrival(
    landed: Mapping[PeriodKey, Digest], loaded: Mapping[PeriodKey, str], *, unfinished: Collection[PeriodKey] = ()
) -> Arrival | None:
    """The oldest period that is to be loaded, or None.

    Args:
        landed: SHA-256 of the landing file of each period that has one.
        loaded: Stamp of what was loaded last of each period.
        unfinished: Periods that were loaded, but what is made of them is missing or older.
    """
    before = ""
    for period in sorted({*landed, *loaded}):
        # A file that was taken away once it was loaded leaves what is loaded in force.
        stamp = landing_stamp(before, landed[period]) if period in landed else loaded[period]
        if loaded.get(period) != stamp or (period in unfinished and period in landed):
            return Arrival(period=period, stamp=stamp)
        before = stamp
    return None
