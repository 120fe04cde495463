"""The chain of the ledger shows every change made behind our back."""

from datetime import UTC, datetime

import pytest

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.ledger import row_hash, verify_chain
from boucle.errors import LedgerError
from boucle_adapters.memory import MemoryStateStore


def five_promotions() -> list[Decision]:
    store = MemoryStateStore()
    for version in range(1, 6):
        new = NewDecision(
            kind=DecisionKind.PROMOTE,
            model=ModelName("repurchase"),
            at=datetime(1997, version, 1, tzinfo=UTC),
            actor="test",
            reason="better",
            from_version=ModelVersion(version - 1) if version > 1 else None,
            to_version=ModelVersion(version),
        )
        store.record(new, expected_production=new.from_version)
    return list(store.decisions())


def edited(row: Decision, **changes: object) -> Decision:
    return row.model_copy(update={"decision": row.decision.model_copy(update=changes)})


def test_a_ledger_as_it_was_written_is_whole():
    verify_chain(five_promotions())


def test_an_empty_ledger_is_whole():
    verify_chain([])


def test_an_edited_reason_is_named_by_its_row():
    rows = five_promotions()
    rows[2] = edited(rows[2], reason="because I said so")
    with pytest.raises(LedgerError, match=r"row 3 .* is not what was written"):
        verify_chain(rows)


def test_an_edit_that_mends_its_own_hash_is_found_in_the_next_row():
    rows = five_promotions()
    forged = edited(rows[2], actor="nobody")
    rows[2] = forged.model_copy(update={"row_hash": row_hash(forged.previous_hash, forged.decision)})
    with pytest.raises(LedgerError, match="row 4 does not follow row 3"):
        verify_chain(rows)


def test_a_deleted_row_is_found_in_the_row_after_it():
    rows = five_promotions()
    del rows[1]
    with pytest.raises(LedgerError, match="row 3 does not follow row 1"):
        verify_chain(rows)


def test_a_deleted_first_row_is_found():
    with pytest.raises(LedgerError, match="row 2 does not follow row 0"):
        verify_chain(five_promotions()[1:])


def test_two_swapped_rows_are_found():
    rows = five_promotions()
    rows[1], rows[2] = rows[2], rows[1]
    with pytest.raises(LedgerError, match="row 3 does not follow row 1"):
        verify_chain(rows)


def test_a_row_of_another_ledger_is_found():
    rows = five_promotions()
    rows[4] = rows[4].model_copy(update={"previous_hash": Digest("f" * 64)})
    with pytest.raises(LedgerError, match="row 5"):
        verify_chain(rows)
