"""What people say about a version: ask, approve, refuse; and why it is or is not in production."""

from collections.abc import Callable, Sequence
from typing import Any

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.verdict import Bound, Gate, GateMode
from boucle.errors import ApprovalError, PromotionRefusedError
from boucle.operations import approval, promotion
from boucle.policy.approval import Consent, Standing
from boucle.policy.promotion import PromotionDecision, PromotionOutcome
from boucle.policy.risk import Asked, Term
from boucle_adapters.evidence_files import ImportedEvidence
from boucle_adapters.home import Home
from boucle_platform.model_loop.automation import promote_job_name
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.risk import risk_of
from boucle_platform.model_loop.steps.store import newest_evidence

Run = Callable[[str, dict[str, str]], Any]
"""Executes a job, by name and with tags, as `boucle_platform.instance.Runner.run` does."""


def ask(home: Home, spec: LoopSpec, version: ModelVersion, *, reason: str, who: str, run: Run) -> dict[str, Any]:
    """Ask that a version becomes production; carry it out where nobody else must agree.

    Raises:
        PromotionRefusedError: Its evidence does not allow it; nothing was recorded.
    """
    evidence, actor = _evidence_about(home, spec, version), home.actor(who, spec.name)
    risk = risk_of(home, spec, evidence)
    judged, people = promotion.judge(home.state, evidence, spec.promotion, at=actor.at, risk=risk)
    if judged.outcome is PromotionOutcome.KEEP:
        return _done(home, spec, judged.reason)
    if judged.outcome is PromotionOutcome.REJECT and people.consent is not Consent.REFUSED:
        raise PromotionRefusedError(f"Version {version} of '{spec.model}' cannot be promoted: {judged.reason}")
    asked = spec.promotion.asked(risk)
    row = approval.request(home.state, evidence=evidence, asked=asked, actor=actor, reason=reason)
    return _carry_out(
        home, spec, evidence, f"Decision {row.decision_id}: asked to promote version {version}.", who, run
    )


def approve(home: Home, spec: LoopSpec, version: ModelVersion, *, reason: str, who: str, run: Run) -> dict[str, Any]:
    """Approve the open request about a version, and carry the promotion out."""
    evidence, actor = _evidence_about(home, spec, version), home.actor(who, spec.name)
    asked = spec.promotion.asked(risk_of(home, spec, evidence))
    row = approval.approve(home.state, evidence=evidence, asked=asked, actor=actor, reason=reason)
    return _carry_out(home, spec, evidence, f"Decision {row.decision_id}: approved version {version}.", who, run)


def refuse(
    home: Home,
    spec: LoopSpec,
    version: ModelVersion,
    *,
    reason: str,
    who: str,
    run: Run,  # noqa: ARG001 - the verbs are called alike
) -> dict[str, Any]:
    """Refuse a version; nothing runs."""
    registered, actor = home.registry.version(spec.name, version), home.actor(who, spec.name)
    evidence = home.evidence.newest(spec.name, version)
    digest = evidence.digest() if evidence else None
    row = approval.refuse(
        home.state,
        spec.name,
        registered.version,
        digest,
        policy=spec.promotion,
        actor=actor,
        reason=reason,
    )
    tags = {"validation_status": "rejected", "ledger_head": row.row_hash}
    home.registry.set_tags(spec.name, version, tags)
    return _done(home, spec, f"Decision {row.decision_id}: refused version {version}.")


def explanation(home: Home, spec: LoopSpec, version: ModelVersion) -> dict[str, Any]:
    """Why a version is or is not in production: an answer in a sentence, gates, policy, people, decisions in order.

    Raises:
        RegistryError: There is no such version.
    """
    decisions = home.state.decisions(spec.name)
    evidence = home.evidence.newest(spec.name, version)
    about = [row for row in decisions if version in {row.decision.subject_version, *_moved(row)}]
    if evidence is None and not about:
        home.registry.version(spec.name, version)
    judged, people, asked = _judged(home, spec, evidence) if evidence else (None, None, None)
    file = evidence and home.evidence.file(evidence)
    came = home.evidence.imported(spec.name, version)
    return {
        "model": spec.model,
        "version": version,
        "in_production": home.state.production(spec.name) == version,
        "answer": _answer(spec.name, version, home.state.production(spec.name), about, judged),
        "gates": [gate_row(gate) for gate in evidence.gates] if evidence else [],
        "evidence_digest": evidence.digest() if evidence else None,
        "policy": asked.name if asked else spec.promotion.mode.value,
        "risk": [_risk_row(term) for term in asked.risk.terms] if asked and asked.risk else [],
        "people": people.sentence if people else "nobody is asked before it was evaluated",
        "report": str(file) if file and file.exists() else None,
        "imported": imported_row(came) if came else None,
        "decisions": about,
    }


