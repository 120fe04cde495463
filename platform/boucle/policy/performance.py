"""Is live performance within tolerance, and may it be estimated where there are no labels yet?"""

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.facts import Interval
from boucle.contracts.performance import Measured, Metric, Performance, PerformanceReference
from boucle.contracts.verdict import Gate, Verdict
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.policy.monitoring import MonitoringPolicy

LOSS, CALIBRATION = "log_loss_within_tolerance", "calibration_within_tolerance"
NO_LABEL = "No label of production's answers is mature in this window."


class PerformancePolicy(BaseModel):
    """When there are enough labels to show a metric, and when an estimate is worth something.

    The tolerances are those of `monitoring`: `max_log_loss_increase`, `max_calibration_gap`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_labels: int = Field(default=30, ge=2, description="mature labels of a version, an arm or a slice")
    min_positives: int = Field(
        default=10,
        ge=2,
        description="labels of either kind among them, known or expected; fewer make no interval",
    )
    estimate: bool = Field(default=True, description="whether performance is estimated where labels are not mature")
    min_matured: float = Field(
        default=0.8, gt=0, le=1, description="share of outcomes known from which an estimate is held against them"
    )
    max_slope_change: float = Field(
        default=1.25,
        gt=1,
        description="factor between what logits say and what they mean beyond which nothing is estimated; "
        "1.25 either way moves an AUC of .8 by .04",
    )


@dataclass(frozen=True, kw_only=True)
class MatureGates:
    """What the newest mature predictions say of the probabilities that estimates are made of."""

    calibration: Gate
    slope: Gate
    error: Gate

    def failed(self) -> tuple[Gate, ...]:
        """Those that failed; one that is inconclusive holds nobody back."""
        return tuple(gate for gate in (self.calibration, self.slope, self.error) if gate.verdict is Verdict.FAILED)


def performance_gates(
    policy: MonitoringPolicy, production: Performance | None, reference: PerformanceReference | None
) -> tuple[Gate, ...]:
    """Log loss above that on the holdout, and calibration, of production in one window.

    Failed if the whole interval is beyond the limit, inconclusive without enough labels.
    """
    return _loss_gate(policy, production, reference), _calibration_gate(policy, production)


def calibration_of_probabilities(policy: MonitoringPolicy, gap: Interval | None) -> Gate:
    """Whether the probabilities that estimates are made of meant what they said, on the newest mature predictions."""
    return _of_mature("estimate_calibration", gap, GateLimit(limit=policy.max_calibration_gap, unit="probability"))


def slope_of_probabilities(policy: PerformancePolicy, slope: Interval | None) -> Gate:
    """Whether higher probabilities are still as much likelier as they say: 1 if so, 0 where they rank nothing.

    The mean gap cannot see that: scores that no longer rank are right on average.
    """
    most = GateLimit(limit=policy.max_slope_change, unit="logit a logit")
    least = most.model_copy(update={"limit": 1 / policy.max_slope_change})
    if slope is None:
        few = "Too few mature labels of either kind, or scores that part them without an error or hardly differ."
        return gates.at_least("estimate_slope", None, least, sample_size=0, detail=few)
    if slope.estimate < 1:
        return gates.not_surely_below("estimate_slope", slope, least)
    return gates.not_surely_above("estimate_slope", slope, most)


def error_of_estimate(policy: MonitoringPolicy, error: Interval | None) -> Gate:
    """Whether the log loss estimated of the newest mature predictions is what it came to be: estimated - realised.

    Past errors as they were recorded would not do: after a refusal there is none any more that could end it.
    """
    return _of_mature("estimate_error", error, GateLimit(limit=policy.max_log_loss_increase, unit="nats"))


def why_not_estimated(
    policy: PerformancePolicy, reference: PerformanceReference | None, judged: Gate | None, mature: MatureGates
) -> str:
    """Why calibrated scores promise nothing here; empty where they may be asked.

    Args:
        policy: Of the model.
        reference: What was learnt from the version's holdout; None where its rows are gone.
        judged: The gate `calibration` of the version's evaluation; None where it was not evaluated.
        mature: What the newest mature predictions say; without labels they hold nobody back.
    """
    if not policy.estimate:
        return "Switched off in defs.yaml (`performance.estimate`)."
    if nothing := _nothing_learnt(reference):
        return nothing
    if judged is not None and judged.verdict is Verdict.FAILED:
        return f"Calibration did not hold on the version's holdout: {judged.figures()}."
    if failed := mature.failed():
        figures = "; ".join(gate.figures() for gate in failed)
        return f"Calibration does not hold on the newest mature predictions: {figures}."
    return ""


def _of_mature(name: str, found: Interval | None, limit: GateLimit) -> Gate:
    if found is None:
        return gates.at_most(name, None, limit, sample_size=0, detail="Too few labels are mature.")
    return gates.within(name, found, limit)


def _nothing_learnt(reference: PerformanceReference | None) -> str:
    if reference is None:
        return "The rows of the version's holdout are not there, so nobody knows what its scores mean."
    if reference.recalibration is None:
        return (
            "The version's holdout has too few labels of either kind, or scores that part them without an error or "
            "hardly differ: what they mean cannot be learnt."
        )
    slope, spread = reference.recalibration.slope, reference.recalibration.covariance[1][1] ** 0.5
    if slope - 2 * spread <= 0:
        return f"On the version's holdout higher scores are not surely likelier (slope {slope:.3g} ± {2 * spread:.3g})."
    return ""


def _loss_gate(
    policy: MonitoringPolicy, production: Performance | None, reference: PerformanceReference | None
) -> Gate:
    limit = GateLimit(limit=policy.max_log_loss_increase, unit="nats")
    found = None if production is None else production.metrics[Metric.LOG_LOSS]
    if production is None or found is None or reference is None:
        return gates.at_most(LOSS, None, limit, sample_size=0, detail=_why_nothing(production, reference))
    held = reference.log_loss
    above = _interval(
        production,
        found.model_copy(
            update={
                "estimate": found.estimate - held,
                "low": found.low - held,
                "high": found.high - held,
            }
        ),
    )
    detail = f"Log loss {found.estimate:.4f}, on the holdout {held:.4f} nats."
    return _with_enough(policy, production, gates.not_surely_above(LOSS, above, limit, detail=detail))


def _calibration_gate(policy: MonitoringPolicy, production: Performance | None) -> Gate:
    limit = GateLimit(limit=policy.max_calibration_gap, unit="probability")
    found = None if production is None else production.metrics[Metric.CALIBRATION]
    if production is None or found is None:
        return gates.at_most(CALIBRATION, None, limit, sample_size=0, detail=_why_nothing(production, None))
    return _with_enough(policy, production, gates.within(CALIBRATION, _interval(production, found), limit))


def _why_nothing(production: Performance | None, reference: PerformanceReference | None) -> str:
    if production is None:
        return NO_LABEL
    return production.note or ("" if reference else "The rows of production's holdout are not there.")


def _interval(row: Performance, found: Measured) -> Interval:
    return Interval(
        estimate=found.estimate, low=found.low, high=found.high, sample_size=row.predictions, entities=row.entities
    )


def _with_enough(policy: MonitoringPolicy, row: Performance, gate: Gate) -> Gate:
    if row.predictions < policy.min_labels:
        return gates.inconclusive(gate, f"{row.predictions} mature labels; the policy asks for {policy.min_labels}.")
    if row.positives < policy.min_positives:
        return gates.inconclusive(gate, f"{row.positives} positives; the policy asks for {policy.min_positives}.")
    return gate
