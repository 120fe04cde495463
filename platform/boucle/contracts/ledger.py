"""The chain of the ledger: each row's hash covers its decision and the hash of the row before."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from boucle.contracts.decision import GENESIS, Decision, NewDecision
from boucle.contracts.ids import Digest
from boucle.errors import LedgerError


def row_hash(previous_hash: Digest, decision: NewDecision) -> Digest:
    """SHA-256 of the previous row's hash and the canonical decision."""
    return _hash(previous_hash, decision.canonical())


class Link(NamedTuple):
    """A row of the ledger as it is stored: `content` is the canonical decision, `about` names it in an error."""

    decision_id: int
    previous_hash: str
    row_hash: str
    content: bytes
    about: str


def verify_chain(decisions: Sequence[Decision]) -> None:
    """Walk the whole ledger, oldest first.

    Raises:
        LedgerError: A row was edited, deleted or reordered; the error names the first one that does not fit.
    """
    verify_links(
        Link(row.decision_id, row.previous_hash, row.row_hash, row.decision.canonical(), _about(row.decision))
        for row in decisions
    )


def verify_links(links: Iterable[Link]) -> None:
    """Walk the ledger as it is stored, without reading what the rows say. Raises LedgerError like `verify_chain`."""
    previous: str = GENESIS
    for position, row in enumerate(links, start=1):
        if row.decision_id != position or row.previous_hash != previous:
            raise LedgerError(
                f"Ledger row {row.decision_id} does not follow row {position - 1}: a row before it was deleted, "
                "edited or moved. Restore the state store from its backup."
            )
        if _hash(previous, row.content) != row.row_hash:
            raise LedgerError(
                f"Ledger row {row.decision_id} ({row.about}) is not what was written: "
                "its hash does not fit its content. Restore the state store from its backup."
            )
        previous = row.row_hash


def _hash(previous_hash: str, content: bytes) -> Digest:
    return Digest(hashlib.sha256(previous_hash.encode() + content).hexdigest())


def _about(decision: NewDecision) -> str:
    return f"{decision.kind} of {decision.model}"
