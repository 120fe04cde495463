"""The landing zone: where source systems put files, and what makes a file unusable as a whole.

A file is `<landing>/<model>/<source>/<period>.csv` (UTF-8, one header line, comma-separated) with
`<period>.csv.sha256` beside it, in the format of `sha256sum`. A file without the second one is accepted when its last
line is whole.
"""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from boucle.contracts.ids import Digest, ModelName, PeriodKey
from boucle.errors import LandingError
from boucle.features.raw_source import LINE
from boucle_adapters.atomic_file import replace_bytes

_STAYS = "The period stays as it was."


@dataclass(frozen=True)
class LandingText:
    """A landing file's `rows` as text, with `line_number`, and the SHA-256 of the bytes they were read from."""

    rows: pd.DataFrame
    file_digest: Digest


def landing_file(landing_dir: Path, model: ModelName, source: str, period: PeriodKey) -> Path:
    """Where the file of one period lies."""
    return landing_dir / model / source / f"{period}.csv"


def checksum_file(file: Path) -> Path:
    """Where the SHA-256 of a landing file lies."""
    return file.with_name(f"{file.name}.sha256")


def published(landing_dir: Path, model: ModelName, source: str) -> tuple[PeriodKey, ...]:
    """Periods that have a file, oldest first."""
    return tuple(PeriodKey(file.stem) for file in sorted((landing_dir / model / source).glob("[!.]*.csv")))


def file_digest(file: Path) -> Digest:
    """SHA-256 of a landing file's bytes."""
    status = file.stat()
    return _file_digest(file, status.st_ino, status.st_size, status.st_mtime_ns)


def publish(frame: pd.DataFrame, file: Path) -> Digest:
    """Put a file and its checksum into the landing zone, as a source system does; return the SHA-256 of its bytes.

    At every moment the file is whole (the old or the new one) and its checksum is absent or its own, so that a kill in
    between leaves a usable file.
    """
    content = frame.to_csv(index=False, lineterminator="\n").encode()
    digest = Digest(hashlib.sha256(content).hexdigest())
    checksum_file(file).unlink(missing_ok=True)
    replace_bytes(file, content)
    replace_bytes(checksum_file(file), f"{digest}  {file.name}\n".encode())
    return digest


def read_landing(file: Path, columns: Sequence[str]) -> LandingText:
    """The file's rows as text; nothing is interpreted, an empty field is empty text.

    Args:
        file: The landing file.
        columns: The columns it must have, in any order, and no other.

    Raises:
        LandingError: The file is missing, empty, truncated, not UTF-8, or has other columns.
    """
    content = _stable_content(file)
    fields, numbers = _table(file, content, columns)
    rows = fields[list(columns)].assign(**{LINE: numbers})
    return LandingText(rows=rows, file_digest=Digest(hashlib.sha256(content).hexdigest()))


def read_table(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with these columns as text, read as strictly as a landing file, by whoever it was written.

    Raises:
        LandingError: The file is missing, empty, malformed, not UTF-8, or has other columns.
    """
    return _table(file, _content(file), columns)[0]


# The landing sensor asks for every file every few seconds: one that nobody touched is not read again.
@lru_cache(maxsize=4096)
def _file_digest(file: Path, _inode: int, _size: int, _modified_ns: int) -> Digest:
    with file.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def _stable_content(file: Path) -> bytes:
    # Checksum, content, checksum: when both readings agree, the content is the one that the checksum is of.
    for _ in range(5):
        before = _expected_digest(file)
        content = _content(file)
        if _expected_digest(file) == before:
            break
    _check_whole(content, before, file)
    return content


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise LandingError(
            f"{_place(file)} cannot be read ({error.strerror}). Wait for the source system to put it there "
            f"(`boucle feed` does it for the shipped models). {_STAYS}"
        ) from error


def _table(file: Path, content: bytes, columns: Sequence[str]) -> tuple[pd.DataFrame, list[int]]:
    """Fields as text, and the line of each row."""
    lines = _records(_decoded(file, content), file)
    if not lines:
        raise LandingError(f"{file.name} is empty: it has no header line. Have it sent again. {_STAYS}")
    _check_header(lines[0][1], columns, file)
    if len(lines) == 1:
        raise LandingError(f"{file.name} is empty: it has a header and no row. Have it sent again. {_STAYS}")
    fields = pd.DataFrame([fields for _, fields in lines[1:]], columns=lines[0][1], dtype=object)
    return fields, [number for number, _ in lines[1:]]


def _expected_digest(file: Path) -> str | None:
    try:
        text = checksum_file(file).read_text(errors="replace")
    except FileNotFoundError:
        return None
    return text.split(maxsplit=1)[0].lower() if text.split() else ""


def _check_whole(content: bytes, expected: str | None, file: Path) -> None:
    if not content.strip():
        raise LandingError(f"{file.name} is empty ({len(content)} bytes). Have it sent again. {_STAYS}")
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise LandingError(
            f"{file.name} is truncated or was changed: its SHA-256 is {found[:12]}…, {checksum_file(file).name} says "
            f"{expected[:12] or 'nothing'}…. Have both sent again. {_STAYS}"
        )
    if expected is None and not content.endswith(b"\n"):
        raise LandingError(
            f"{file.name} is truncated: its last line has no end, and no {checksum_file(file).name} proves it whole. "
            f"Have it sent again. {_STAYS}"
        )


def _decoded(file: Path, content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LandingError(
            f"{file.name} is not UTF-8: byte {error.start} is 0x{content[error.start]:02x}. "
            f"Have it sent in UTF-8. {_STAYS}"
        ) from error


def _records(text: str, file: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records: list[tuple[int, list[str]]] = []
    try:
        records.extend((reader.line_num, fields) for fields in reader if fields)
    except csv.Error as error:
        raise LandingError(
            f"{file.name} is not readable CSV: line {reader.line_num}: {error}. Have it sent again. {_STAYS}"
        ) from error
    for number, fields in records[1:]:
        if len(fields) != len(records[0][1]):
            torn = "is truncated: its last line" if number == records[-1][0] else f"is malformed: line {number}"
            raise LandingError(
                f"{file.name} {torn} has {len(fields)} fields, the header has {len(records[0][1])}. "
                f"Have it sent again. {_STAYS}"
            )
    return records


def _check_header(header: Sequence[str], columns: Sequence[str], file: Path) -> None:
    problems = [f"column '{name}' is missing" for name in columns if name not in header]
    problems += [f"column '{name}' is unknown" for name in header if name not in columns]
    problems += [f"column '{name}' is there twice" for name in sorted(set(header)) if header.count(name) > 1]
    if problems:
        raise LandingError(
            f"{file.name}: {'; '.join(problems)}. The header is {','.join(header)}; expected {','.join(columns)}. "
            f"Have it sent again with these columns, or change the landing contract. {_STAYS}"
        )


def _place(file: Path) -> str:
    return "/".join(file.parts[-3:])
