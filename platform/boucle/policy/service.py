"""Does production answer as it should? Judged over a window of requests; a breach undoes the newest promotion."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, field_validator

from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.measuring import LATENCY_BOUNDS_SECONDS
from boucle.contracts.verdict import Gate, Verdict
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.stats.intervals import wilson_interval


class ServicePolicy(BaseModel):
    """Service-level objectives of a model. A breach is sure, or it is none: the whole interval is above the limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_failed: float = Field(
        default=0.01, ge=0, lt=1, description="ratio of requests that ended as an error of the model (code 500)"
    )
    max_slow: float = Field(default=0.05, ge=0, lt=1, description="ratio of requests slower than `slow_seconds`")
    slow_seconds: float = Field(default=1.0, description="seconds; a bound of the histogram of durations")
    min_requests: int = Field(default=50, ge=1, description="requests in the window; fewer say nothing")
    window_seconds: float = Field(default=60, gt=0, description="seconds looked back on, at most")
    confidence: float = Field(default=0.999, gt=0.5, lt=1, description="coverage of the intervals; judged every tick")

    @field_validator("slow_seconds")
    @classmethod
    def _is_a_bound(cls, value: float) -> float:
        if value not in LATENCY_BOUNDS_SECONDS:
            raise ValueError(f"{value:g} s is not counted; choose one of {', '.join(map(str, LATENCY_BOUNDS_SECONDS))}")
        return value


class GuardOutcome(StrEnum):
    """What the guard does about production."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, kw_only=True)
class GuardDecision:
    """The outcome and, with the numbers, why."""

    outcome: GuardOutcome
    reason: str


def service_gates(policy: ServicePolicy, facts: ServiceFacts) -> tuple[Gate, ...]:
    """Failed and slow requests of production in the window, against their limits."""
    slow = f"Slower than {policy.slow_seconds:g} s."
    return (
        _share("failed_requests", policy, facts, facts.failed, policy.max_failed, "Code 500: the model's own errors."),
        _share("slow_requests", policy, facts, facts.slow, policy.max_slow, slow),
    )


def guard(judged: Sequence[Gate], *, move: NewDecision, back_to: ModelVersion | None) -> GuardDecision:
    """Roll back when an objective is surely missed by a version that was promoted, and there is one to go back to.

    Only the newest promotion is undone: production that a rollback put there, a person's or the guard's, stays.

    Args:
        judged: The objectives over the newest window.
        move: The decision that made the version production.
        back_to: The version that a rollback would put back.
    """
    broken = [gate.figures() for gate in judged if gate.verdict is Verdict.FAILED]
    if not broken:
        said = "; ".join(gate.figures() for gate in judged) or "nothing was measured"
        return GuardDecision(outcome=GuardOutcome.HOLD, reason=said)
    reason = "; ".join(broken)
    if move.kind is not DecisionKind.PROMOTE:
        held = (
            f"{reason}; version {move.to_version} stays: it was put back by {move.actor}, and the guard goes no further"
        )
        return GuardDecision(outcome=GuardOutcome.HOLD, reason=held)
    if back_to is None:
        held = f"{reason}; version {move.to_version} stays: there is no earlier version to go back to"
        return GuardDecision(outcome=GuardOutcome.HOLD, reason=held)
    return GuardDecision(outcome=GuardOutcome.ROLL_BACK, reason=reason)


def _share(name: str, policy: ServicePolicy, facts: ServiceFacts, count: int, most: float, detail: str) -> Gate:
    limit = GateLimit(limit=most, unit="ratio of requests")
    if facts.requests == 0:
        return gates.at_most(name, None, limit, sample_size=0, detail="Nothing was asked in this window.")
    interval = wilson_interval(count, facts.requests, level=policy.confidence)
    gate = gates.not_surely_above(name, interval, limit, detail=detail)
    if facts.requests < policy.min_requests:
        return gates.inconclusive(gate, f"{facts.requests} requests; the policy asks for {policy.min_requests}.")
    return gate
