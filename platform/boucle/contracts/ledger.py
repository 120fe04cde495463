"""The chain of the ledger: each row's hash covers its decision and the hash of the row before."""

import hashlib
from collections.abc import Sequence

from boucle.contracts.decision import GENESIS, Decision, NewDecision
from boucle.contracts.ids import Digest
from boucle.errors import LedgerError


def row_hash(previous_hash: Digest, decision: NewDecision) -> Digest:
    """SHA-256 of the previous row's hash and the canonical decision."""
    return Digest(hashlib.sha256(previous_hash.encode() + decision.canonical()).hexdigest())


def verify_chain(decisions: Sequence[Decision]) -> None:
    """Walk the whole ledger, oldest first.

    Raises:
        LedgerError: A row was edited, deleted or reordered; the error names the first one that does not fit.
    """
    previous = GENESIS
    for position, row in enumerate(decisions, start=1):
        if row.decision_id != position or row.previous_hash != previous:
            raise LedgerError(
                f"Ledger row {row.decision_id} does not follow row {position - 1}: a row before it was deleted, "
                "edited or moved. Restore the state store from its backup."
            )
        if row_hash(previous, row.decision) != row.row_hash:
            raise LedgerError(
                f"Ledger row {row.decision_id} ({row.decision.kind} of {row.decision.model}) is not what was written: "
                "its hash does not fit its content. Restore the state store from its backup."
            )
        previous = row.row_hash
