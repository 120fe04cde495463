"""May this candidate become production? Gates over facts, and the decision over gates."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.bundle import BundleContract
from boucle.contracts.evidence import Evidence
from boucle.contracts.facts import EvaluationFacts
from boucle.contracts.ids import ModelVersion, version_text
from boucle.contracts.verdict import Bound, Gate, Verdict, overall
from boucle.policy import gates
from boucle.policy.approval import AGREED, ApprovalPolicy, Consent, PromotionMode, Standing
from boucle.policy.candidate import CANDIDATE_MEANINGS, TRAINING_MEANINGS


class PromotionPolicy(BaseModel):
    """The limits of a promotion. The limit itself passes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: PromotionMode = PromotionMode.AUTOMATIC
    approval: ApprovalPolicy = ApprovalPolicy()
    min_rows: int = Field(
        default=2_000, ge=2, description="holdout rows; with fewer, differences of .005 nats drown in noise"
    )
    min_positives: int = Field(default=100, ge=1, description="positive holdout labels; the log loss hangs on them")
    max_log_loss_ratio: float = Field(
        default=0.98, gt=0, description="log loss over that of the base rate; 1 is knowing nothing of the entity"
    )
    min_auc: float = Field(default=0.6, ge=0, le=1, description="share of pairs ranked right; 0.5 is chance")
    min_gain: float = Field(
        default=0.0,
        description="nats of log loss below the reference, at the lower end of the interval; 0: surely not worse",
    )
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="coverage of the intervals, ratio")
    max_calibration_gap: float = Field(
        default=0.03, gt=0, le=1, description="|mean score - positive rate|; demand alone moves it by .02 in a month"
    )
    max_mean_score_ratio: float = Field(
        default=2.0, gt=1, description="mean score over positive rate or its inverse; beyond it, units are mixed up"
    )
    max_latency_p99_ms: float = Field(
        default=5.0,
        gt=0,
        description="milliseconds a single row, 99th percentile; trees take 0.02, and machines are shared",
    )


Check = Callable[[PromotionPolicy, EvaluationFacts], Gate]


