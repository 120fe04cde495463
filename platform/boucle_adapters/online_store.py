"""The online snapshot: written whole by the platform, looked up by serving in memory-mapped arrays (numpy only)."""

import hashlib
import os
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from boucle.contracts.ids import Digest, EntityKey, ModelName
from boucle.contracts.online import CURRENT_FILE, OnlineManifest
from boucle.errors import AsOfError, DataContractError, FeatureLookupError, UnknownEntityError
from boucle.ports import OnlineRow

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAY_US = 86_400_000_000
_ARRAY_FILES = ("entity_keys.npy", "as_of.npy", "features.npy")
_MANIFEST_FILE = "manifest.json"
_Rows = tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int64], npt.NDArray[np.float64]]


class BeyondWatermarkError(AsOfError):
    """The `as_of` lies after the last published moment, so what was known then is not known yet."""


def to_microseconds(moment: datetime) -> int:
    """Microseconds from 1970-01-01 UTC to an aware moment, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """The moment in UTC, exactly."""
    return _EPOCH + timedelta(microseconds=value)


def publish_snapshot(
    directory: Path,
    *,
    entity_keys: Sequence[str],
    as_of: Sequence[datetime] | npt.NDArray[Any],
    features: npt.NDArray[np.float64],
    feature_names: Sequence[str],
    watermark: datetime,
    source_digests: Sequence[Digest],
    keep: int = 2,
) -> OnlineManifest:
    """Write a snapshot below `directory` (`<online>/<model>`) and make it the one in force; see `prepared_snapshot`."""
    with prepared_snapshot(
        directory,
        entity_keys=entity_keys,
        as_of=as_of,
        features=features,
        feature_names=feature_names,
        watermark=watermark,
        source_digests=source_digests,
        keep=keep,
    ) as written:
        return written.manifest


@contextmanager
def prepared_snapshot(
    directory: Path,
    *,
    entity_keys: Sequence[str],
    as_of: Sequence[datetime] | npt.NDArray[Any],
    features: npt.NDArray[np.float64],
    feature_names: Sequence[str],
    watermark: datetime,
    source_digests: Sequence[Digest],
    keep: int = 2,
) -> Iterator["Snapshot"]:
    """Write a snapshot below `directory`, give it to the block to look at, and put it in force when that ends well.

    Args:
        directory: Where the snapshots of this model live; its name is the model.
        entity_keys: One per row, in any order.
        as_of: One per row: aware datetimes, or a numpy array of datetime64 (UTC) or of int64 microseconds.
        features: Shape [rows, len(feature_names)]; NaN is a missing value.
        feature_names: The columns of `features`.
        watermark: Nothing after it is known; not before the newest row.
        source_digests: What the rows were made of.
        keep: How many snapshots stay on disk, the new one included.

    Raises:
        DataContractError: No row, shapes that do not fit, two rows of one (entity, as_of), a row after the watermark.
            The snapshot in force stays.
    """
    rows = _sorted_arrays(entity_keys, as_of, features)
    _check(*rows, feature_names, watermark)
    with _draft_in(directory) as draft:
        manifest = OnlineManifest(
            model=ModelName(directory.name),
            feature_names=tuple(feature_names),
            rows=len(rows[0]),
            entities=len(_starts(rows[0])),
            oldest_as_of=from_microseconds(int(rows[1].min())),
            watermark=watermark,
            source_digests=tuple(source_digests),
            content_digest=_write_arrays(draft, rows),
        )
        (draft / _MANIFEST_FILE).write_bytes(manifest.canonical())
        yield Snapshot.open(draft, manifest.digest())
        _put_in_force(directory, draft, manifest.digest(), keep)


@dataclass(frozen=True)
class Snapshot:
    """One whole snapshot, mapped into memory."""

    digest: Digest
    manifest: OnlineManifest
    watermark_us: int
    entities: npt.NDArray[np.bytes_]
    """Each entity once, sorted; rows `starts[i]` up to `starts[i + 1]` are of `entities[i]`."""
    starts: list[int]
    as_of: Sequence[int]
    """Microseconds from 1970, as plain numbers: an element of a numpy array costs twice as much to compare."""
    features: npt.NDArray[np.float64]

    @classmethod
    def open(cls, directory: Path, digest: Digest | None = None) -> "Snapshot":
        """Map the snapshot in `directory` (`<online>/<model>/<digest>`), verified.

        Args:
            directory: Where its files lie.
            digest: What its manifest must have; by default what the directory is named after.

        Raises:
            FeatureLookupError: A file is missing, cut short, or not what the manifest says.
        """
        try:
            manifest = OnlineManifest.model_validate_json((directory / _MANIFEST_FILE).read_bytes())
            found = _content_digest(directory)
            keys, as_of, features = (_mapped(directory / name) for name in _ARRAY_FILES)
        except (OSError, ValueError, EOFError, ValidationError) as error:
            raise FeatureLookupError(f"The online snapshot {directory} cannot be read: {error}.") from error
        digest = digest or Digest(directory.name)
        if manifest.digest() != digest or found != manifest.content_digest:
            raise FeatureLookupError(
                f"The online snapshot {directory} is torn: its content has SHA-256 {found}, its manifest digest "
                f"{manifest.digest()}. Materialise `online_features` again."
            )
        starts = _starts(keys)
        watermark = to_microseconds(manifest.watermark)
        ends = [*starts.tolist(), len(keys)]
        return cls(digest, manifest, watermark, keys[starts], ends, as_of.data, features)

    def look_up(self, entity_key: EntityKey, as_of: datetime, *, max_age_days: float) -> OnlineRow:
        """The newest row with `as_of - max_age < row.as_of <= as_of`. Raises UnknownEntityError or AsOfError."""
        moment = to_microseconds(as_of)
        if moment > self.watermark_us:
            raise self._beyond_watermark(as_of)
        first, end = self._rows_of(entity_key)
        position = bisect_right(self.as_of, moment, first, end) - 1
        if position < first:
            raise self._before_first_row(entity_key, as_of, first)
        found = self.as_of[position]
        if found <= moment - max_age_days * _DAY_US:
            raise self._too_old(entity_key, as_of, found, max_age_days)
        return OnlineRow(values=self.features[position].tolist(), as_of=from_microseconds(found))

    def _rows_of(self, entity_key: EntityKey) -> tuple[int, int]:
        key = entity_key.encode()
        # A key wider than the column would make numpy widen (copy) the whole column; NUL is its padding.
        if 0 < len(key) <= self.entities.dtype.itemsize and b"\0" not in key:
            place = int(self.entities.searchsorted(key))
            if place < len(self.entities) and self.entities[place] == key:
                return self.starts[place], self.starts[place + 1]
        raise UnknownEntityError(
            f"'{entity_key}' is not among the {self.manifest.entities} entities of '{self.manifest.model}' known by "
            f"{self.manifest.watermark.isoformat()}. Check the key, or land the period in which it first appears."
        )

    def _beyond_watermark(self, as_of: datetime) -> BeyondWatermarkError:
        return BeyondWatermarkError(
            f"as_of {as_of.isoformat()} lies after the watermark {self.manifest.watermark.isoformat()}: what was known "
            f"then of '{self.manifest.model}' is not published yet. Ask for a moment up to the watermark, or land the "
            "next period and materialise `online_features`."
        )

    def _before_first_row(self, entity_key: EntityKey, as_of: datetime, first: int) -> AsOfError:
        return AsOfError(
            f"'{entity_key}' has no features at as_of {as_of.isoformat()}: its first row is of "
            f"{from_microseconds(self.as_of[first]).isoformat()}. Ask for that moment or a later one."
        )

    def _too_old(self, entity_key: EntityKey, as_of: datetime, found: int, max_age_days: float) -> AsOfError:
        age_days = (to_microseconds(as_of) - found) / _DAY_US
        return AsOfError(
            f"The newest features of '{entity_key}' at as_of {as_of.isoformat()} are {age_days:g} days old (of "
            f"{from_microseconds(found).isoformat()}); they must be younger than {max_age_days:g} days. Land the "
            "missing period and materialise `online_features`."
        )


class OnlineStore:
    """`boucle.ports.OnlineFeatures` of one model: the snapshot in force, followed by `refresh`.

    `refresh` runs in one thread; look-ups may run in any: each sees one whole snapshot.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._snapshot: Snapshot | None = None
        self._refused: tuple[str, int] | None = None
        self.problem: str | None = f"There is no online snapshot in {directory} yet. Materialise `online_features`."

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot in force. Raises FeatureLookupError while there is none."""
        snapshot = self._snapshot
        if snapshot is None:
            raise FeatureLookupError(self.problem or "There is no online snapshot yet.")
        return snapshot

    def look_up(self, entity_key: EntityKey, as_of: datetime, *, max_age_days: float) -> OnlineRow:
        """The newest row with `as_of - max_age < row.as_of <= as_of`. Raises UnknownEntityError or AsOfError."""
        return self.snapshot.look_up(entity_key, as_of, max_age_days=max_age_days)

    def refresh(self) -> bool:
        """Follow `CURRENT`; True when another snapshot is in force now. What cannot be read leaves the old one."""
        current = self._directory / CURRENT_FILE
        try:
            digest, stamp = current.read_text().strip(), current.stat().st_mtime_ns
        except OSError as error:
            self.problem = f"{current} cannot be read ({error.strerror}). Materialise `online_features`."
            return False
        if self._snapshot is not None and digest == self._snapshot.digest:
            self.problem = None
            return False
        return (digest, stamp) != self._refused and self._swap(digest, stamp)

    def _swap(self, digest: str, stamp: int) -> bool:
        try:
            self._snapshot = Snapshot.open(self._directory / digest)
        except FeatureLookupError as error:
            stays = "none was in force before" if self._snapshot is None else "the one before stays in force"
            self.problem = f"{error} Not loaded; {stays}."
            self._refused = (digest, stamp)  # hashing it again ten times a second would not mend it
            return False
        self.problem = None
        return True


def _sorted_arrays(
    entity_keys: Sequence[str], as_of: Sequence[datetime] | npt.NDArray[Any], features: npt.NDArray[np.float64]
) -> _Rows:
    keys = np.array([key.encode() for key in entity_keys], dtype=np.bytes_)
    moments = _as_microseconds(as_of)
    values = np.asarray(features, dtype=np.float64)
    if not len(keys) == len(moments) == len(values):
        raise DataContractError(
            f"{len(keys)} entity keys, {len(moments)} moments and {len(values)} feature rows do not fit each other. "
            "The snapshot in force stays."
        )
    order = np.lexsort((moments, keys))
    return keys[order], moments[order], np.ascontiguousarray(values[order])


def _as_microseconds(as_of: Sequence[datetime] | npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if isinstance(as_of, np.ndarray) and as_of.dtype.kind == "M":
        return as_of.astype("datetime64[us]").astype(np.int64)
    if isinstance(as_of, np.ndarray) and as_of.dtype.kind == "i":
        return as_of.astype(np.int64)
    return np.array([to_microseconds(moment) for moment in as_of], dtype=np.int64)


def _check(
    keys: npt.NDArray[np.bytes_],
    moments: npt.NDArray[np.int64],
    values: npt.NDArray[np.float64],
    feature_names: Sequence[str],
    watermark: datetime,
) -> None:
    stays = "The snapshot in force stays."
    if len(keys) == 0:
        raise DataContractError(f"There is no row to publish. {stays}")
    if values.shape[1:] != (len(feature_names),):
        raise DataContractError(f"Feature rows have shape {values.shape[1:]}, names are {list(feature_names)}. {stays}")
    twice = np.flatnonzero((keys[1:] == keys[:-1]) & (moments[1:] == moments[:-1]))
    if len(twice):
        at = from_microseconds(int(moments[twice[0]])).isoformat()
        raise DataContractError(f"'{keys[twice[0]].decode()}' has two rows of {at}. {stays}")
    if int(moments.max()) > to_microseconds(watermark):
        newest = from_microseconds(int(moments.max())).isoformat()
        raise DataContractError(f"A row of {newest} lies after the watermark {watermark.isoformat()}. {stays}")


def _starts(sorted_keys: npt.NDArray[np.bytes_]) -> npt.NDArray[np.int64]:
    """Where each entity's rows start."""
    return np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))


