"""Does production answer as it should? What the objectives say of what was measured; a breach undoes a promotion."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import NormalDist

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.facts import LoadFacts, OutputFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.profile import CalibrationProfile
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.verdict import Gate, Verdict
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.policy.performance import LOSS
from boucle.policy.pins import pinned_by
from boucle.stats.calibration import mean_log_loss
from boucle.stats.intervals import wilson_interval

LOG_LOSS = "log_loss"
MOST_MORE_LOAD = 1.25
"""Where callers ask more than this times as often as before, a replica that is full says nothing of the version."""


class GuardOutcome(StrEnum):
    """What the guard does about production."""

    HOLD = "hold"
    ROLL_BACK = "roll_back"


@dataclass(frozen=True, kw_only=True)
class GuardDecision:
    """The outcome and, with the numbers, why."""

    outcome: GuardOutcome
    reason: str


def saturation_gate(objectives: ServiceObjectives, now: LoadFacts, before: LoadFacts | None) -> Gate:
    """Requests that full replicas turned away, against the share that the same replicas did before the promotion.

    A full replica is mostly a matter of load. It counts against the version only where the share surely rose with it,
    and callers ask about as often as they did.
    """
    limit = GateLimit(limit=objectives.max_refused, unit="ratio of requests")
    name = "refused_requests"
    if now.asked == 0:
        return gates.at_most(name, None, limit, sample_size=0, detail="Nothing was asked in this window.")
    share = wilson_interval(now.refused, now.asked, level=objectives.confidence)
    if before is None or min(before.asked, now.asked) < objectives.min_requests:
        gate = gates.not_surely_above(name, share, limit)
        return gates.inconclusive(gate, "What was refused just before the promotion is not known.")
    usual = wilson_interval(before.refused, before.asked, level=objectives.confidence)
    risen = replace(
        share,
        estimate=share.estimate - usual.estimate,
        low=share.low - usual.high,
        high=share.high - usual.low,
    )
    gate = gates.not_surely_above(name, risen, limit, detail="More than before the promotion: replicas were full.")
    more = (now.asked / now.seconds) / (before.asked / before.seconds)
    if more > MOST_MORE_LOAD:
        return gates.inconclusive(gate, f"Callers ask {more:.1f} times as often as before: that is no version's fault.")
    return gate


def output_gates(objectives: ServiceObjectives, facts: OutputFacts | None) -> tuple[Gate, ...]:
    """Whether the answers are far from those of the version before on the same rows, or all the same.

    Answers outside the contract never leave: they are withheld and count as failed requests.
    """
    if facts is None:
        nothing = "No row was answered that the version before could answer as well."
        return tuple(
            gates.at_most(name, None, limit, sample_size=0, detail=nothing)
            for name, limit in (("same_answer", _same(objectives)), ("score_shift", _shift(objectives)))
        )
    judged = (_same_answer(objectives, facts), _score_shift(objectives, facts))
    if facts.rows >= objectives.min_rows:
        return judged
    few = f"{facts.rows} different rows; the objectives ask for {objectives.min_rows}."
    return tuple(gates.inconclusive(gate, few) for gate in judged)


def log_loss_gate(
    objectives: ServiceObjectives,
    report: PerformanceReport | None,
    holdout: CalibrationProfile | None,
    *,
    reported_level: float,
) -> Gate:
    """Log loss of production on mature labels above that on its holdout, as live performance was reported.

    The interval is that of two independent samples at the objectives' own confidence: both are uncertain.

    Args:
        objectives: With a limit for it.
        report: The newest one about this version; its gate knows how many labels are enough.
        holdout: What came of the version's scores on its holdout; None where nobody knows, and nothing is sure.
        reported_level: The coverage of the report's interval, which is a normal one.
    """
    reported = next((gate for gate in report.gates if gate.name == LOSS), None) if report else None
    limit = GateLimit(limit=objectives.max_log_loss_increase or 0.0, unit="nats")
    if reported is None or reported.measured is None or reported.low is None:
        return gates.at_most(LOG_LOSS, None, limit, sample_size=0, detail="No label of its answers is mature yet.")
    if holdout is None or holdout.entities < 2:
        gate = gates.at_most(LOG_LOSS, reported.measured, limit, sample_size=reported.sample_size)
        return gates.inconclusive(gate, "How sure the log loss on its holdout is, is not known.")
    wider = NormalDist().inv_cdf((1 + objectives.confidence) / 2) / NormalDist().inv_cdf((1 + reported_level) / 2)
    held = mean_log_loss(holdout, level=objectives.confidence)
    half = math.hypot((reported.measured - reported.low) * wider, held.high - held.estimate)
    low, high = reported.measured - half, reported.measured + half
    verdict = Verdict.INCONCLUSIVE
    if reported.verdict is Verdict.FAILED and low > limit.limit:
        verdict = Verdict.FAILED
    elif reported.verdict is not Verdict.INCONCLUSIVE and reported.measured <= limit.limit:
        verdict = Verdict.PASSED
    return reported.model_copy(
        update={"name": LOG_LOSS, "limit": limit.limit, "low": low, "high": high, "verdict": verdict}
    )


def guard(
    judged: Sequence[Gate], *, move: NewDecision, back_to: ModelVersion | None, pin: Decision | None = None
) -> GuardDecision:
    """Roll back when an objective is surely missed by a version that was promoted, and there is one to go back to.

    Only the newest promotion is undone: production that a rollback put there, a person's or the guard's, stays. So does
    what a person pinned.

    Args:
        judged: The objectives over the newest windows.
        move: The decision that made the version production.
        back_to: The version that a rollback would put back.
        pin: What a person said to that, where one did.
    """
    broken = [gate.figures() for gate in judged if gate.verdict is Verdict.FAILED]
    if not broken:
        said = "; ".join(gate.figures() for gate in judged) or "nothing was measured"
        return GuardDecision(outcome=GuardOutcome.HOLD, reason=said)
    reason = "; ".join(broken)
    if held := _held(move, back_to, pin):
        return GuardDecision(outcome=GuardOutcome.HOLD, reason=f"{reason}; version {move.to_version} stays: {held}")
    return GuardDecision(outcome=GuardOutcome.ROLL_BACK, reason=reason)


def _held(move: NewDecision, back_to: ModelVersion | None, pin: Decision | None) -> str:
    """Why nothing is undone; empty when something is."""
    if pin is not None:
        return pinned_by(pin)
    if move.kind is not DecisionKind.PROMOTE:
        return f"it was put back by {move.actor}, and the guard goes no further"
    return "there is no earlier version to go back to" if back_to is None else ""


def _same(objectives: ServiceObjectives) -> GateLimit:
    return GateLimit(limit=objectives.max_same_answer, unit="ratio of different rows")


def _shift(objectives: ServiceObjectives) -> GateLimit:
    return GateLimit(limit=objectives.max_score_shift, unit="standard deviations")


def _same_answer(objectives: ServiceObjectives, facts: OutputFacts) -> Gate:
    limit = _same(objectives)
    share = wilson_interval(facts.commonest, facts.rows, level=objectives.confidence)
    gate = gates.not_surely_above("same_answer", share, limit, detail="One answer to rows that differ.")
    before = wilson_interval(facts.commonest_before, facts.rows, level=objectives.confidence)
    if before.high > limit.limit:
        return gates.inconclusive(gate, "The version before hardly tells these rows apart either.")
    return gate


def _score_shift(objectives: ServiceObjectives, facts: OutputFacts) -> Gate:
    limit, by = _shift(objectives), facts.deviation
    if by <= 0:
        nothing = "The version before gives all these rows one answer: there is nothing to measure a shift by."
        return gates.at_most("score_shift", None, limit, sample_size=facts.rows, detail=nothing)
    low, high = facts.shift.low / by, facts.shift.high / by
    scaled = replace(facts.shift, estimate=facts.shift.estimate / by, low=low, high=high)
    return gates.within("score_shift", scaled, limit, detail="From the version before, on the same rows.")
