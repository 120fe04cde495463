"""Building gates: a measured value meets its limit; without a value there is no pass."""

import math

from boucle.contracts.facts import Interval
from boucle.contracts.verdict import Bound, Gate, GateMode, Verdict
from boucle.policy.limits import GateLimit


def at_most(name: str, measured: float | None, limit: GateLimit, *, sample_size: int, detail: str = "") -> Gate:
    """Passed when `measured <= limit`; inconclusive when nothing was measured; failed when it is not a number.

    >>> at_most("age", 3.0, GateLimit(limit=3, unit="days"), sample_size=1).sentence()
    'age: passed (measured 3 days, at most 3 days, n=1)'
    """
    return _gate(name, measured, Bound.AT_MOST, limit, sample_size=sample_size, detail=detail)


def at_least(name: str, measured: float | None, limit: GateLimit, *, sample_size: int, detail: str = "") -> Gate:
    """Passed when `measured >= limit`; inconclusive when nothing was measured; failed when it is not a number."""
    return _gate(name, measured, Bound.AT_LEAST, limit, sample_size=sample_size, detail=detail)


def within(name: str, interval: Interval, limit: GateLimit, *, detail: str = "") -> Gate:
    """Passed when the estimate is in `[-limit, limit]`, failed when its whole interval is not, else inconclusive."""
    low, high, most = interval.low, interval.high, limit.limit
    if abs(interval.estimate) <= most:
        verdict = Verdict.PASSED
    elif low > most or high < -most:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    below = interval.estimate < 0
    sign = f"The limit holds in both directions: from {-most:.4g} to {most:.4g} {limit.unit}."
    gate = _of_interval(name, interval, limit, verdict, detail=f"{detail} {sign}".strip())
    bound = Bound.AT_LEAST if below else Bound.AT_MOST
    return gate.model_copy(update={"bound": bound, "limit": -most if below else most})


def surely_at_least(name: str, interval: Interval, limit: GateLimit, *, detail: str = "") -> Gate:
    """Passed when the whole interval is at least the limit, failed when the whole is below, else inconclusive."""
    if interval.low >= limit.limit:
        verdict = Verdict.PASSED
    elif interval.high < limit.limit:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    return _of_interval(name, interval, limit, verdict, detail=detail)


def not_surely_below(name: str, interval: Interval, limit: GateLimit, *, detail: str = "") -> Gate:
    """Passed when the estimate is at least the limit, failed when the whole interval is below, else inconclusive."""
    if interval.estimate >= limit.limit:
        verdict = Verdict.PASSED
    elif interval.high < limit.limit:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    return _of_interval(name, interval, limit, verdict, detail=detail)


def not_surely_above(name: str, interval: Interval, limit: GateLimit, *, detail: str = "") -> Gate:
    """Passed when the estimate is at most the limit, failed when the whole interval is above, else inconclusive."""
    if interval.estimate <= limit.limit:
        verdict = Verdict.PASSED
    elif interval.low > limit.limit:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    return _of_interval(name, interval, limit, verdict, detail=detail).model_copy(update={"bound": Bound.AT_MOST})


def inconclusive(gate: Gate, detail: str) -> Gate:
    """The same gate without an answer, and why."""
    return gate.model_copy(update={"verdict": Verdict.INCONCLUSIVE, "detail": detail})


def in_mode(gate: Gate, mode: GateMode) -> Gate:
    """The gate as it was declared to act; one that is switched off answers nothing."""
    if mode is not GateMode.OFF:
        return gate.model_copy(update={"mode": mode})
    off = {"verdict": Verdict.INCONCLUSIVE, "measured": None, "low": None, "high": None, "sample_size": 0}
    return gate.model_copy(update={**off, "mode": mode, "detail": "Switched off in defs.yaml."})


def _of_interval(name: str, interval: Interval, limit: GateLimit, verdict: Verdict, *, detail: str) -> Gate:
    return Gate(
        name=name,
        verdict=verdict,
        measured=interval.estimate,
        bound=Bound.AT_LEAST,
        limit=limit.limit,
        unit=limit.unit,
        sample_size=interval.sample_size,
        low=interval.low,
        high=interval.high,
        detail=detail,
    )


def _gate(name: str, measured: float | None, bound: Bound, limit: GateLimit, *, sample_size: int, detail: str) -> Gate:
    if measured is None or sample_size == 0:
        verdict = Verdict.INCONCLUSIVE
    elif math.isnan(measured):
        # A document is JSON, which knows no NaN.
        measured, verdict, detail = None, Verdict.FAILED, f"The measured value is not a number. {detail}".strip()
    else:
        inside = measured <= limit.limit if bound is Bound.AT_MOST else measured >= limit.limit
        verdict = Verdict.PASSED if inside else Verdict.FAILED
    return Gate(
        name=name,
        verdict=verdict,
        measured=measured,
        bound=bound,
        limit=limit.limit,
        unit=limit.unit,
        sample_size=sample_size,
        detail=detail,
    )
