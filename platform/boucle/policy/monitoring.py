"""Is what production sees and answers still what it was judged on? Gates over one window of served predictions.

A gate fails when drift is both sure and large enough to matter. Sure: a window without any drift fails no gate with
probability 1 - `max_false_alarms`; that probability is split over the gates (`GATE_SHARES`, Bonferroni) and, within a
gate, over the features (Holm), so it holds however they depend on each other. ADR 20.
"""

from collections.abc import Mapping
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.facts import Interval, LiveFacts
from boucle.contracts.profile import CalibrationProfile, ColumnProfile, ReferenceProfile
from boucle.contracts.verdict import Gate, Verdict
from boucle.policy import gates
from boucle.policy.inputs import input_frozen, input_missing
from boucle.policy.limits import GateLimit
from boucle.stats.calibration import calibration_gap, log_loss_increase, mean_log_loss
from boucle.stats.drift import chi_square, psi, psi_null_mean, weighted_mean
from boucle.stats.multiplicity import holm

GATE_SHARES: Mapping[str, float] = {
    "calibration_drift": 0.5,
    "score_drift": 0.1,
    "feature_drift": 0.1,
    "log_loss_drift": 0.1,
    "input_frozen": 0.1,
    "input_missing": 0.1,
}
"""What each gate may spend of `max_false_alarms`. Half is calibration's: labels are few, and it needs them most."""


class MonitoringPolicy(BaseModel):
    """Limits of drift. A gate fails only when the data shows it; too little data is inconclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window_periods: int = Field(
        default=1, ge=1, description="periods that one drift report looks back on; days hold too little for most"
    )
    min_predictions: int = Field(default=200, ge=1, description="served rows in the window, for drift of distributions")
    min_labels: int = Field(default=500, ge=2, description="served rows with mature labels, for performance")
    min_positives: int = Field(default=30, ge=1, description="positives among them; the normal interval needs so many")
    confidence: float = Field(
        default=0.95, gt=0.5, lt=1, description="coverage of the intervals that are shown and judged by no gate, ratio"
    )
    max_false_alarms: float = Field(
        default=0.01, gt=0, lt=0.5, description="ratio of windows without drift in which any gate fails, at most"
    )
    max_score_psi: float = Field(
        default=0.25, gt=0, description="PSI of the scores beyond chance; 0.25 is the usual 'large'"
    )
    max_feature_psi: float = Field(
        default=0.02,
        gt=0,
        description="importance-weighted mean PSI beyond chance; half a standard deviation is .25 times its importance",
    )
    max_column_psi: float = Field(
        default=0.1, gt=0, description="PSI beyond chance from which the report calls one column drifted; no gate"
    )
    min_variation: float = Field(
        default=0.02,
        gt=0,
        lt=1,
        description="ratio to the reference of rows without the most common value of a feature; ageing alone leaves .2",
    )
    max_missing_rise: float = Field(
        default=0.2, gt=0, lt=1, description="share of rows by which a feature may be missing more often"
    )
    max_calibration_gap: float = Field(
        default=0.005, gt=0, le=1, description="|mean score - positive rate| of mature predictions, probability"
    )
    max_log_loss_increase: float = Field(
        default=0.02, gt=0, description="nats above the log loss on the reference holdout; base rates alone move .01"
    )

    def false_alarms(self, gate: str) -> float:
        """Ratio of windows without drift in which this gate may fail."""
        return self.max_false_alarms * GATE_SHARES[gate]


def score_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """PSI of the scores against those on the reference holdout, beyond what chance explains."""
    name, limit = "score_drift", GateLimit(limit=policy.max_score_psi, unit="PSI")
    reference, current = facts.reference.score_column, facts.scores
    if current.total == 0:
        return _nothing_served(name, limit)
    alarms = policy.false_alarms(name)
    excess, noise = _excess(facts, "scores"), psi_null_mean(reference, current)
    tested = chi_square(reference, current, level=1 - alarms)
    detail = f"Beyond the {noise:.3f} that chance alone gives at this n; p = {tested.p_value:.2g}.{_left_out(facts)}"
    is_sure = tested.p_value is not None and tested.p_value <= alarms
    gate = _judged(name, excess, limit, surely=excess if is_sure else 0.0, n=current.total, detail=detail)
    if current.worth >= policy.min_predictions:
        return gate
    return gates.inconclusive(gate, f"{_worth(facts, current)}; the policy asks for {policy.min_predictions}.")


def feature_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """PSI of the features beyond chance, weighted by their importance: a column counts no more than it matters.

    Failed when those features alone exceed the limit whose drift is sure among all that matter (chi-square, Holm) and
    that are worth enough rows.
    """
    name, limit = "feature_drift", GateLimit(limit=policy.max_feature_psi, unit="PSI")
    if facts.predictions == 0 or not facts.features:
        return _nothing_served(name, limit)
    excess = {feature: _excess(facts, feature) for feature in facts.features}
    weights = facts.reference.importance
    sure = surely_drifted(facts, policy.false_alarms(name)) & _enough(policy, facts)
    largest = max(excess, key=lambda feature: weights[feature] * excess[feature])
    gate = _judged(
        name,
        weighted_mean(excess, weights),
        limit,
        surely=weighted_mean({key: excess[key] if key in sure else 0.0 for key in excess}, weights) or 0.0,
        n=facts.predictions,
        detail=f"Weighted by importance, beyond chance; {len(sure)} of {len(excess)} features surely drifted, "
        f"{largest} counts most with {excess[largest]:.3f} at weight {weights[largest]:.2f}.{_left_out(facts)}",
    )
    return _with_enough_of_each(policy, facts, gate)


def calibration_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Mean score - positive rate of the predictions whose labels are mature, in both directions."""
    name, limit = "calibration_drift", GateLimit(limit=policy.max_calibration_gap, unit="probability")
    if facts.outcomes is None or facts.outcomes.entities < 2:
        return _no_labels(name, limit)
    gap = calibration_gap(facts.outcomes, level=1 - policy.false_alarms(name))
    return _with_enough_labels(policy, facts, gates.within(name, gap, limit))


