"""The ledger as a file for auditors, and the ledger held against such a file later."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from boucle.contracts.decision import GENESIS, Decision
from boucle.contracts.ledger import verify_chain
from boucle.errors import ConfigurationError, LedgerError


def export_lines(rows: Sequence[Decision]) -> Iterator[str]:
    """Each row as one JSON object, oldest first, then `{"decisions": n, "head": hash}`.

    Raises:
        LedgerError: The chain is broken; nothing was exported.
    """
    verify_chain(rows)
    yield from (row.model_dump_json() for row in rows)
    yield json.dumps({"decisions": len(rows), "head": _head(rows)})


def check_export(file: Path, rows: Sequence[Decision]) -> str:
    """Hold the ledger against an earlier export: it must begin with every row of it. Returns what was found, in words.

    Raises:
        ConfigurationError: The file cannot be read or is no export.
        LedgerError: The export is not what was written, or the ledger has lost or changed rows since.
    """
    exported = _read(file)
    verify_chain(rows)
    for row, kept in zip(exported, [*rows, *([None] * len(exported))], strict=False):
        if kept is None:
            raise LedgerError(
                f"The ledger ends with row {len(rows)}, but {file} has row {row.decision_id} ({row.decision.kind} of "
                f"{row.decision.model}): rows at the end were deleted. Restore the state store from its backup."
            )
        if kept.row_hash != row.row_hash:
            raise LedgerError(
                f"Ledger row {row.decision_id} is not the one in {file} ({row.decision.kind} of {row.decision.model}): "
                "it was written anew, with all rows after it. Restore the state store from its backup."
            )
    return f"{file} is whole, and the ledger begins with its {len(exported)} decisions; {len(rows)} there are now."


def _read(file: Path) -> list[Decision]:
    try:
        *lines, last = file.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        rows, end = [Decision.model_validate_json(line) for line in lines], json.loads(last)
        said = (end["decisions"], end["head"])
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error}.") from error
    except (ValueError, ValidationError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{file} is no export of `boucle export-audit`, or its end is missing.") from error
    try:
        verify_chain(rows)
    except LedgerError as error:
        raise LedgerError(f"{file} was changed after it was written: {error}") from error
    if said != (len(rows), _head(rows)):
        raise LedgerError(f"{file} was changed after it was written: its last line speaks of {said[0]} decisions.")
    return rows


def _head(rows: Sequence[Decision]) -> str:
    return rows[-1].row_hash if rows else GENESIS
