"""The ledger: one row per decision, chained by hashes."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import AwareDatetime, SerializerFunctionWrapHandler, model_serializer

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion

GENESIS = Digest("0" * 64)
"""What the first row names as the hash of its predecessor."""


class DecisionKind(StrEnum):
    """What was decided."""

    REQUEST = "request"
    APPROVE = "approve"
    PROMOTE = "promote"
    REJECT = "reject"
    ROLLBACK = "rollback"
    RETRAIN = "retrain"
    SERVED = "served"
    ROLLOUT = "rollout"
    ABORT = "abort"
    PIN = "pin"
    UNPIN = "unpin"


MOVES = frozenset({DecisionKind.PROMOTE, DecisionKind.ROLLBACK})
"""Kinds of decision that say anew which version is production."""
PLANNED = MOVES | {DecisionKind.ROLLOUT, DecisionKind.ABORT}
"""Kinds of decision that a traffic plan may follow from."""


class NewDecision(Document):
    """A decision before it is in the ledger: who did what to which model, when, why, on which evidence.

    `from_version` and `to_version` are production before and after; they are equal where nothing moved, which is in all
    kinds but `promote` and `rollback`. `subject_version` names the candidate that was judged. A `served` row follows a
    promotion or rollback once every live replica answered with it; its `seconds` are those from the plan's publication
    until then, those of an `approve` how long its `request` had waited. `requester` is the person who counts as having
    asked where the actor is none: the author of the commit. A `rollout` row is a step of a rollout, from its start to
    its end, an `abort` row one that was ended before: both name the challenger as `subject_version`. A `pin` names the
    version that a person keeps in production, an `unpin` the one that may move again.
    """

    schema_version: Literal[1] = 1
    kind: DecisionKind
    model: ModelName
    at: AwareDatetime
    actor: str
    reason: str
    from_version: ModelVersion | None
    to_version: ModelVersion | None
    subject_version: ModelVersion | None = None
    policy: str = ""
    evidence_digest: Digest | None = None
    bundle_digest: Digest | None = None
    git_commit: str = ""
    dagster_run_id: str = ""
    seconds: float | None = None
    requester: str = ""

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a requester it is written as before there was one: hashes of earlier rows stay what they were."""
        written: dict[str, Any] = write(self)
        return written if self.requester else {k: v for k, v in written.items() if k != "requester"}


class Decision(Document):
    """A row of the ledger. `row_hash` is the SHA-256 of `previous_hash` and the canonical decision."""

    decision_id: int
    previous_hash: Digest
    row_hash: Digest
    decision: NewDecision