def log_loss_drift(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Log loss of mature predictions minus that of the reference; failed if its whole interval is above the limit."""
    name, limit = "log_loss_drift", GateLimit(limit=policy.max_log_loss_increase, unit="nats")
    if facts.outcomes is None or facts.outcomes.entities < 2:
        return _no_labels(name, limit)
    increase = _increase(facts.outcomes, facts.reference, level=1 - policy.false_alarms(name))
    now = increase.estimate + facts.reference.log_loss
    detail = f"Log loss {now:.4f}, on the reference holdout {facts.reference.log_loss:.4f} nats."
    return _with_enough_labels(policy, facts, gates.not_surely_above(name, increase, limit, detail=detail))


def frozen(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Whether every feature still takes more than one value: the least variation left of any, against its reference."""
    limit = GateLimit(limit=policy.min_variation, unit="ratio")
    gate = input_frozen(_known(policy, facts), limit, alarms=policy.false_alarms("input_frozen"))
    return _with_enough_of_each(policy, facts, gate)


def missing(policy: MonitoringPolicy, facts: LiveFacts) -> Gate:
    """Whether any feature is missing more often than on the reference: the largest rise of any."""
    limit = GateLimit(limit=policy.max_missing_rise, unit="share of rows")
    gate = input_missing(_known(policy, facts), limit, alarms=policy.false_alarms("input_missing"))
    return _with_enough_of_each(policy, facts, gate)


def drift_gates(policy: MonitoringPolicy, facts: LiveFacts) -> tuple[Gate, ...]:
    """Every drift gate of one window."""
    checks = (calibration_drift, score_drift, feature_drift, log_loss_drift, frozen, missing)
    return tuple(check(policy, facts) for check in checks)


def surely_drifted(facts: LiveFacts, alarms: float) -> frozenset[str]:
    """Features whose drift is sure among all that the production version makes use of (Holm 1979)."""
    p_values = {
        name: chi_square(reference, facts.features[name], level=1 - alarms).p_value
        for name, reference in facts.reference.columns.items()
        if facts.reference.importance[name] > 0 and name in facts.features
    }
    return holm({name: p for name, p in p_values.items() if p is not None}, level=alarms)


def _excess(facts: LiveFacts, column: str) -> float:
    """PSI of a column beyond its expectation without drift; never below 0."""
    if column == "scores":
        reference, current = facts.reference.score_column, facts.scores
    else:
        reference, current = facts.reference.columns[column], facts.features[column]
    return max(0.0, psi(reference, current) - psi_null_mean(reference, current))


def _increase(known: CalibrationProfile, reference: ReferenceProfile, *, level: float) -> Interval:
    """References of earlier releases do not know how uncertain their own log loss is: it is taken as it is then."""
    if reference.outcomes is not None:
        return log_loss_increase(known, reference.outcomes, level=level)
    now, then = mean_log_loss(known, level=level), reference.log_loss
    return Interval(
        estimate=now.estimate - then,
        low=now.low - then,
        high=now.high - then,
        sample_size=now.sample_size,
        entities=now.entities,
    )


def _judged(name: str, measured: float | None, limit: GateLimit, *, surely: float, n: int, detail: str) -> Gate:
    gate = gates.at_most(name, measured, limit, sample_size=n, detail=detail)
    if gate.verdict is Verdict.FAILED and surely <= limit.limit:
        return gates.inconclusive(gate, f"{detail} It may be chance.")
    return gate


def _nothing_served(name: str, limit: GateLimit) -> Gate:
    return gates.at_most(name, None, limit, sample_size=0, detail="Nothing was served in this window.")


def _no_labels(name: str, limit: GateLimit) -> Gate:
    return gates.at_most(name, None, limit, sample_size=0, detail="No label of a served row is mature yet.")


def _enough(policy: MonitoringPolicy, facts: LiveFacts) -> frozenset[str]:
    """The features that are worth as many rows of different entities as the policy asks for."""
    return frozenset(name for name, column in facts.features.items() if column.worth >= policy.min_predictions)


def _known(policy: MonitoringPolicy, facts: LiveFacts) -> LiveFacts:
    """The window with the features that are worth enough; with all where none is, to show what was measured."""
    enough = _enough(policy, facts)
    return replace(facts, features={name: facts.features[name] for name in enough or facts.features})


def _with_enough_of_each(policy: MonitoringPolicy, facts: LiveFacts, gate: Gate) -> Gate:
    """The gate of the features: what those that are worth enough show holds, but all that carry weight must pass."""
    enough = _enough(policy, facts)
    weighty = [name for name in facts.features if facts.reference.importance[name] > 0] or list(facts.features)
    few = [name for name in weighty if name not in enough]
    if gate.measured is None or not few or (gate.verdict is Verdict.FAILED and enough):
        return gate
    least = min(few, key=lambda name: facts.features[name].worth)
    said = f"{least}: {_worth(facts, facts.features[least])}; the policy asks for {policy.min_predictions}."
    return gates.inconclusive(gate, said)


def _worth(facts: LiveFacts, column: ColumnProfile) -> str:
    said = f"{facts.predictions} predictions"
    return f"{said}, worth {column.worth:.0f} of different entities" if column.worth < facts.predictions else said


def _left_out(facts: LiveFacts) -> str:
    """How many rows count for nothing, as one more sentence; empty where all count."""
    beyond = facts.predictions - facts.scores.total
    if beyond <= 0:
        return ""
    return f" {beyond} of {facts.predictions} rows are left out: they are beyond the share of one entity."


def _with_enough_labels(policy: MonitoringPolicy, facts: LiveFacts, gate: Gate) -> Gate:
    known = facts.outcomes
    labels, positives = (known.rows, sum(known.positives)) if known else (0, 0)
    if labels < policy.min_labels:
        return gates.inconclusive(gate, f"{labels} mature labels; the policy asks for {policy.min_labels}.")
    if positives < policy.min_positives:
        return gates.inconclusive(gate, f"{positives} positives; the policy asks for {policy.min_positives}.")
    return gate
