"""Ask for a promotion, approve it, refuse it: each is a row of the ledger; only `production_alias` moves production."""

from dataclasses import dataclass

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.errors import ApprovalError
from boucle.operations.actor import Actor
from boucle.policy.approval import (
    ApprovalPolicy,
    PromotionMode,
    expiry,
    is_person,
    may_approve,
    refusal_in_force,
    why_not,
)
from boucle.policy.limits import PromotionPolicy
from boucle.policy.risk import Asked
from boucle.ports import StateStore


@dataclass(frozen=True)
class _Subject:
    """What a decision is about."""

    model: ModelName
    version: ModelVersion
    evidence_digest: Digest | None


def request(state: StateStore, *, evidence: Evidence, asked: Asked, actor: Actor, reason: str) -> Decision:
    """Ask that the evidence's version becomes production; for an actor who is no person, the commit's author asks.

    Raises:
        ApprovalError: Asking is enough (`manual`) or takes a refusal back, and the actor is not among the approvers.
        ConflictError: Production moved in between.
    """
    about = [row for row in state.decisions(evidence.model) if row.decision.subject_version == evidence.version]
    refused = refusal_in_force(asked.approval, about, evidence_digest=evidence.digest())
    if refused is not None and not (is_person(actor.name) and may_approve(asked.approval, actor.name)):
        raise ApprovalError(
            f"Version {evidence.version} of '{evidence.model}' was refused by {refused.decision.actor} (decision "
            f"{refused.decision_id}: {refused.decision.reason}), and '{actor.name}' is not among those who may take "
            f"that back ({_approvers(asked.approval)}). Nothing was recorded."
        )
    if asked.mode is PromotionMode.MANUAL and not may_approve(asked.approval, actor.name):
        raise ApprovalError(
            f"'{actor.name}' is not among those who may ask for a promotion of '{evidence.model}' "
            f"({_approvers(asked.approval)}). Nothing was recorded."
        )
    return _record(state, DecisionKind.REQUEST, _of(evidence), asked.name, actor, reason)


def approve(state: StateStore, *, evidence: Evidence, asked: Asked, actor: Actor, reason: str) -> Decision:
    """Approve the open request about this version and this evidence. `seconds` of the row: how long it had waited.

    Raises:
        ApprovalError: There is no such request, it expired, or this actor may not answer it.
        ConflictError: Production moved in between.
    """
    model, version = evidence.model, evidence.version
    row = _newest_request(state, evidence)
    if problem := why_not(asked.approval, row, actor.name):
        raise ApprovalError(f"Version {version} of '{model}' was not approved: {problem}. Nothing was recorded.")
    if actor.at > (end := expiry(asked.approval, row)):
        raise ApprovalError(
            f"The request for version {version} of '{model}' (decision {row.decision_id}) expired at "
            f"{end:%Y-%m-%d %H:%M} UTC. Ask again with `boucle promote {version} {model}`. Nothing was recorded."
        )
    waited = (actor.at - row.decision.at).total_seconds()
    return _record(state, DecisionKind.APPROVE, _of(evidence), asked.name, actor, reason, seconds=waited)


def refuse(
    state: StateStore,
    model: ModelName,
    version: ModelVersion,
    evidence_digest: Digest | None = None,
    *,
    policy: PromotionPolicy,
    actor: Actor,
    reason: str,
) -> Decision:
    """Say that a version must not become production; it holds until one who may approve asks for it or approves it.

    Raises:
        ApprovalError: The version is production (roll back instead), the ledger does not know it, or the actor is not
            among the approvers.
        ConflictError: Production moved in between.
    """
    if not is_person(actor.name) or not may_approve(policy.approval, actor.name):
        raise ApprovalError(
            f"'{actor.name}' may not refuse versions of '{model}'; may: {_approvers(policy.approval)}. "
            "Nothing was recorded."
        )
    return refuse_version(state, model, version, evidence_digest, actor=actor, reason=reason, policy=policy.mode)


