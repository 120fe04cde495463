"""Which landed periods are loaded next: content against content, in the order of the periods."""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from boucle.contracts.ids import Digest, PeriodKey

_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A period whose landed content is not what is loaded. `stamp` names the content."""

    period: PeriodKey
    stamp: str


def content_of_files(files: Mapping[str, Digest]) -> Digest:
    """The digest of what the sources of a period have landed, from the SHA-256 of each one's file."""
    lines = "".join(f"{source} {files[source]}\n" for source in sorted(files))
    return Digest(hashlib.sha256(lines.encode()).hexdigest())


def landing_stamp(before: str, content: Digest) -> str:
    """The name of a period's content, `<its own>.<its own and that of all earlier periods>`.

    Features depend on earlier rows, so that a corrected file changes the second half of every stamp from its period on.

    Args:
        before: The stamp of the period before; empty for the first one.
        content: The digest of what the period itself has landed.
    """
    history = hashlib.sha256(f"{before}/{content}".encode()).hexdigest()
    return f"{content[:_DIGITS]}.{history[:_DIGITS]}"


def arrivals(
    landed: Mapping[PeriodKey, Digest],
    loaded: Mapping[PeriodKey, str],
    *,
    unfinished: Collection[PeriodKey] = (),
    restated: Collection[PeriodKey] | None = None,
) -> tuple[Arrival, ...]:
    """The periods that are to be loaded, oldest first, each as if those before it were loaded by then.

    Args:
        landed: Digest of what has landed of each period that is complete.
        loaded: Stamp of what was loaded last of each period.
        unfinished: Periods that were loaded, but what is made of them is missing or older.
        restated: Periods into which a correction of an earlier one is carried; all when None.
    """
    before, found = "", []
    for period in sorted({*landed, *loaded}):
        # A file that was taken away once it was loaded leaves what is loaded in force.
        stamp = landing_stamp(before, landed[period]) if period in landed else loaded[period]
        if _is_due(stamp, loaded.get(period), carried=restated is None or period in restated) or (
            period in unfinished and period in landed
        ):
            found.append(Arrival(period=period, stamp=stamp))
        before = stamp
    return tuple(found)


def _is_due(stamp: str, known: str | None, *, carried: bool) -> bool:
    if known is None or stamp[:_DIGITS] != known[:_DIGITS]:
        return True
    return carried and stamp != known
