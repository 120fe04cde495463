"""Who must agree before a version whose gates passed becomes production, and whether they did: read from the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.ids import Digest, ModelVersion

PERSON = "user:"
"""How the name of an actor begins who is a person."""


class PromotionMode(StrEnum):
    """Who moves the alias once every gate passed: a person, one who approves what was asked, nobody, or by risk."""

    MANUAL = "manual"
    SEMI_AUTOMATIC = "semi_automatic"
    AUTOMATIC = "automatic"
    RISK_BASED = "risk_based"


class ApprovalPolicy(BaseModel):
    """Who may approve, and for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    approvers: tuple[str, ...] = Field(
        default=(), description="actors who may approve or promote, like user:ada; empty: every person"
    )
    four_eyes: bool = Field(default=False, description="whoever asked may not approve")
    valid_hours: float = Field(default=72, gt=0, description="hours from the request on; then it must be asked again")


class Consent(StrEnum):
    """Where a version stands with people. `missing`: nobody has asked them."""

    NOT_NEEDED = "not needed"
    GIVEN = "given"
    ASKED = "asked"
    MISSING = "missing"
    EXPIRED = "expired"
    REFUSED = "refused"


AGREED = frozenset({Consent.NOT_NEEDED, Consent.GIVEN})
"""With these a version whose gates passed becomes production."""


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The consent, why in one sentence, and the rows of the ledger that it rests on."""

    consent: Consent
    sentence: str
    request: Decision | None = None
    answer: Decision | None = None


def standing(
    mode: PromotionMode,
    policy: ApprovalPolicy,
    decisions: Sequence[Decision],
    *,
    version: ModelVersion,
    evidence_digest: Digest,
    at: datetime,
) -> Standing:
    """Whether people agree, as the ledger has it, that this version becomes production on this very evidence.

    A person's refusal of the version holds in every mode, until one who may approve takes it back on this evidence
    (`refusal_in_force`). Requests and approvals are about one evidence digest, and count until they expire.

    Args:
        mode: Who moves the alias; not by risk, which is for `boucle.policy.risk` to say.
        policy: Who may approve.
        decisions: Those of the model, oldest first.
        version: The candidate.
        evidence_digest: Of its newest evaluation.
        at: Now.
    """
    about = [row for row in decisions if row.decision.subject_version == version]
    on_evidence = [row for row in about if row.decision.evidence_digest == evidence_digest]
    if refused := refusal_in_force(policy, about, evidence_digest=evidence_digest):
        return Standing(consent=Consent.REFUSED, sentence=f"{_by(refused)} refused it", answer=refused)
    if mode is PromotionMode.AUTOMATIC:
        asked_for = [row for row in on_evidence if _asks(policy, row)]
        answer = asked_for[-1] if asked_for else None
        return Standing(consent=Consent.NOT_NEEDED, sentence="nobody is asked (automatic)", answer=answer)
    requests = [row for row in on_evidence if row.decision.kind is DecisionKind.REQUEST]
    if mode is PromotionMode.MANUAL:
        requests = [row for row in requests if _asks(policy, row)]
    if not requests:
        wanted = (
            "a person must ask for it (manual)" if mode is PromotionMode.MANUAL else "nobody was asked to approve it"
        )
        return Standing(consent=Consent.MISSING, sentence=wanted)
    later = [row for row in on_evidence if row.decision_id > requests[-1].decision_id]
    return _answered(mode, policy, requests[-1], later, at=at)


def refusal_in_force(policy: ApprovalPolicy, about: Sequence[Decision], *, evidence_digest: Digest) -> Decision | None:
    """The newest refusal by a person, unless somebody took it back after it; None without any.

    Only a word that the policy counts takes a refusal back: a request of one who may approve, or an approval that
    answers a request, on this very evidence. Nothing that is automatic undoes a person.

    Args:
        policy: Who may approve.
        about: The decisions about one version, oldest first.
        evidence_digest: Of the version's newest evaluation.
    """
    refusals = [row for row in about if row.decision.kind is DecisionKind.REJECT and is_word_of_a_person(row)]
    if not refusals:
        return None
    request = None
    for row in about:
        if row.decision.evidence_digest != evidence_digest:
            continue
        counts = _asks(policy, row) or (request is not None and _approves(policy, request, row))
        if counts and row.decision_id > refusals[-1].decision_id:
            return None
        request = row if row.decision.kind is DecisionKind.REQUEST else request
    return refusals[-1]


def open_requests(decisions: Sequence[Decision]) -> list[Decision]:
    """Requests that nobody has answered, oldest first, one a version: its newest.

    A word about the version answers it, and so does any move of production: what was asked for was judged against the
    one before. Whether a request has expired is for the policy to say (`standing`).

    Args:
        decisions: Those of one model, oldest first.
    """
    waiting: dict[ModelVersion | None, Decision] = {}
    for row in decisions:
        if row.decision.kind is DecisionKind.REQUEST:
            waiting[row.decision.subject_version] = row
        elif row.decision.kind in MOVES:
            waiting.clear()
        elif row.decision.kind in {DecisionKind.APPROVE, DecisionKind.REJECT}:
            waiting.pop(row.decision.subject_version, None)
    return list(waiting.values())


def why_not(policy: ApprovalPolicy, request: Decision, actor: str) -> str:
    """Why this actor's approval of this request does not count, in one sentence; empty when it does."""
    if not is_person(actor):
        return f"'{actor}' is no person; approvals are people's"
    if not may_approve(policy, actor):
        return f"'{actor}' is not among the approvers ({', '.join(policy.approvers)})"
    if policy.four_eyes and (asked := _asked_by(request, actor)):
        return f"'{actor}' {asked}, and the policy wants four eyes: somebody else must approve"
    return ""


