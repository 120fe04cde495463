"""How fast an error budget burns: counts looked back on over two windows, and what a rule says of them."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from boucle.contracts.facts import BurnFacts
from boucle.contracts.service import BurnRule, ServiceObjectives
from boucle.contracts.verdict import Gate
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.stats.intervals import wilson_interval

MOST = 0.5
"""No rule waits for more than half of the requests: 14.4 times a budget of 0.1 could never be reached."""
_STEPS = 4
T = TypeVar("T")


class Seen(NamedTuple, Generic[T]):
    """What had been counted at a moment, in seconds of whichever clock the looks are taken by."""

    at: float
    counted: T


def looked(history: Sequence[Seen[T]], new: Seen[T], rules: Sequence[BurnRule]) -> tuple[Seen[T], ...]:
    """The history with one more look, no longer and no denser than the rules need.

    The looks kept are a quarter of the shortest window apart, or more; the newest is always kept, and so is one from
    before the longest window. Where there is no rule, only the newest is kept.
    """
    if not rules:
        return (new,)
    apart = min(rule.short_seconds for rule in rules) / _STEPS
    oldest = new.at - max(rule.long_seconds for rule in rules)
    kept = list(history)
    if len(kept) > 1 and kept[-1].at - kept[-2].at < apart:
        kept.pop()
    while len(kept) > 1 and kept[1].at <= oldest:
        kept.pop(0)
    return (*kept, new)


def seen_before(history: Sequence[Seen[T]], moment: float) -> Seen[T]:
    """The newest look not after a moment; where all are, the oldest: a window begins with the watching.

    Raises:
        IndexError: There is no look.
    """
    earlier = [seen for seen in history if seen.at <= moment]
    return earlier[-1] if earlier else history[0]


def burn_gates(objectives: ServiceObjectives, rule: BurnRule, facts: BurnFacts) -> tuple[Gate, ...]:
    """Failed and slow requests by one rule."""
    slow = f"Slower than {objectives.slow_seconds:g} s."
    of_failed = (facts.long.failed, facts.short.failed)
    of_slow = (facts.long.slow, facts.short.slow)
    return (
        _burn("failed_requests", objectives, rule, facts, of_failed, objectives.max_failed, "Code 500."),
        _burn("slow_requests", objectives, rule, facts, of_slow, objectives.max_slow, slow),
    )


def _burn(
    name: str,
    objectives: ServiceObjectives,
    rule: BurnRule,
    facts: BurnFacts,
    counts: tuple[int, int],
    budget: float,
    detail: str,
) -> Gate:
    """Failed when the long window is surely above the rule's rate, and the short one is still above it."""
    limit = GateLimit(limit=max(budget, min(rule.factor * budget, MOST)), unit="ratio of requests")
    asked, still = facts.long.requests, facts.short.requests
    if asked == 0:
        return gates.at_most(name, None, limit, sample_size=0, detail="Nothing was asked in this window.")
    said = f"{detail} {rule.factor:g} times the budget of {budget:g}, over {rule.long_seconds:g} s."
    interval = wilson_interval(counts[0], asked, level=objectives.confidence)
    gate = gates.not_surely_above(name, interval, limit, detail=said)
    if asked < objectives.min_requests:
        return gates.inconclusive(gate, f"{asked} requests; the objectives ask for {objectives.min_requests}.")
    if gate.low is not None and gate.low > limit.limit and counts[1] <= limit.limit * still:
        return gates.inconclusive(
            gate, f"{said} It is over: {counts[1]} of {still} in the last {rule.short_seconds:g} s."
        )
    return gate