def quality_floor(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The candidate's log loss, as a ratio of the baseline's, is at most its limit."""
    gate = gates.at_most(
        "quality_floor",
        facts.candidate.log_loss / facts.baseline.log_loss,
        policy.max_log_loss_ratio,
        unit="ratio",
        sample_size=facts.rows,
        detail=f"Log loss {facts.candidate.log_loss:.4f}, base rate alone {facts.baseline.log_loss:.4f} nats.",
    )
    return _with_enough_rows(policy, facts, gate)


def auc_floor(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """The candidate ranks better than a floor far below what is usual: a guard against nonsense, not a contest."""
    gate = gates.at_least("auc_floor", facts.candidate.auc, policy.min_auc, unit="ratio", sample_size=facts.rows)
    return _with_enough_rows(policy, facts, gate)


def no_regression(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """With [L, U] around loss(reference) - loss(candidate): L >= limit passed, U < limit failed, else inconclusive."""
    gain = facts.gain
    if gain.low >= policy.min_gain:
        verdict = Verdict.PASSED
    elif gain.high < policy.min_gain:
        verdict = Verdict.FAILED
    else:
        verdict = Verdict.INCONCLUSIVE
    against = "production" if facts.production is not None else "the baseline, as there is no production version"
    gate = Gate(
        name="no_regression",
        verdict=verdict,
        measured=gain.estimate,
        bound=Bound.AT_LEAST,
        limit=policy.min_gain,
        unit="nats",
        sample_size=gain.sample_size,
        low=gain.low,
        high=gain.high,
        detail=f"Log loss gained against {against}; {policy.confidence:.0%} interval over {gain.entities} entities.",
    )
    return _with_enough_rows(policy, facts, gate)


def signature(_: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Features are those that the schema declares; callers ask and read as they do with production.

    Callers name an entity and read an output: which features are looked up for that is the version's own affair.
    """
    problems = _differences(facts.contract, facts.declared)
    if facts.served is not None:
        problems += _differences_for_callers(facts.contract, facts.served)
    return gates.at_most(
        "signature",
        float(len(problems)),
        0.0,
        unit="differences",
        sample_size=len(facts.contract.features),
        detail=("; ".join(problems) + ".") if problems else "",
    )


def output_sanity(_: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Every score is a number in [0, 1], and they are not all the same."""
    scores = facts.scores
    constant = scores.spread == 0
    useless = scores.rows if constant else scores.not_a_number + scores.outside
    detail = f"{scores.not_a_number} not a number, {scores.outside} outside [0, 1]." if useless else ""
    if constant:
        detail = f"All usable scores are equal. {detail}"
    return gates.at_most(
        "output_sanity", float(useless), 0.0, unit="useless scores", sample_size=scores.rows, detail=detail
    )


def mean_score_plausible(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Mean score and positive rate are of the same order of magnitude."""
    rate = facts.positives / facts.rows if facts.rows else 0.0
    mean = facts.candidate.mean_score
    ratio = max(mean / rate, rate / mean) if rate > 0 and mean > 0 else None
    gate = gates.at_most(
        "mean_score_plausible",
        ratio,
        policy.max_mean_score_ratio,
        unit="ratio",
        sample_size=facts.rows,
        detail=f"Mean score {mean:.4f}, positive rate {rate:.4f}.",
    )
    return _with_enough_rows(policy, facts, gate)


def calibration(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Mean score - positive rate is within its limit in both directions."""
    gate = gates.within("calibration", facts.calibration, policy.max_calibration_gap, unit="probability")
    return _with_enough_rows(policy, facts, gate)


def latency(policy: PromotionPolicy, facts: EvaluationFacts) -> Gate:
    """Single rows are answered by the exported model in time."""
    return gates.at_most(
        "latency",
        facts.latency.p99_ms,
        policy.max_latency_p99_ms,
        unit="ms",
        sample_size=facts.latency.requests,
        detail=f"99th percentile; the median is {facts.latency.median_ms:.4f} ms.",
    )


_CHECKS: tuple[Check, ...] = (
    quality_floor,
    auc_floor,
    no_regression,
    signature,
    output_sanity,
    mean_score_plausible,
    calibration,
    latency,
)
GATES = tuple(check.__name__ for check in _CHECKS)
"""Names of the gates of an evaluation, in order."""
MEANINGS = {check.__name__: (check.__doc__ or "").partition("\n")[0] for check in _CHECKS}
"""What each gate asks, in one sentence."""
REQUIRED = (*TRAINING_MEANINGS, *CANDIDATE_MEANINGS, *GATES)
"""Every gate that the evidence for a promotion must hold."""


def evaluate_gates(policy: PromotionPolicy, facts: EvaluationFacts) -> tuple[Gate, ...]:
    """Every gate of a promotion, in the order of `GATES`."""
    return tuple(check(policy, facts) for check in _CHECKS)


class PromotionOutcome(StrEnum):
    """What a decision on a candidate says; `keep`: it is production already, `wait`: people decide."""

    PROMOTE = "promote"
    REJECT = "reject"
    KEEP = "keep"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True)
class PromotionDecision:
    """The outcome and, in sentences with the gates' numbers, why."""

    outcome: PromotionOutcome
    reason: str


def decide(
    evidence: Evidence,
    *,
    production: ModelVersion | None,
    rolled_back: Mapping[ModelVersion, str],
    people: Standing,
    doubts: Sequence[str] = (),
) -> PromotionDecision:
    """Promote when every gate of the evidence passed against what is production now and people agree.

    Where people were not asked or have not answered it waits. Everything else rejects, an inconclusive verdict too:
    production stays until the data shows something better.

    Args:
        evidence: What the gates measured.
        production: The version in production now.
        rolled_back: Versions that were put out of production by a rollback, and by whom and why: the evidence that
            promoted such a version once does not bring it back.
        people: Whether those whom the policy asks agree.
        doubts: Why the evidence itself cannot be trusted, in words.
    """
    if evidence.version == production:
        reason = f"Version {production} is production already: nothing new."
        return PromotionDecision(outcome=PromotionOutcome.KEEP, reason=reason)
    if evidence.version in rolled_back:
        return _rejected(
            f"Version {evidence.version} was rolled back ({rolled_back[evidence.version]}): it is not undone by the "
            "evidence from before it. Train another candidate."
        )
    if evidence.production_version != production:
        doubts = (
            f"Version {evidence.version} was compared with {version_text(evidence.production_version)}, but production "
            f"is {version_text(production)} now: evaluate it again",
        )
    if doubts:
        return _rejected(_sentences([*doubts]))
    missing = [name for name in REQUIRED if name not in {gate.name for gate in evidence.gates}]
    if missing or evidence.verdict is not Verdict.PASSED:
        reason = _sentences([*open_gates(evidence.gates), *(f"{name}: missing in the evidence" for name in missing)])
        return PromotionDecision(outcome=PromotionOutcome.REJECT, reason=reason)
    return _agreed(evidence, people)


def refusal_of(gates_of_candidate: Sequence[Gate]) -> str:
    """Why a candidate is refused before it is evaluated, in one sentence; empty when every gate passed."""
    if overall(tuple(gates_of_candidate)) is Verdict.PASSED:
        return ""
    return _sentences(open_gates(gates_of_candidate) or ["no gate was measured"])


def open_gates(judged: Sequence[Gate]) -> list[str]:
    """The figures of each gate that did not pass."""
    return [gate.figures() for gate in judged if gate.verdict is not Verdict.PASSED]


def _agreed(evidence: Evidence, people: Standing) -> PromotionDecision:
    """What becomes of a version whose gates passed."""
    if people.consent is Consent.REFUSED:
        return _rejected(f"Version {evidence.version} passed its gates, but {people.sentence}.")
    contest = [gate.figures() for gate in evidence.gates if gate.name == "no_regression"]
    passed = [f"all {len(evidence.gates)} gates passed", *contest]
    if people.consent not in AGREED:
        return PromotionDecision(outcome=PromotionOutcome.WAIT, reason=_sentences([*passed, people.sentence]))
    agreed = [people.sentence] if people.consent is Consent.GIVEN else []
    return PromotionDecision(outcome=PromotionOutcome.PROMOTE, reason=_sentences([*passed, *agreed]))


def _rejected(reason: str) -> PromotionDecision:
    return PromotionDecision(outcome=PromotionOutcome.REJECT, reason=reason)


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


def _differences(contract: BundleContract, declared: BundleContract) -> list[str]:
    """Where a candidate is not what the schema promises, in words."""
    found = []
    if contract.entity != declared.entity:
        found.append(f"the entity is '{contract.entity}', the schema has '{declared.entity}'")
    mine = {feature.name: feature for feature in contract.features}
    theirs = {feature.name: feature for feature in declared.features}
    found += [f"feature '{name}' is not in the schema" for name in mine if name not in theirs]
    found += [f"feature '{name}' of the schema is missing" for name in theirs if name not in mine]
    for name in sorted(mine.keys() & theirs.keys()):
        if (mine[name].dtype, mine[name].nullable) != (theirs[name].dtype, theirs[name].nullable):
            found.append(f"feature '{name}' is {_type(contract, name)}, the schema has {_type(declared, name)}")
    if not found and contract.feature_names != declared.feature_names:
        found.append("the features are in another order than those of the schema")
    return found


def _type(contract: BundleContract, name: str) -> str:
    feature = next(feature for feature in contract.features if feature.name == name)
    return f"{feature.dtype} or missing" if feature.nullable else feature.dtype


def _sentences(parts: list[str]) -> str:
    return "; ".join(part.rstrip(".") for part in parts) + "."