def _asked_by(request: Decision, actor: str) -> str:
    """How this actor asked, in words; empty when somebody else did, known by the same or by a longer name."""
    if actor == request.decision.actor:
        return "asked for it"
    if is_person(request.decision.actor):
        return ""
    author = request.decision.requester
    if not author:  # no git, no word of the image's builder: anybody may be the author
        return "may be the author of the code that asked for it, which nobody knows here"
    names = {author.casefold(), author.partition("@")[0].casefold()}
    return "is the author of the code that asked for it" if actor.casefold() in names else ""


def may_approve(policy: ApprovalPolicy, actor: str) -> bool:
    """Whether the policy names this actor, or nobody."""
    return not policy.approvers or actor in policy.approvers


def expiry(policy: ApprovalPolicy, request: Decision) -> datetime:
    """Until when a request and what was answered to it counts, UTC; the moment itself still does."""
    return request.decision.at + timedelta(hours=policy.valid_hours)


def is_person(actor: str) -> bool:
    """Whether an actor of the ledger is a person."""
    return actor.startswith(PERSON)


def is_word_of_a_person(row: Decision) -> bool:
    """Whether a person said this; what a run decided that a person launched is not a person's word."""
    kinds = (DecisionKind.REQUEST, DecisionKind.APPROVE, DecisionKind.REJECT)
    return row.decision.kind in kinds and is_person(row.decision.actor) and not row.decision.dagster_run_id


def _answered(
    mode: PromotionMode, policy: ApprovalPolicy, request: Decision, later: Sequence[Decision], *, at: datetime
) -> Standing:
    """Where a request stands, by the rows after it."""
    if at > (end := expiry(policy, request)):
        sentence = f"the request expired at {end:%Y-%m-%d %H:%M} UTC ({_by(request)})"
        return Standing(consent=Consent.EXPIRED, sentence=sentence, request=request)
    if mode is PromotionMode.MANUAL:
        return Standing(consent=Consent.GIVEN, sentence=f"{_by(request)} asked for it", request=request, answer=request)
    for row in reversed(later):
        if _approves(policy, request, row):
            return Standing(consent=Consent.GIVEN, sentence=f"{_by(row)} approved it", request=request, answer=row)
    sentence = f"it waits for approval until {end:%Y-%m-%d %H:%M} UTC, asked for by {_by(request)}"
    return Standing(consent=Consent.ASKED, sentence=sentence, request=request)


def _asks(policy: ApprovalPolicy, row: Decision) -> bool:
    """Whether this is the request of a person who may approve."""
    asked = row.decision.kind is DecisionKind.REQUEST and is_word_of_a_person(row)
    return asked and may_approve(policy, row.decision.actor)


def _approves(policy: ApprovalPolicy, request: Decision, row: Decision) -> bool:
    """Whether this is an approval of the request, in time, that counts."""
    approved = row.decision.kind is DecisionKind.APPROVE and is_word_of_a_person(row)
    return approved and row.decision.at <= expiry(policy, request) and not why_not(policy, request, row.decision.actor)


def _by(row: Decision) -> str:
    return f"{row.decision.actor} (decision {row.decision_id}: {row.decision.reason.rstrip('.')})"
