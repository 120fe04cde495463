"""Logs of records as numbered JSON-lines segments: `<log>/<model>/<replica>/<segment:08d>.jsonl`.

A record is one line, written by one `write(2)` (those of a batch together) to a file opened for appending, so that it
survives the death of its process; `sync` brings it to the disk, so that it survives the death of the machine.
Segments are closed by size and age, and a closed one is sealed: `<segment:08d>.seal.json` beside it says how many bytes
and records it has, their SHA-256, and which moments they are of. Numbers count from 1 for each replica and have no gap.
A process never appends to a segment that it did not start: the last line of a dead process may be torn.
"""

import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from boucle.contracts.document import Document
from boucle.contracts.feedback import FEEDBACK_STREAM, FeedbackFields, FeedbackRecord
from boucle.contracts.ids import Digest
from boucle.contracts.prediction import PredictionFields, PredictionRecord, SegmentSeal
from boucle.contracts.shadow import ShadowFields, ShadowRecord
from boucle_adapters.atomic_file import replace_bytes

_Record = TypeVar("_Record", bound=Document)
_Fields = TypeVar("_Fields", bound=Mapping[str, Any])
_SUFFIX, _SEAL_SUFFIX = ".jsonl", ".seal.json"


@dataclass(frozen=True, kw_only=True)
class RecordKind(Generic[_Record]):
    """What the records of a log are.

    Args:
        record: The class of a line.
        name: One of them, for messages.
        identity: What is equal for lines that are the same record, which is then read once.
        moment: The field with the moment that windows and seals are about.
        stream: The directory of all of them; by default each goes to that of its `model`.
    """

    record: type[_Record]
    name: str
    identity: Callable[[_Record], Hashable]
    moment: str = "at"
    stream: str | None = None

    def read(self, line: bytes) -> _Record | None:
        """The record of a line; None when it is torn or damaged."""
        try:
            return self.record.model_validate_json(line) if line.endswith(b"\n") else None
        except ValidationError:
            return None

    def moment_of(self, record: _Record) -> datetime:
        """The moment that a record is of."""
        moment: datetime = getattr(record, self.moment)
        return moment


@dataclass
class _Segment:
    """A segment that this process writes: it holds the file's lock until the segment is sealed."""

    kind: RecordKind[Any]
    file: Path
    descriptor: int
    opened_at: float
    size: int = 0
    records: int = 0
    first_at: datetime | None = None
    last_at: datetime | None = None
    synced: int = 0
    """How many of its bytes are known to be on the disk."""

    def write(self, lines: bytes, records: Sequence[Mapping[str, Any]], *, sync: bool) -> None:
        """Append whole records, with `sync` to the disk, or raise OSError and leave the segment as it was."""
        written = 0
        try:
            written = os.write(self.descriptor, lines)
            if written != len(lines):
                raise OSError(
                    f"{self.file}: {written} of {len(lines)} bytes of {len(records)} {self.kind.name}(s) were written"
                )
            if sync:
                os.fsync(self.descriptor)
        except OSError:
            if written:
                os.ftruncate(self.descriptor, self.size)
            raise
        self.size += written
        self.records += len(records)
        moment = self.kind.moment
        for record in records:
            at = record[moment]
            if self.first_at is None or at < self.first_at:
                self.first_at = at
            if self.last_at is None or at > self.last_at:
                self.last_at = at


