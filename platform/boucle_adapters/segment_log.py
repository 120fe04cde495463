"""The prediction log as numbered JSON-lines segments: `<log>/<model>/<replica>/<segment:08d>.jsonl`.

A record is one line, written by one `write(2)` (those of a batch together) to a file opened for appending, so that it
survives the death of its process.
Segment numbers count from 1 for each replica and have no gap; a process never appends to a segment that it did not
start, because the last line of a dead process may be torn.
"""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionRecord

_SUFFIX = ".jsonl"


@dataclass
class _Writer:
    """The open segment of one (model, replica); -1 is none."""

    directory: Path
    descriptor: int = -1
    records: int = 0

    def append(self, lines: bytes, records: int, *, limit: int) -> None:
        if self.descriptor < 0 or self.records >= limit:
            self.close()
            self.descriptor = _start_segment(self.directory)
            self.records = 0
        try:
            written = os.write(self.descriptor, lines)
        except OSError:
            self.close()
            raise
        if written != len(lines):
            self.close()
            raise OSError(f"{self.directory}: {written} of {len(lines)} bytes of {records} prediction(s) were written")
        self.records += records

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@dataclass
class SegmentLog:
    """`boucle.ports.PredictionLog` over files. Any number of threads may append; any process may read."""

    root: Path
    records_per_segment: int = 10_000
    _writers: dict[tuple[str, str], _Writer] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def append(self, *records: PredictionRecord) -> None:
        """Write records of one model and replica before their answers leave, in one write: all or, on an error, some.

        Raises:
            OSError: They cannot be written (disk full, no permission). The next record starts a new segment.
        """
        if not records:
            return
        lines = b"".join(record.model_dump_json().encode() + b"\n" for record in records)
        key = (records[0].model, records[0].replica)
        with self._lock:
            writer = self._writers.get(key)
            if writer is None:
                writer = self._writers[key] = _Writer(self.root / key[0] / key[1])
            writer.append(lines, len(records), limit=self.records_per_segment)

    def read(self, model: ModelName, start: datetime, end: datetime) -> Iterator[PredictionRecord]:
        """Records with `start <= at < end`, once per prediction id, in the order each replica wrote them."""
        seen: set[str] = set()
        for record in self._records(model):
            if record is not None and start <= record.at < end and record.prediction_id not in seen:
                seen.add(record.prediction_id)
                yield record

    def torn_lines(self, model: ModelName) -> int:
        """Lines that are no record: cut off by the death of a process or damaged. Their answers never left whole."""
        return sum(record is None for record in self._records(model))

    def segment_gaps(self, model: ModelName) -> tuple[str, ...]:
        """Segments that are missing between the first and the last of a replica, as `<replica>/<segment>.jsonl`."""
        missing = []
        for directory in self._replica_directories(model):
            numbers = {_number(file) for file in _segments(directory)}
            gaps = set(range(1, max(numbers, default=0))) - numbers
            missing += [f"{directory.name}/{_name(number)}" for number in sorted(gaps)]
        return tuple(missing)

    def close(self) -> None:
        """Close the open segments; the next record starts new ones."""
        with self._lock:
            for writer in self._writers.values():
                writer.close()

    def _records(self, model: ModelName) -> Iterator[PredictionRecord | None]:
        for directory in self._replica_directories(model):
            for segment in _segments(directory):
                yield from _lines(segment)

    def _replica_directories(self, model: ModelName) -> list[Path]:
        directory = self.root / model
        return sorted(entry for entry in directory.iterdir() if entry.is_dir()) if directory.is_dir() else []


def _lines(segment: Path) -> Iterator[PredictionRecord | None]:
    with segment.open("rb") as lines:
        for line in lines:
            try:
                yield PredictionRecord.model_validate_json(line) if line.endswith(b"\n") else None
            except ValidationError:
                yield None


def _start_segment(directory: Path) -> int:
    directory.mkdir(parents=True, exist_ok=True)
    number = max((_number(file) for file in _segments(directory)), default=0) + 1
    while True:
        try:
            return os.open(directory / _name(number), os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another process of the same replica name was faster: both logs stay whole
            number += 1


def _segments(directory: Path) -> list[Path]:
    return sorted(file for file in directory.glob(f"*{_SUFFIX}") if file.stem.isdigit())


def _number(segment: Path) -> int:
    return int(segment.stem)


def _name(number: int) -> str:
    return f"{number:08d}{_SUFFIX}"
