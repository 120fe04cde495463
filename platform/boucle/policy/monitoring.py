"""Is what production sees and answers still what it was judged on? Gates over one window of served predictions."""

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.facts import LiveFacts
from boucle.contracts.profile import Histogram
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.policy import gates
from boucle.policy.limits import GateLimit
from boucle.stats.drift import psi, psi_null_quantile, weighted_mean


class MonitoringPolicy(BaseModel):
    """Limits of drift. A gate fails only when the data shows it; too little data is inconclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_periods: int = Field(
        default=1, ge=1, description="periods that one drift report looks back on; days hold too little for most"
    )
    min_predictions: int = Field(default=500, ge=1, description="served rows in the window, for drift of distributions")
    min_labels: int = Field(default=500, ge=2, description="served rows with mature labels, for performance")
    min_positives: int = Field(default=30, ge=1, description="positives among them; the normal interval needs so many")
    max_score_psi: float = Field(
        default=0.25, gt=0, description="PSI of the scores; 0.25 is the usual 'large', a cohort that ages reaches 0.4"
    )
    max_feature_psi: float = Field(
        default=1.0, gt=0, description="importance-weighted mean PSI; an ageing column alone reaches 3, harmlessly"
    )
    max_calibration_gap: float = Field(
        default=0.005, gt=0, le=1, description="|mean score - positive rate| of mature predictions, probability"
    )
    max_log_loss_increase: float = Field(
        default=0.02, gt=0, description="nats above the log loss on the reference holdout; base rates alone move .01"
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="coverage of the intervals, ratio")
    null_level: float = Field(default=0.99, gt=0.5, lt=1, description="quantile of PSI without drift, ratio")


def score_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """PSI of the scores against those on the reference holdout."""
    reference, current = facts.reference.scores, facts.scores
    if current.total == 0:
        return _nothing_served("score_drift", policy.max_score_psi)
    gate = gates.at_most(
        "score_drift", psi(reference, current), _psi_limit(policy.max_score_psi), sample_size=current.total
    )
    noise = psi_null_quantile(reference, current, level=policy.null_level)
    if noise > policy.max_score_psi:
        return gates.inconclusive(gate, f"Without any drift a window this small reaches {noise:.3f}.")
    return _with_enough_predictions(policy, facts, gate)


def feature_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """PSI of the features, weighted by their importance: one column that ages does not count more than it matters."""
    if facts.predictions == 0 or not facts.features:
        return _nothing_served("feature_drift", policy.max_feature_psi)
    values = feature_psi(facts)
    largest = max(values, key=lambda name: values[name])
    gate = gates.at_most(
        "feature_drift",
        weighted_mean(values, facts.reference.importance),
        _psi_limit(policy.max_feature_psi),
        sample_size=facts.predictions,
        detail=f"Weighted by importance; the largest is {largest} with {values[largest]:.3f}.",
    )
    return _with_enough_predictions(policy, facts, gate)


def calibration_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Mean score - positive rate of the predictions whose labels are mature, in both directions."""
    if facts.calibration is None:
        return _no_labels("calibration_drift", policy.max_calibration_gap, "probability")
    limit = GateLimit(limit=policy.max_calibration_gap, unit="probability")
    gate = gates.within("calibration_drift", facts.calibration, limit)
    return _with_enough_labels(policy, facts, gate, labels=facts.calibration.sample_size)


def log_loss_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Log loss of mature predictions minus that of the reference; failed if its whole interval is above the limit."""
    if facts.log_loss is None:
        return _no_labels("log_loss_drift", policy.max_log_loss_increase, "nats")
    reference = facts.reference.log_loss
    low, high = facts.log_loss.low - reference, facts.log_loss.high - reference
    increase = facts.log_loss.estimate - reference
    verdict = Verdict.PASSED if increase <= policy.max_log_loss_increase else Verdict.INCONCLUSIVE
    gate = Gate(
        name="log_loss_drift",
        verdict=Verdict.FAILED if low > policy.max_log_loss_increase else verdict,
        measured=increase,
        bound=Bound.AT_MOST,
        limit=policy.max_log_loss_increase,
        unit="nats",
        sample_size=facts.log_loss.sample_size,
        low=low,
        high=high,
        detail=f"Log loss {facts.log_loss.estimate:.4f}, on the reference holdout {reference:.4f} nats.",
    )
    return _with_enough_labels(policy, facts, gate, labels=facts.log_loss.sample_size)


def drift_gates(policy: MonitoringPolicy, facts: LiveFacts) -> tuple[Gate, ...]:
    """Every drift gate of one window."""
    return tuple(check(policy, facts) for check in (calibration_drift, score_drift, feature_drift, log_loss_drift))


def feature_psi(facts: LiveFacts) -> dict[str, float]:
    """PSI of each feature of the window against the reference."""
    return {
        name: psi(facts.reference.features[name], current) for name, current in facts.features.items() if _any(current)
    }


def _psi_limit(limit: float) -> GateLimit:
    return GateLimit(limit=limit, unit="PSI")


def _any(histogram: Histogram) -> bool:
    return histogram.total > 0


def _nothing_served(name: str, limit: float) -> Gate:
    return gates.at_most(name, None, _psi_limit(limit), sample_size=0, detail="Nothing was served in this window.")


def _no_labels(name: str, limit: float, unit: str) -> Gate:
    asked = GateLimit(limit=limit, unit=unit)
    return gates.at_most(name, None, asked, sample_size=0, detail="No label of a served row is mature yet.")


def _with_enough_predictions(policy: MonitoringPolicy, facts: LiveFacts, gate: Gate) -> Gate:
    if facts.predictions >= policy.min_predictions:
        return gate
    return gates.inconclusive(gate, f"{facts.predictions} predictions; the policy asks for {policy.min_predictions}.")


def _with_enough_labels(policy: MonitoringPolicy, facts: LiveFacts, gate: Gate, *, labels: int) -> Gate:
    if labels < policy.min_labels:
        return gates.inconclusive(gate, f"{labels} mature labels; the policy asks for {policy.min_labels}.")
    if facts.positives < policy.min_positives:
        return gates.inconclusive(gate, f"{facts.positives} positives; the policy asks for {policy.min_positives}.")
    return gate