@dataclass
class Segments(Generic[_Fields, _Record]):
    """`boucle.ports.RecordLog` over files. Any number of threads may append; any process may read.

    Args:
        root: The directory of the log, such as `<home>/prediction_log`.
        segment_bytes: A segment that has so many is closed.
        segment_seconds: A segment that is so old is closed by the next record, or by `sync`.
        sync_each: Bring every record to the disk before it counts as written: slow, and safe from a power cut.
        timer: A monotonic clock in seconds.
    """

    kind: ClassVar[RecordKind[Any]]
    root: Path
    segment_bytes: int = 16 * 1024 * 1024
    segment_seconds: float = 3_600.0
    sync_each: bool = False
    timer: Callable[[], float] = time.monotonic
    _open: dict[tuple[str, str], _Segment] = field(default_factory=dict, init=False)
    _closed: list[_Segment] = field(default_factory=list, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _sealing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def append(self, *records: _Fields) -> None:
        """Write records of one stream and replica before their answers leave: all of them, or none and an error.

        Raises:
            OSError: They cannot be written (disk full, no permission). The next record is tried anew.
        """
        if not records:
            return
        lines = b"".join([to_json(record, inf_nan_mode="null") + b"\n" for record in records])
        key = (self.kind.stream or records[0]["model"], records[0]["replica"])
        with self._lock:
            segment = self._open.get(key)
            if segment is not None and self._is_full(segment):
                self._closed.append(self._open.pop(key))
                segment = None
            if segment is None:
                segment = self._open[key] = self._start(self.root / key[0] / key[1])
            segment.write(lines, records, sync=self.sync_each)

    def sync(self) -> None:
        """Bring what was written to the disk, close segments that are old, seal those that are closed.

        Raises:
            OSError: The disk does not take it; it is tried again the next time.
        """
        with self._lock:
            for key in [key for key, segment in self._open.items() if segment.records and self._is_full(segment)]:
                self._closed.append(self._open.pop(key))
            dirty = [segment for segment in self._open.values() if segment.synced < segment.size]
            sizes = [(segment, segment.size, os.dup(segment.descriptor)) for segment in dirty]
        for segment, size, descriptor in sizes:
            try:
                os.fsync(descriptor)
                segment.synced = size
            finally:
                os.close(descriptor)
        self._seal_closed()

    def repair(self, replica: str) -> tuple[str, ...]:
        """Seal the segments that a dead process of this replica left open; a torn last line is cut off.

        Its answer never left whole. What a living process writes is left alone. Returns what was cut, a sentence each.
        """
        cut = []
        for directory in self.root.glob(f"*/{replica}"):
            for file in _segments(directory):
                if not _seal_file(file).exists():
                    cut += _seal_left_behind(file, self.kind)
        return tuple(cut)

    def streams(self) -> tuple[str, ...]:
        """What there are records of: the models, in their order."""
        return tuple(directory.name for directory in _directories(self.root))

    def read(self, stream: str, start: datetime, end: datetime) -> Iterator[_Record]:
        """Records with `start <= moment < end`, each once, in the order each replica wrote them."""
        kind, seen = self.kind, set()
        for file in self._files(stream, start, end):
            for record in self._lines(file):
                if record is None or not start <= kind.moment_of(record) < end:
                    continue
                identity = kind.identity(record)
                if identity not in seen:
                    seen.add(identity)
                    yield record

    def torn_lines(self, stream: str) -> int:
        """Lines that are no record: cut off by the death of a process or damaged. Their answers never left whole."""
        return sum(record is None for file in self._files(stream) for record in self._lines(file))

    def segment_gaps(self, stream: str) -> tuple[str, ...]:
        """Segments that are missing between the first and the last of a replica, as `<replica>/<segment>.jsonl`."""
        missing = []
        for directory in _directories(self.root / stream):
            numbers = {_number(file) for file in _segments(directory)}
            sealed = {int(file.name.removesuffix(_SEAL_SUFFIX)) for file in directory.glob(f"*{_SEAL_SUFFIX}")}
            gaps = set(range(1, max(numbers | sealed, default=0) + 1)) - numbers
            missing += [f"{directory.name}/{_name(number)}" for number in sorted(gaps)]
        return tuple(missing)

    def changed_segments(
        self, stream: str, start: datetime | None = None, end: datetime | None = None
    ) -> tuple[str, ...]:
        """Sealed segments that are not what was sealed, as `<replica>/<segment>.jsonl`; of a window, or all."""
        changed = []
        for file in self._files(stream, start, end):
            seal = _seal_of(file)
            if seal is not None and _sha256(file) != seal.sha256:
                changed.append(f"{file.parent.name}/{file.name}")
        return tuple(changed)

    def close(self) -> None:
        """Close and seal the open segments; the next record starts new ones."""
        with self._lock:
            self._closed += self._open.values()
            self._open.clear()
        self._seal_closed()

    def _is_full(self, segment: _Segment) -> bool:
        return segment.size >= self.segment_bytes or self.timer() - segment.opened_at >= self.segment_seconds

    def _start(self, directory: Path) -> _Segment:
        directory.mkdir(parents=True, exist_ok=True)
        number = max((_number(file) for file in _segments(directory)), default=0) + 1
        while True:
            file = directory / _name(number)
            try:
                descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:  # another process of the same replica name was faster: both logs stay whole
                number += 1
                continue
            if _locked(descriptor) and not _seal_file(file).exists():
                return _Segment(self.kind, file, descriptor, self.timer())
            os.close(descriptor)  # it was found and sealed, empty, by a process that put this directory in order
            number += 1

    def _seal_closed(self) -> None:
        with self._sealing:
            while self._closed:
                segment = self._closed[0]
                _seal(segment)
                os.close(segment.descriptor)
                self._closed.pop(0)

    def _files(self, stream: str, start: datetime | None = None, end: datetime | None = None) -> Iterator[Path]:
        """Segments in which records of the window may be, in their order."""
        for directory in _directories(self.root / stream):
            for file in _segments(directory):
                seal = _seal_of(file) if start and end else None
                if seal is None or _overlaps(seal, start, end):
                    yield file

    def _lines(self, file: Path) -> Iterator[_Record | None]:
        with file.open("rb") as lines:
            for line in lines:
                yield self.kind.read(line)


class SegmentLog(Segments[PredictionFields, PredictionRecord]):
    """`boucle.ports.PredictionLog` over files: `<home>/prediction_log`."""

    kind = RecordKind(record=PredictionRecord, name="prediction", identity=lambda record: record.prediction_id)


class FeedbackSegments(Segments[FeedbackFields, FeedbackRecord]):
    """`boucle.ports.FeedbackLog` over files: `<home>/feedback_log`. Windows are of `received_at`.

    What was said again is another line: `boucle_adapters.feedback` says what counts.
    """

    kind = RecordKind(
        record=FeedbackRecord,
        name="feedback",
        identity=lambda record: (record.content, record.received_at),
        moment="received_at",
        stream=FEEDBACK_STREAM,
    )


class ShadowSegments(Segments[ShadowFields, ShadowRecord]):
    """`boucle.ports.ShadowLog` over files: `<home>/shadow_log`. Each version answers a prediction once."""

    kind = RecordKind(
        record=ShadowRecord,
        name="shadow answer",
        identity=lambda record: (record.prediction_id, record.bundle_digest),
    )


def _overlaps(seal: SegmentSeal, start: datetime | None, end: datetime | None) -> bool:
    if not (start and end and seal.first_at and seal.last_at):
        return True
    return seal.first_at < end and seal.last_at >= start


def _seal(segment: _Segment, *, torn_bytes: int = 0) -> None:
    """Bring a closed segment to the disk and write down what it holds."""
    os.fsync(segment.descriptor)
    seal = SegmentSeal(
        records=segment.records,
        bytes=segment.size,
        sha256=_sha256(segment.file),
        first_at=segment.first_at,
        last_at=segment.last_at,
        torn_bytes=torn_bytes,
    )
    replace_bytes(_seal_file(segment.file), seal.canonical())


def _locked(descriptor: int) -> bool:
    """Take the lock of a segment; False when another process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _seal_left_behind(file: Path, kind: RecordKind[Any]) -> list[str]:
    """Seal a segment that nobody writes any more."""
    descriptor = os.open(file, os.O_RDWR)
    try:
        if not _locked(descriptor):  # a living process of the same replica name writes it
            return []
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.ftruncate(descriptor, whole)
        records = [kind.read(line) for line in content[:whole].splitlines(keepends=True)]
        moments = [kind.moment_of(record) for record in records if record is not None]
        segment = _Segment(
            kind,
            file,
            descriptor,
            opened_at=0.0,
            size=whole,
            records=len(records),
            first_at=min(moments, default=None),
            last_at=max(moments, default=None),
        )
        _seal(segment, torn_bytes=len(content) - whole)
    finally:
        os.close(descriptor)
    torn = len(content) - whole
    return [f"{file}: the last {torn} bytes were torn and are cut off; their answer never left."] if torn else []


def _sha256(file: Path) -> Digest:
    with file.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def _seal_of(file: Path) -> SegmentSeal | None:
    """The seal of a segment; None when it has none yet, or a damaged one, which then says nothing."""
    try:
        return SegmentSeal.model_validate_json(_seal_file(file).read_bytes())
    except (OSError, ValidationError):
        return None


def _seal_file(file: Path) -> Path:
    return file.with_name(f"{file.stem}{_SEAL_SUFFIX}")


def _directories(parent: Path) -> list[Path]:
    return sorted(entry for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []


def _segments(directory: Path) -> list[Path]:
    return sorted(file for file in directory.glob(f"*{_SUFFIX}") if file.stem.isdigit())


def _number(segment: Path) -> int:
    return int(segment.stem)


def _name(number: int) -> str:
    return f"{number:08d}{_SUFFIX}"