@contextmanager
def _draft_in(directory: Path) -> Iterator[Path]:
    draft = directory / f".draft-{os.getpid()}-{time.monotonic_ns()}"
    draft.mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_arrays(directory: Path, arrays: _Rows) -> Digest:
    for name, array in zip(_ARRAY_FILES, arrays, strict=True):
        np.save(directory / name, array, allow_pickle=False)
    return _content_digest(directory)


def _content_digest(directory: Path) -> Digest:
    digest = hashlib.sha256()
    for name in _ARRAY_FILES:
        with (directory / name).open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return Digest(digest.hexdigest())


def _mapped(file: Path) -> npt.NDArray[Any]:
    # A plain view: every slice of a np.memmap costs a microsecond of bookkeeping.
    array: npt.NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
    return array


def _put_in_force(directory: Path, draft: Path, digest: Digest, keep: int) -> None:
    target = directory / digest
    if not _is_whole(target):
        if target.exists():
            target.rename(directory / f".damaged-{digest}-{time.monotonic_ns()}")
        draft.rename(target)
    pointer = directory / f".{CURRENT_FILE}-{os.getpid()}-{time.monotonic_ns()}"
    pointer.write_text(digest)
    pointer.replace(directory / CURRENT_FILE)
    os.utime(target)
    others = [entry for entry in directory.iterdir() if (entry / _MANIFEST_FILE).exists() and entry.name[0] != "."]
    # A reader that has mapped a removed snapshot keeps it until it lets go.
    for old in sorted(others, key=lambda entry: (entry != target, -entry.stat().st_mtime_ns))[keep:]:
        shutil.rmtree(old, ignore_errors=True)


def _is_whole(directory: Path) -> bool:
    try:
        Snapshot.open(directory)
    except FeatureLookupError:
        return False
    return True
