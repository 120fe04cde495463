"""Which corrections the rows of a build may know: knowledge time, the second clock of every fact."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise


@dataclass(frozen=True, kw_only=True)
class BuildWindow:
    """Feature rows with `start < as_of <= end`, made of what had landed by `known_at`; None: of all that has landed.

    Rows that know everything are restated: requests may look them up, no model learns from them.
    """

    start: datetime
    end: datetime
    known_at: datetime | None

    @property
    def restated(self) -> bool:
        """Whether its rows may know what landed after their `as_of`."""
        return self.known_at is None


def build_windows(start: datetime, end: datetime, corrections: Sequence[datetime]) -> tuple[BuildWindow, ...]:
    """The builds that make the feature rows of `(start, end]`.

    A correction counts from the moment on at which it landed: the window is cut there, so that every row of a part
    knows the same corrections, those that landed before the part begins. Where a correction landed after `start`, one
    more build restates the window with all that is known by now.

    Args:
        start: Exclusive.
        end: Inclusive.
        corrections: When the later versions of any period up to `end` landed, in any order.

    >>> day = lambda number: datetime(1997, 5, number)
    >>> [(w.start.day, w.end.day, w.known_at and w.known_at.day) for w in build_windows(day(1), day(9), [day(4)])]
    [(1, 4, 1), (4, 9, 4), (1, 9, None)]
    """
    edges = [start, *sorted({moment for moment in corrections if start < moment < end}), end]
    regular = [BuildWindow(start=first, end=last, known_at=first) for first, last in pairwise(edges)]
    late = any(moment > start for moment in corrections)
    return (*regular, BuildWindow(start=start, end=end, known_at=None)) if late else tuple(regular)