def imported_row(came: ImportedEvidence) -> dict[str, Any]:
    """Where a version was made, and what was measured of it there."""
    return {
        "from": came.manifest.origin,
        "git_commit": came.manifest.git_commit,
        "file": str(came.file),
        "evidence_digest": came.evidence.digest(),
        "verdict": came.evidence.verdict.value,
        "gates": [gate_row(gate) for gate in came.evidence.gates],
    }


def _evidence_about(home: Home, spec: LoopSpec, version: ModelVersion) -> Evidence:
    """The newest evaluation report, which alone can be promoted."""
    evidence = newest_evidence(home, spec)
    if evidence is None or evidence.version != version:
        newest = "there is none" if evidence is None else f"it is about version {evidence.version}"
        raise ApprovalError(
            f"Version {version} of '{spec.model}' is not what the newest evaluation report is about: {newest}. Only a "
            f"version that was just compared with production can be promoted; `boucle retrain {spec.model}` makes one, "
            f"`boucle rollback {spec.model} --to N` brings an earlier one back. Nothing was recorded."
        )
    return evidence


def _carry_out(home: Home, spec: LoopSpec, evidence: Evidence, said: str, who: str, run: Run) -> dict[str, Any]:
    judged, _, _ = _judged(home, spec, evidence)
    if judged.outcome is not PromotionOutcome.PROMOTE:
        return _done(home, spec, f"{said} {judged.reason}")
    outcome = run(promote_job_name(spec), {ACTOR_TAG: who, "boucle/trigger": said})
    return _done(home, spec, f"{said} {outcome.error}".rstrip(), failed=not outcome.succeeded)


def _done(home: Home, spec: LoopSpec, said: str, *, failed: bool = False) -> dict[str, Any]:
    return {"said": said, "production": home.state.production(spec.name), "failed": failed}


def _judged(home: Home, spec: LoopSpec, evidence: Evidence) -> tuple[PromotionDecision, Standing, Asked]:
    """What the policy says of the evidence now, what people say, and what is asked at this risk."""
    risk = risk_of(home, spec, evidence)
    at = home.clock(spec.name).now()
    return *promotion.judge(home.state, evidence, spec.promotion, at=at, risk=risk), spec.promotion.asked(risk)


def _moved(row: Decision) -> set[ModelVersion | None]:
    """The versions that a row moved into and out of production."""
    return {row.decision.from_version, row.decision.to_version} if row.decision.kind in MOVES else set()


def _answer(
    model: ModelName,
    version: ModelVersion,
    production: ModelVersion | None,
    about: Sequence[Decision],
    judged: PromotionDecision | None,
) -> str:
    moves = [row for row in about if row.decision.kind in MOVES]
    if moves and version == production:
        return f"Version {version} of '{model}' is in production since {_when(moves[-1])}"
    if moves:
        return f"Version {version} of '{model}' is no longer in production since {_when(moves[-1])}"
    said = [row for row in about if row.decision.kind is DecisionKind.REJECT]
    if said:
        return f"Version {version} of '{model}' is not in production: it was rejected at {_when(said[-1])}"
    if judged is not None:
        return f"Version {version} of '{model}' is not in production: {judged.reason}"
    return f"Version {version} of '{model}' is not in production: it was never evaluated."


def _when(row: Decision) -> str:
    decision = row.decision
    return f"{decision.at:%Y-%m-%d %H:%M} UTC, by decision {row.decision_id} of {decision.actor}: {decision.reason}"


def _risk_row(term: Term) -> dict[str, Any]:
    steps = term.steps
    return {
        "term": term.name,
        "tier": term.tier.value,
        "measured": "declared" if steps is None else term.value,
        "unit": term.unit,
        "medium from": "" if steps is None else steps.medium,
        "high from": "" if steps is None else steps.high,
    }


def gate_row(gate: Gate) -> dict[str, Any]:
    """One gate as a row of a table."""
    sign = {Bound.AT_MOST: "≤", Bound.AT_LEAST: "≥"}[gate.bound]
    return {
        "gate": gate.name,
        "verdict": gate.verdict.value if gate.mode is GateMode.BLOCK else f"{gate.verdict.value} ({gate.mode})",
        "n": gate.sample_size,
        "measured": gate.measured,
        "limit": f"{sign} {gate.limit:g} {gate.unit}",
    }
