"""Is live performance within tolerance, and may it be estimated where there are no labels yet?"""

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


def performance_gates(
    policy: MonitoringPolicy, production: Performance | None, reference: PerformanceReference | None
) -> tuple[Gate, ...]:
    """Log loss above that on the holdout, and calibration, of production in one window.

    Failed if the whole interval is beyond the limit, inconclusive without enough labels.
    """
    return _loss_gate(policy, production, reference), _calibration_gate(policy, production)


def calibration_of_probabilities(policy: MonitoringPolicy, gap: Interval | None) -> Gate:
    """Whether the probabilities that estimates are made of meant what they said, on the newest mature predictions."""
    limit = GateLimit(limit=policy.max_calibration_gap, unit="probability")
    if gap is None:
        return gates.at_most("estimate_calibration", None, limit, sample_size=0, detail="No label is mature yet.")
    return gates.within("estimate_calibration", gap, limit)


def why_not_estimated(
    policy: PerformancePolicy, reference: PerformanceReference | None, judged: Gate | None, mature: Gate
) -> str:
    """Why calibrated scores promise nothing here; empty where they may be asked.

    Args:
        policy: Of the model.
        reference: What was learnt from the version's holdout; None where its rows are gone.
        judged: The gate `calibration` of the version's evaluation; None where it was not evaluated.
        mature: The gate of `calibration_of_probabilities`; without mature labels it holds nobody back.
    """
    if not policy.estimate:
        return "Switched off in defs.yaml (`performance.estimate`)."
    if nothing := _nothing_learnt(reference):
        return nothing
    if judged is not None and judged.verdict is Verdict.FAILED:
        return f"Calibration did not hold on the version's holdout: {judged.figures()}."
    if mature.verdict is Verdict.FAILED:
        return f"Calibration does not hold on the newest mature predictions: {mature.figures()}."
    return ""


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
