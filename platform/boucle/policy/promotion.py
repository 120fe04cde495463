"""May this candidate become production? The decision over the gates of its evidence, and over people."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelVersion, version_text
from boucle.contracts.verdict import Gate, GateMode, Verdict, overall
from boucle.policy.approval import AGREED, Consent, Standing
from boucle.policy.evaluation import required_gates
from boucle.policy.limits import GateLimits, PromotionPolicy
from boucle.policy.risk import Asked


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
    policy: PromotionPolicy,
    evidence: Evidence,
    *,
    production: ModelVersion | None,
    rolled_back: Mapping[ModelVersion, str],
    people: Standing,
    asked: Asked,
    doubts: Sequence[str] = (),
) -> PromotionDecision:
    """Promote when every gate of the evidence passed against what is production now and people agree.

    Where people were not asked or have not answered it waits. Everything else rejects, an inconclusive verdict too:
    production stays until the data shows something better.

    Args:
        policy: What is asked now; evidence by other limits does not count.
        evidence: What the gates measured.
        production: The version in production now.
        rolled_back: Versions that were put out of production by a rollback, and by whom and why: the evidence that
            promoted such a version once does not bring it back.
        people: Whether those whom the policy asks agree.
        asked: What the policy asks for at the risk of this promotion.
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
    if problems := _problems(policy, evidence, asked):
        return _rejected(_sentences(problems))
    return _agreed(evidence, people, asked)


def refusal_of(gates_of_candidate: Sequence[Gate]) -> str:
    """Why a candidate is refused before it is evaluated, in one sentence; empty when every gate passed."""
    if overall(tuple(gates_of_candidate)) is Verdict.PASSED:
        return ""
    return _sentences(open_gates(gates_of_candidate) or ["no gate was measured"])


def open_gates(judged: Sequence[Gate]) -> list[str]:
    """The figures of each gate that blocks and did not pass."""
    return [gate.figures() for gate in judged if gate.mode is GateMode.BLOCK and gate.verdict is not Verdict.PASSED]


def loose_gates(judged: Sequence[Gate]) -> list[str]:
    """The figures of each gate that blocks nothing: it only warns, or is switched off."""
    return [gate.figures() for gate in judged if gate.mode is not GateMode.BLOCK]


def _missing(policy: PromotionPolicy, evidence: Evidence) -> list[str]:
    found = {gate.name for gate in evidence.gates}
    return [f"{name}: missing in the evidence" for name in required_gates(policy) if name not in found]


def _other_limits(policy: PromotionPolicy, evidence: Evidence) -> list[str]:
    """What was judged by another policy than there is now, in words: gates by their limit and mode, else the rest."""
    gates = [
        f"{gate.name} was judged by another limit than the policy has now ({gate.mode} at {gate.limit:g} {gate.unit}, "
        f"now {now.mode} at {now.limit:g} {now.unit}): evaluate it again"
        for gate in evidence.gates
        if gate.name in GateLimits.model_fields
        and (gate.mode, abs(gate.limit), gate.unit)
        != ((now := policy.gates.of(gate.name)).mode, abs(now.limit), now.unit)
    ]
    if gates or evidence.policy_digest in {None, policy.measuring_digest()}:
        return gates
    return ["rows, confidence, costs, slices or limits that the policy asks for have changed since: evaluate it again"]


def _problems(policy: PromotionPolicy, evidence: Evidence, asked: Asked) -> list[str]:
    """What in the gates is against a promotion, in words."""
    found = [*open_gates(evidence.gates), *_other_limits(policy, evidence), *_missing(policy, evidence)]
    if not found and evidence.verdict is not Verdict.PASSED:
        found = ["no gate blocks"]
    loose = [gate for gate in evidence.gates if gate.mode is not GateMode.BLOCK and gate.verdict is not Verdict.PASSED]
    if asked.loose_gates_block and asked.risk is not None and loose:
        figures = [gate.figures() for gate in loose]
        found += [*figures, f"at {asked.risk.sentence()} gates that block nothing must pass too"]
    return found


def _agreed(evidence: Evidence, people: Standing, asked: Asked) -> PromotionDecision:
    """What becomes of a version whose gates passed."""
    if people.consent is Consent.REFUSED:
        return _rejected(f"Version {evidence.version} passed its gates, but {people.sentence}.")
    contest = [gate.figures() for gate in evidence.gates if gate.name == "no_regression"]
    loose = loose_gates(evidence.gates)
    passed = [f"all {len(evidence.gates) - len(loose)} {'blocking ' * bool(loose)}gates passed", *contest, *loose]
    passed += [asked.risk.sentence()] if asked.risk is not None else []
    if people.consent not in AGREED:
        return PromotionDecision(outcome=PromotionOutcome.WAIT, reason=_sentences([*passed, people.sentence]))
    agreed = [people.sentence] if people.consent is Consent.GIVEN else []
    return PromotionDecision(outcome=PromotionOutcome.PROMOTE, reason=_sentences([*passed, *agreed]))


def _rejected(reason: str) -> PromotionDecision:
    return PromotionDecision(outcome=PromotionOutcome.REJECT, reason=reason)


def _sentences(parts: list[str]) -> str:
    return "; ".join(part.rstrip(".") for part in parts) + "."
