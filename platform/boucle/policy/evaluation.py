"""The gates of an evaluation: what was measured of a candidate meets the limits of the policy."""

from collections.abc import Callable

from boucle.contracts.bundle import BundleContract
from boucle.contracts.facts import EvaluationFacts
from boucle.contracts.verdict import Gate, GateMode
from boucle.policy import gates
from boucle.policy.candidate import CANDIDATE_MEANINGS, TRAINING_MEANINGS
from boucle.policy.limits import PromotionPolicy
from boucle.policy.signature import schema_differences

Check = Callable[[PromotionPolicy, EvaluationFacts], Gate]


def quality_floor(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The candidate's log loss, as a ratio of the baseline's, is at most its limit."""
    gate = gates.at_most(
        "quality_floor",
        facts.candidate.log_loss / facts.baseline.log_loss,
        policy.gates.quality_floor,
        sample_size=facts.rows,
        detail=f"Log loss {facts.candidate.log_loss:.4f}, base rate alone {facts.baseline.log_loss:.4f} nats.",
    )
    return _with_enough_rows(policy, facts, gate)


def brier_floor(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The candidate's Brier score, as a ratio of the baseline's, is at most its limit."""
    gate = gates.at_most(
        "brier_floor",
        facts.candidate.brier / facts.baseline.brier,
        policy.gates.brier_floor,
        sample_size=facts.rows,
        detail=f"Brier score {facts.candidate.brier:.4f}, base rate alone {facts.baseline.brier:.4f}.",
    )
    return _with_enough_rows(policy, facts, gate)


def auc_floor(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The candidate ranks better than a floor far below what is usual: a guard against nonsense, not a contest."""
    gate = gates.at_least("auc_floor", facts.candidate.auc, policy.gates.auc_floor, sample_size=facts.rows)
    return _with_enough_rows(policy, facts, gate)


def no_regression(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """With [L, U] around loss(reference) - loss(candidate): L >= limit passed, U < limit failed, else inconclusive."""
    detail = (
        f"Log loss gained against {_reference(facts)}; {policy.confidence:.0%} interval over {facts.gain.entities} "
        "entities."
    )
    gate = gates.surely_at_least("no_regression", facts.gain, policy.gates.no_regression, detail=detail)
    return _with_enough_rows(policy, facts, gate)


def expected_cost(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """As `no_regression`, of what the decisions cost that the scores lead to; asked where a cost matrix is declared."""
    declared = policy.gates.expected_cost
    if facts.cost_gain is None or policy.costs is None:
        return gates.at_least("expected_cost", None, declared, sample_size=0, detail="No cost matrix was measured by.")
    costs = policy.costs
    detail = (
        f"Cost gained against {_reference(facts)} by acting from a score of {costs.threshold:.3g} on. "
        f"In {costs.unit}: {costs.false_positive:g} a false positive, {costs.false_negative:g} a false negative."
    )
    gate = gates.surely_at_least("expected_cost", facts.cost_gain, declared, detail=detail)
    return _with_enough_rows(policy, facts, gate)


def slices(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """No slice of the rows lost more than its limit: the worst one shows, and all intervals together hold at 95 %.

    Failed when some slice is surely below the limit, inconclusive when only its estimate is.
    """
    limit = policy.gates.slices
    apart = facts.slices
    if not apart.judged:
        detail = f"None of {apart.small} slices has {policy.slicing.min_rows} rows."
        return gates.at_least("slices", None, limit, sample_size=0, detail=detail)
    surely = [found for found in apart.judged if found.gain.high < limit.limit]
    found = min(surely or apart.judged, key=lambda one: one.gain.estimate)
    detail = (
        f"{found.name}: the worst of {len(apart.judged)} slices against {_reference(facts)}; {apart.small} with fewer "
        f"than {policy.slicing.min_rows} rows are not judged. Each interval covers {apart.level:.2%} (Bonferroni)."
    )
    gate = gates.not_surely_below("slices", found.gain, limit, detail=detail)
    return _with_enough_rows(policy, facts, gate)


def signature(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Features are those that the schema declares; callers ask and read as they do with production.

    Callers name an entity and read an output: which features are looked up for that is the version's own affair.
    """
    problems = schema_differences(facts.contract, facts.declared)
    if facts.served is not None:
        problems += _differences_for_callers(facts.contract, facts.served)
    return gates.at_most(
        "signature",
        float(len(problems)),
        policy.gates.signature,
        sample_size=len(facts.contract.features),
        detail=("; ".join(problems) + ".") if problems else "",
    )


def output_sanity(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Every score is a number in [0, 1], and they are not all the same."""
    scores = facts.scores
    constant = scores.spread == 0
    useless = scores.rows if constant else scores.not_a_number + scores.outside
    detail = f"{scores.not_a_number} not a number, {scores.outside} outside [0, 1]." if useless else ""
    if constant:
        detail = f"All usable scores are equal. {detail}"
    return gates.at_most(
        "output_sanity", float(useless), policy.gates.output_sanity, sample_size=scores.rows, detail=detail
    )


def mean_score_plausible(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Mean score and positive rate are of the same order of magnitude."""
    rate = facts.positives / facts.rows if facts.rows else 0.0
    mean = facts.candidate.mean_score
    ratio = max(mean / rate, rate / mean) if rate > 0 and mean > 0 else None
    gate = gates.at_most(
        "mean_score_plausible",
        ratio,
        policy.gates.mean_score_plausible,
        sample_size=facts.rows,
        detail=f"Mean score {mean:.4f}, positive rate {rate:.4f}.",
    )
    return _with_enough_rows(policy, facts, gate)


def score_shift(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Scores are distributed about as those of production on the same rows; of a first version, as in training."""
    against = (
        "those of production on the same rows"
        if facts.production is not None
        else "its own on rows of the training set, as there is no production version"
    )
    gate = gates.at_most(
        "score_shift",
        facts.score_shift,
        policy.gates.score_shift,
        sample_size=facts.rows,
        detail=f"Wasserstein distance of the scores from {against}.",
    )
    return _with_enough_rows(policy, facts, gate)


def calibration(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Mean score - positive rate is within its limit in both directions."""
    return _with_enough_rows(policy, facts, gates.within("calibration", facts.calibration, policy.gates.calibration))


def robustness(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Every answer is a probability where values are missing, at the ends of their range, or far beyond it."""
    found = facts.robustness
    return gates.at_most("robustness", float(found.useless), policy.gates.robustness, sample_size=found.rows)


def missing_feature(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Without the feature whose absence costs most, the candidate is not much worse than the base rate."""
    found = facts.robustness
    gate = gates.at_most(
        "missing_feature",
        found.worst_missing_ratio,
        policy.gates.missing_feature,
        sample_size=found.missing_rows,
        detail=f"Log loss over that of the base rate, with {found.worst_missing} missing in every row.",
    )
    return _with_enough_rows(policy, facts, gate)


def latency(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Single rows are answered by the exported model in time."""
    return gates.at_most(
        "latency",
        facts.latency.p99_ms,
        policy.gates.latency,
        sample_size=facts.latency.requests,
        detail=f"99th percentile; the median is {facts.latency.median_ms:.4f} ms.",
    )


def api_invariants(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The serving app loads the bundle by its digest and answers the recorded requests, and wrong ones, as promised."""
    api = facts.api
    return gates.at_most(
        "api_invariants",
        float(len(api.violations)),
        policy.gates.api_invariants,
        sample_size=api.requests,
        detail="; ".join(api.violations[:5]) + "." if api.violations else "",
    )


def api_latency(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The serving app with the candidate's bundle answers over HTTP in time."""
    return gates.at_most(
        "api_latency",
        facts.api.p99_ms,
        policy.gates.api_latency,
        sample_size=facts.api.timed,
        detail="99th percentile of one caller's requests on this machine.",
    )


_CHECKS: tuple[Check, ...] = (
    quality_floor,
    brier_floor,
    auc_floor,
    no_regression,
    expected_cost,
    slices,
    signature,
    output_sanity,
    mean_score_plausible,
    score_shift,
    calibration,
    robustness,
    missing_feature,
    latency,
    api_invariants,
    api_latency,
)
MEANINGS = {check.__name__: (check.__doc__ or "").partition("\n")[0] for check in _CHECKS}
"""The gates of an evaluation, in order, and what each asks in one sentence."""


def evaluate_gates(policy: PromotionPolicy, facts: EvaluationFacts) -> tuple[Gate, ...]:
    """Every gate that the policy asks of an evaluation, in order; one that is switched off says only that."""
    judged = set(judged_gates(policy))
    return tuple(
        gates.in_mode(check(policy, facts), policy.gates.of(check.__name__).mode)
        for check in _CHECKS
        if check.__name__ in judged
    )


def judged_gates(policy: PromotionPolicy) -> tuple[str, ...]:
    """Names of the gates of an evaluation, in order."""
    return tuple(name for name in MEANINGS if name != "expected_cost" or policy.costs is not None)


def blocking_gates(policy: PromotionPolicy) -> tuple[str, ...]:
    """Those of them that must pass."""
    return tuple(name for name in judged_gates(policy) if policy.gates.of(name).mode is GateMode.BLOCK)


def required_gates(policy: PromotionPolicy) -> tuple[str, ...]:
    """Every gate that the evidence for a promotion must hold: of training set, candidate and evaluation."""
    return (*TRAINING_MEANINGS, *CANDIDATE_MEANINGS, *judged_gates(policy))


def _reference(facts: EvaluationFacts) -> str:
    return "production" if facts.production is not None else "the baseline, as there is no production version"


def _with_enough_rows(policy: PromotionPolicy, facts: EvaluationFacts, gate: Gate) -> Gate:
    if facts.rows >= policy.min_rows and facts.positives >= policy.min_positives:
        return gate
    return gates.inconclusive(
        gate,
        f"The holdout has {facts.rows} rows with {facts.positives} positives; the policy asks for at least "
        f"{policy.min_rows} and {policy.min_positives}.",
    )


def _differences_for_callers(contract: BundleContract, served: BundleContract) -> list[str]:
    """What a caller of production would notice, in words."""
    found = []
    if contract.entity != served.entity:
        found.append(f"the entity is '{contract.entity}', production has '{served.entity}'")
    if contract.output != served.output:
        found.append(f"the answer is '{contract.output.description}', production has '{served.output.description}'")
    return found
