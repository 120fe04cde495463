"""How boucle measures: what wrong answers cost, into which slices rows fall, which durations are told apart."""

import math

from pydantic import Field

from boucle.contracts.document import Document

LATENCY_BOUNDS_SECONDS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Upper bounds of the histogram of request durations."""


MODEL_ERROR = 500
"""The version answered, and what it said was no answer. Other errors of the 500s are not the version's own."""
CLIENT_LEFT = 499
"""Counted, never seen: the caller went away in the middle of its request. Nobody's error."""


def whole(calls: float) -> int:
    """Whole calls among a sum of shares of calls; what rounding takes from a sum is no call less.

    Of sums that rise it rises as well, and by no more than they do where they rise by whole calls.

    >>> whole(0.1 + 0.7 + 0.2), whole(0.9)
    (1, 0)
    """
    return math.floor(calls + 1e-6)


class CostMatrix(Document):
    """What a wrong answer costs, in one unit; a right one costs nothing."""

    false_positive: float = Field(gt=0, description="acting where nothing would have happened")
    false_negative: float = Field(gt=0, description="not acting where it happened")
    unit: str = Field(min_length=1, description="what both are counted in, such as EUR")

    @property
    def threshold(self) -> float:
        """The probability from which acting costs less (Elkan 2001, equation 2).

        >>> CostMatrix(false_positive=1, false_negative=4, unit="EUR").threshold
        0.2
        """
        return self.false_positive / (self.false_positive + self.false_negative)


class Slicing(Document):
    """Features by whose values rows are looked at apart: each of few values, else quarters; missing is a slice too."""

    by: tuple[str, ...] = Field(default=(), description="names of features; empty: all of them")
    min_rows: int = Field(default=500, ge=30, description="rows; a smaller slice is counted, not judged")
