"""POST /models/{model}/VERB: decisions over HTTP (promote, approve, reject, rollback, abort, pin, unpin), by token."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, ConfigDict, Field

from boucle.contracts.decision import Decision
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.errors import ApprovalError, ConflictError, NoProductionModelError
from boucle.operations import approval, pins
from boucle.operations.actor import Actor
from boucle.ports import Clock, StateStore
from boucle_adapters import rolling_back
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.tokens import Bearer, Role, TokenStore
from boucle_serving.admission import Admission
from boucle_serving.bearers import with_role
from boucle_serving.documented import DECISION_PROBLEMS
from boucle_serving.limited_routes import deciding


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=1000, description="Why; it goes on record.")


MAX_BODY_BYTES = 64 * 1024
_Version = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Model = Annotated[str, Path(pattern="^[a-z][a-z0-9_]*$")]


class Answer(_Said):
    """An answer to what was asked about a version; with a digest, only to a request on that evidence."""

    version: _Version
    evidence_digest: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")


class Request(_Said):
    """A request to promote a version on the evidence that its report names."""

    version: _Version
    evidence_digest: str = Field(pattern="^[0-9a-f]{64}$")


class Abort(_Said):
    """The end of the open rollout."""


class Pin(_Said):
    """What is in production stays there, or may move again."""


class Rollback(_Said):
    """Back to the version before, or to an earlier promoted one."""

    model_config = ConfigDict(extra="forbid", validate_by_name=True)

    to: _Version | None = None
    leaving: _Version | None = Field(
        default=None, alias="from", description="The version that is wrong; if another is in production, nothing moves."
    )


def verbs_router(
    open_state: Callable[[], StateStore],
    tokens: TokenStore,
    evidence: EvidenceFiles,
    open_clock: Callable[[ModelName], Clock],
    admission: Admission,
    *,
    replica_timeout_seconds: float,
) -> APIRouter:
    """The routes that decide. Promote and approve are carried out by the platform; a rollback acts at once."""
    router = APIRouter(
        tags=["decide"],
        responses=DECISION_PROBLEMS,
        route_class=deciding(admission, {Role.APPROVER, Role.OPERATOR}, most=MAX_BODY_BYTES),
    )

    def actor(bearer: Bearer, model: str) -> Actor:
        return Actor(name=bearer.actor, at=open_clock(ModelName(model)).now())

    approver, operator = with_role(tokens, Role.APPROVER), with_role(tokens, Role.OPERATOR)

    @router.post("/models/{model}/promote", status_code=HTTPStatus.ACCEPTED, summary="Ask that a version is promoted")
    def promote(model: _Model, asked: Request, bearer: Annotated[Bearer, Depends(approver)]) -> dict[str, Any]:
        """Record the request. Gates and policy decide as always, in `production_alias`."""
        found = _judged(evidence, model, asked.version, asked.evidence_digest)
        row = approval.request_on(open_state(), evidence=found, actor=actor(bearer, model), reason=asked.reason)
        return _recorded(row)

    @router.post("/models/{model}/approve", status_code=HTTPStatus.ACCEPTED, summary="Approve what waits for it")
    def approve(model: _Model, said: Answer, bearer: Annotated[Bearer, Depends(approver)]) -> dict[str, Any]:
        """Record the approval. Whether it counts (approvers, four eyes, expiry) is for the promotion policy to say."""
        digest = Digest(said.evidence_digest) if said.evidence_digest else None
        row = approval.approve_open(
            open_state(),
            ModelName(model),
            ModelVersion(said.version),
            digest,
            actor=actor(bearer, model),
            reason=said.reason,
        )
        return _recorded(row)

    @router.post("/models/{model}/reject", summary="Refuse a version")
    def reject(model: _Model, said: Answer, bearer: Annotated[Bearer, Depends(approver)]) -> dict[str, Any]:
        """Nothing automatic promotes the version after that."""
        found = _judged(evidence, model, said.version, said.evidence_digest)
        row = approval.refuse_version(
            open_state(), found.model, found.version, found.digest(), actor=actor(bearer, model), reason=said.reason
        )
        return _recorded(row)

    @router.post("/models/{model}/rollback", summary="Put an earlier version back, now")
    def rollback(model: _Model, asked: Rollback, bearer: Annotated[Bearer, Depends(operator)]) -> dict[str, Any]:
        """Ledger and traffic plan at once; answers when every live replica does so by the version that is back.

        The registry's aliases follow by the model's guard, or by `boucle doctor --fix`.
        """
        state, who, name = open_state(), actor(bearer, model), ModelName(model)
        try:
            done = rolling_back.roll_back(
                state,
                name,
                reason=asked.reason,
                actor=who,
                to=ModelVersion(asked.to) if asked.to else None,
                leaving=ModelVersion(asked.leaving) if asked.leaving else None,
                replica_timeout_seconds=replica_timeout_seconds,
            )
        except NoProductionModelError as error:
            raise ConflictError(str(error)) from error
        return {**_recorded(done.decision), **done.as_json()}

    @router.post("/models/{model}/abort", summary="End the open rollout, now")
    def abort(model: _Model, asked: Abort, bearer: Annotated[Bearer, Depends(operator)]) -> dict[str, Any]:
        """The challenger answers nobody any more; a canary's promotion is taken back. 409 where no rollout is open."""
        done = rolling_back.abort(
            open_state(),
            ModelName(model),
            reason=asked.reason,
            actor=actor(bearer, model),
            replica_timeout_seconds=replica_timeout_seconds,
        )
        return {**_recorded(done.decision), **done.as_json()}

    _add_pins(router, open_state, actor, operator)
    return router


