"""Intervals that hold at every look: whoever looks after each request and stops at an answer errs no more often.

An estimate with standard error `se` has the information `v = 1 / se**2`; its sum `estimate * v` moves like a Brownian
motion in `v` (Jennison and Turnbull 1999, chapter 11), and around one the normal mixture boundary of Howard, Ramdas,
McAuliffe and Sekhon 2021 (Time-uniform, nonparametric, nonasymptotic confidence sequences, section 3.2) is left at any
time with a probability of at most alpha. As any use of a standard error it needs enough data for the sum to be normal.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much larger a mean is on one side than on the other, and its standard error (both in the mean's unit).

    `size` is how many values of one side compared with a known mean would tell as much: what parts are weighted by.
    """

    estimate: float
    standard_error: float
    size: float = 1.0

    @property
    def information(self) -> float:
        """One over the squared standard error."""
        return self.standard_error**-2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Count, mean and variance (over `n`, not `n - 1`) of values of one side."""

    n: int
    mean: float
    variance: float


def share(hits: int, n: int) -> Sample:
    """A sample of `n` zeros and ones. One hit and one miss are added: no hit yet does not mean that there never is one.

    Source: Agresti and Caffo 2000 (one of each a side), for intervals of differences of shares.
    """
    rate = (hits + 1) / (n + 2)
    return Sample(n=n, mean=rate, variance=rate * (1 - rate))


def difference(side: Sample, reference: Sample) -> Difference | None:
    """Mean of one side minus that of another that is independent of it; None before both have two values.

    Raises:
        ValueError: A variance is negative.
    """
    if min(side.n, reference.n) < 2:
        return None
    squared = side.variance / side.n + reference.variance / reference.n
    if squared < 0:
        raise ValueError(f"A variance cannot be negative: {side.variance}, {reference.variance}.")
    size = 1 / (1 / side.n + 1 / reference.n)
    found = Difference(estimate=side.mean - reference.mean, standard_error=math.sqrt(squared), size=size)
    return found if squared else None


def mean_of(paired: Sample) -> Difference | None:
    """The mean of paired differences; None before there are two, or while they do not vary."""
    if paired.n < 2 or paired.variance <= 0:
        return None
    return Difference(estimate=paired.mean, standard_error=math.sqrt(paired.variance / paired.n), size=paired.n)


def pooled(parts: Sequence[Difference]) -> Difference | None:
    """One difference of several that were measured one after the other, each against its own time; None of none.

    Weighted by size, so that their sums stay one Brownian motion: what holds at every look of each part holds at every
    look of the whole. Not by information: a part in which a share is near zero has a tiny error, and would outweigh a
    later one in which everything fails.
    """
    if not parts:
        return None
    size = sum(part.size for part in parts)
    estimate = sum(part.estimate * part.size for part in parts) / size
    squared = sum((part.standard_error * part.size) ** 2 for part in parts)
    return Difference(estimate=estimate, standard_error=math.sqrt(squared) / size, size=size)


def interval(found: Difference, *, alpha: float, planned_information: float) -> tuple[float, float]:
    """Low and high end of the interval that holds at every look with probability `1 - alpha`.

    Args:
        found: The difference so far.
        alpha: Of both ends together, in (0, 1).
        planned_information: Where the interval is to be narrowest, for its width; it holds everywhere.
    """
    v, rho = found.information, planned_information / _planned_over_rho(alpha)
    radius = math.sqrt((v + rho) * math.log((v + rho) / (rho * alpha**2))) / v
    return found.estimate - radius, found.estimate + radius


def information_needed(distance: float, *, alpha: float, power: float) -> float:
    """Information with which an interval leaves out a value that lies `distance` from the truth.

    Args:
        distance: In the unit of the difference, above 0.
        alpha: Of the interval, in (0, 1).
        power: How often it is to leave the value out by then, in (0.5, 1).
    """
    k = _planned_over_rho(alpha)
    boundary = math.sqrt((1 + 1 / k) * math.log((1 + k) / alpha**2))
    return ((boundary + NormalDist().inv_cdf(power)) / distance) ** 2


def _planned_over_rho(alpha: float) -> float:
    """For which parameter of the mixture the boundary is lowest where planned (Howard et al., section 3.5)."""
    odds = 2 * math.log(1 / alpha)
    return odds + math.log(1 + odds)
