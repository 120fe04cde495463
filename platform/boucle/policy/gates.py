"""Building gates: a measured value meets its limit; without a value there is no pass."""

import math

from boucle.contracts.facts import Interval
from boucle.contracts.verdict import Bound, Gate, Verdict


def at_most(name: str, measured: float | None, limit: float, *, unit: str, sample_size: int, detail: str = "") -> Gate:
    """Passed when `measured <= limit`; inconclusive when nothing was measured; failed when it is not a number.

    >>> at_most("age", 3.0, 3.0, unit="days", sample_size=1).sentence()
    'age: passed (measured 3 days, at most 3 days, n=1)'
    """
    return _gate(name, measured, Bound.AT_MOST, limit, unit=unit, sample_size=sample_size, detail=detail)


def at_least(name: str, measured: float | None, limit: float, *, unit: str, sample_size: int, detail: str = "") -> Gate:
    """Passed when `measured >= limit`; inconclusive when nothing was measured; failed when it is not a number."""
    return _gate(name, measured, Bound.AT_LEAST, limit, unit=unit, sample_size=sample_size, detail=detail)


def within(name: str, interval: Interval, limit: float, *, unit: str, detail: str = "") -> Gate:
    """Passed when the estimate is in `[-limit, limit]`, failed when its whole interval is not, else inconclusive."""
    low, high = interval.low, interval.high
    if abs(interval.estimate) <= limit:
        verdict = Verdict.PASSED
    elif low > limit or high < -limit:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    sign = f"The limit holds in both directions: from {-limit:.4g} to {limit:.4g} {unit}."
    return Gate(
        name=name,
        verdict=verdict,
        measured=interval.estimate,
        bound=Bound.AT_LEAST if interval.estimate < 0 else Bound.AT_MOST,
        limit=-limit if interval.estimate < 0 else limit,
        unit=unit,
        sample_size=interval.sample_size,
        low=low,
        high=high,
        detail=f"{detail} {sign}".strip(),
    )


def inconclusive(gate: Gate, detail: str) -> Gate:
    """The same gate without an answer, and why."""
    return gate.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "detail": detail})


def _gate(
    name: str, measured: float | None, bound: Bound, limit: float, *, unit: str, sample_size: int, detail: str
) -> Gate:
    if measured is None or sample_size == 0:
        verdict = Verdict.INCONCLUSIVE
    elif math.isnan(measured):
        # A document is JSON, which knows no NaN.
        measured, verdict, detail = None, Verdict.FAILED, f"The measured value is not a number. {detail}".strip()
    else:
        inside = measured <= limit if bound is Bound.AT_MOST else measured >= limit
        verdict = Verdict.PASSED if inside else Verdict.FAILED
    return Gate(
        name=name,
        verdict=verdict,
        measured=measured,
        bound=bound,
        limit=limit,
        unit=unit,
        sample_size=sample_size,
        detail=detail,
    )