def request_on(state: StateStore, *, evidence: Evidence, actor: Actor, reason: str) -> Decision:
    """Ask for a promotion; gates and policy judge it when it is carried out.

    Raises:
        ApprovalError: The actor is no person, or the version is production already.
        ConflictError: Production moved in between.
    """
    _require_person(actor, "ask for a promotion")
    if evidence.version == state.production(evidence.model):
        raise ApprovalError(
            f"Version {evidence.version} of '{evidence.model}' is in production already. Nothing was recorded."
        )
    return _record(state, DecisionKind.REQUEST, _of(evidence), "", actor, reason)


def approve_open(
    state: StateStore,
    model: ModelName,
    version: ModelVersion,
    evidence_digest: Digest | None = None,
    *,
    actor: Actor,
    reason: str,
) -> Decision:
    """Approve the newest request about a version, on its evidence; whether that counts is for the policy to say.

    Raises:
        ApprovalError: The actor is no person, nobody asked, or the request is about other evidence.
        ConflictError: Production moved in between.
    """
    _require_person(actor, "approve")
    rows = state.decisions(model)
    asked = [r for r in rows if r.decision.kind is DecisionKind.REQUEST and r.decision.subject_version == version]
    if not asked or version == state.production(model):
        raise ApprovalError(f"There is nothing to approve about version {version} of '{model}'. Nothing was recorded.")
    newest = asked[-1].decision
    if evidence_digest is not None and evidence_digest != newest.evidence_digest:
        raise ApprovalError(
            f"Version {version} of '{model}' was asked for on the evidence {newest.evidence_digest}, not on "
            f"{evidence_digest}: read the new report. Nothing was recorded."
        )
    subject, waited = _Subject(model, version, newest.evidence_digest), (actor.at - newest.at).total_seconds()
    return _record(state, DecisionKind.APPROVE, subject, newest.policy, actor, reason, seconds=waited)


def refuse_version(
    state: StateStore,
    model: ModelName,
    version: ModelVersion,
    evidence_digest: Digest | None = None,
    *,
    actor: Actor,
    reason: str,
    policy: str = "",
) -> Decision:
    """Say that a version must not become production; it holds until one who may approve asks for it or approves it.

    Raises:
        ApprovalError: The actor is no person, or the version is production (roll back instead).
        ConflictError: Production moved in between.
    """
    _require_person(actor, "refuse")
    if version == state.production(model):
        raise ApprovalError(
            f"Version {version} of '{model}' is in production; `boucle rollback {model}` takes it out. "
            "Nothing was recorded."
        )
    return _record(state, DecisionKind.REJECT, _Subject(model, version, evidence_digest), policy, actor, reason)


def _approvers(policy: ApprovalPolicy) -> str:
    return ", ".join(policy.approvers) or "every person"


def _require_person(actor: Actor, verb: str) -> None:
    if not is_person(actor.name):
        raise ApprovalError(f"'{actor.name}' is no person and may not {verb}. Nothing was recorded.")


def _of(evidence: Evidence) -> _Subject:
    return _Subject(evidence.model, evidence.version, evidence.digest())


def _newest_request(state: StateStore, evidence: Evidence) -> Decision:
    version, model = evidence.version, evidence.model
    about = [
        row
        for row in state.decisions(model)
        if row.decision.kind is DecisionKind.REQUEST and row.decision.subject_version == version
    ]
    for row in reversed(about):
        if row.decision.evidence_digest == evidence.digest():
            return row
    why = "it was evaluated again since it was asked for, which ends the request" if about else "nobody asked for it"
    raise ApprovalError(
        f"There is nothing to approve about version {version} of '{model}': {why}. `boucle promote {version} {model}` "
        "asks. Nothing was recorded."
    )


def _record(
    state: StateStore,
    kind: DecisionKind,
    subject: _Subject,
    policy: str,
    actor: Actor,
    reason: str,
    *,
    seconds: float | None = None,
) -> Decision:
    production = state.production(subject.model)
    new = NewDecision(
        kind=kind,
        model=subject.model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=production,
        to_version=production,
        subject_version=subject.version,
        policy=policy,
        evidence_digest=subject.evidence_digest,
        git_commit=actor.git_commit,
        dagster_run_id=actor.dagster_run_id,
        seconds=seconds,
        requester="" if kind is not DecisionKind.REQUEST or is_person(actor.name) else actor.commit_author,
    )
    return state.record(new, expected_production=production)