def _add_pins(
    router: APIRouter,
    open_state: Callable[[], StateStore],
    actor: Callable[[Bearer, str], Actor],
    operator: Callable[[str], Bearer],
) -> None:
    def said(deed: Callable[..., Decision], model: str, asked: Pin, bearer: Bearer) -> dict[str, Any]:
        try:
            row = deed(open_state(), ModelName(model), reason=asked.reason, actor=actor(bearer, model))
        except NoProductionModelError as error:
            raise ConflictError(str(error)) from error
        return _recorded(row)

    @router.post("/models/{model}/pin", summary="Keep the version that is in production there")
    def pin(model: _Model, asked: Pin, bearer: Annotated[Bearer, Depends(operator)]) -> dict[str, Any]:
        """Nothing automatic promotes over it or rolls it back, until a person unpins it or rolls it back."""
        return said(pins.pin, model, asked, bearer)

    @router.post("/models/{model}/unpin", summary="Let production move again")
    def unpin(model: _Model, asked: Pin, bearer: Annotated[Bearer, Depends(operator)]) -> dict[str, Any]:
        """Gates, guard and canary decide again. 409 where nothing is pinned."""
        return said(pins.unpin, model, asked, bearer)


def _judged(evidence: EvidenceFiles, model: str, version: int, digest: str | None) -> Evidence:
    """The newest evaluation report of a version: the one that the caller read."""
    found = evidence.newest(ModelName(model), ModelVersion(version))
    if found is None:
        raise ApprovalError(f"Version {version} of '{model}' has no evaluation report. Nothing was recorded.")
    if digest not in {None, found.digest()}:
        raise ApprovalError(
            f"The newest evaluation report of version {version} of '{model}' has the digest {found.digest()}, not "
            f"{digest}: read that one. Nothing was recorded."
        )
    return found


def _recorded(row: Decision) -> dict[str, Any]:
    said = row.decision
    return {
        "decision": row.decision_id,
        "kind": said.kind.value,
        "model": said.model,
        "version": said.subject_version or said.to_version,
        "production": said.to_version,
        "actor": said.actor,
        "reason": said.reason,
        "ledger_head": row.row_hash,
    }
