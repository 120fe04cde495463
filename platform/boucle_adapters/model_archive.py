"""Archives of one version: the same version gives the same bytes, and nothing that was changed since is read."""

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from boucle.contracts.archive import (
    ARCHIVE_DIGEST_FILE,
    ARCHIVE_FILE,
    ARCHIVE_FORMAT,
    BUNDLE_FOLDER,
    EVIDENCE_FILE,
    TRAINING_FILE,
    ArchiveManifest,
)
from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    WARMUP_FILE,
    BundleContract,
    BundleManifest,
    WarmUp,
)
from boucle.contracts.data import TrainingManifest
from boucle.contracts.document import Document
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest
from boucle.errors import ArchiveError

D = TypeVar("D", bound=Document)

_OWN = (ARCHIVE_FILE, ARCHIVE_DIGEST_FILE)
_REQUIRED = (
    TRAINING_FILE,
    EVIDENCE_FILE,
    *(f"{BUNDLE_FOLDER}{name}" for name in (MANIFEST_FILE, MODEL_FILE, CONTRACT_FILE, WARMUP_FILE)),
)
_IN_BUNDLE = re.compile(re.escape(BUNDLE_FOLDER) + r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MEND = "Export it again (`boucle export`) and copy the whole file. Nothing was registered."


@dataclass(frozen=True, kw_only=True)
class ModelArchive:
    """An archive as values: every digest fits, and all of it is about one version."""

    manifest: ArchiveManifest
    training: TrainingManifest
    evidence: Evidence
    contract: BundleContract
    warm_up: WarmUp
    bundle: Mapping[str, bytes]
    """Content of the bundle's files by name: its manifest, the model, and the two documents above, among them."""


def pack(manifest: ArchiveManifest, files: Mapping[str, bytes]) -> bytes:
    """The tar file; `manifest.files` is filled in from `files`. The same arguments give the same bytes."""
    complete = manifest.model_copy(update={"files": {name: _sha256(content) for name, content in files.items()}})
    said = complete.canonical()
    return _tar({**files, ARCHIVE_FILE: said, ARCHIVE_DIGEST_FILE: _digest_line(said)})


def unpack(content: bytes) -> ModelArchive:
    """Read an archive and hold everything in it against its digests.

    Raises:
        ArchiveError: It is not, to the byte, what `pack` wrote, or it is of a format that this release does not know.
    """
    members = _members(content)
    manifest = _manifest(members)
    files = {name: data for name, data in members.items() if name not in _OWN}
    _require_same_files(manifest, files)
    if _tar(members) != content:
        raise ArchiveError(
            f"The archive has other bytes between or after its files than `boucle export` writes. {_MEND}"
        )
    archive = ModelArchive(
        manifest=manifest,
        training=_document(TRAINING_FILE, files, TrainingManifest),
        evidence=_document(EVIDENCE_FILE, files, Evidence),
        contract=_document(f"{BUNDLE_FOLDER}{CONTRACT_FILE}", files, BundleContract),
        warm_up=_document(f"{BUNDLE_FOLDER}{WARMUP_FILE}", files, WarmUp),
        bundle={
            name.removeprefix(BUNDLE_FOLDER): data for name, data in files.items() if name.startswith(BUNDLE_FOLDER)
        },
    )
    _require_one_version(archive, _document(f"{BUNDLE_FOLDER}{MANIFEST_FILE}", files, BundleManifest))
    return archive


def _tar(files: Mapping[str, bytes]) -> bytes:
    """Files by name, in order, without time, owner or anything else that differs from place to place."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def _members(content: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            for member in tar:
                _require_plain(member, found)
                stream = tar.extractfile(member)
                found[member.name] = stream.read() if stream else b""
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise ArchiveError(f"This is no archive of `boucle export`, or it is cut off: {error}. {_MEND}") from error
    return found


def _require_plain(member: tarfile.TarInfo, found: Mapping[str, bytes]) -> None:
    """Nothing but plain files under the names that an archive has, each once: no links, no paths out of it."""
    named = member.name in (*_OWN, TRAINING_FILE, EVIDENCE_FILE) or _IN_BUNDLE.fullmatch(member.name)
    if not named or member.type != tarfile.REGTYPE:
        raise ArchiveError(f"The archive holds '{member.name}', which no archive of a version has. {_MEND}")
    if member.name in found:
        raise ArchiveError(f"The archive holds '{member.name}' twice. {_MEND}")


def _manifest(members: Mapping[str, bytes]) -> ArchiveManifest:
    if missing := [name for name in _OWN if name not in members]:
        raise ArchiveError(f"The archive lacks {', '.join(missing)}: it is of something else, or cut off. {_MEND}")
    said, expected = members[ARCHIVE_FILE], members[ARCHIVE_DIGEST_FILE]
    if _digest_line(said) != expected:
        there = expected.decode(errors="replace").strip()
        raise ArchiveError(f"{ARCHIVE_FILE} has SHA-256 {_sha256(said)}, expected {there}. {_MEND}")
    written = _json(ARCHIVE_FILE, said)
    version = written.get("schema_version") if isinstance(written, dict) else None
    if version != ARCHIVE_FORMAT:
        raise ArchiveError(
            f"The archive has format {version}, this release reads format {ARCHIVE_FORMAT}. Import it with the release "
            "that wrote it, or export it again with this one. Nothing was registered."
        )
    return _document(ARCHIVE_FILE, members, ArchiveManifest)


def _require_same_files(manifest: ArchiveManifest, files: Mapping[str, bytes]) -> None:
    if missing := sorted({*manifest.files, *_REQUIRED} - set(files)):
        raise ArchiveError(f"The archive lacks {', '.join(missing)}. {_MEND}")
    if strange := sorted(set(files) - set(manifest.files)):
        raise ArchiveError(f"The archive holds {', '.join(strange)}, of which {ARCHIVE_FILE} says nothing. {_MEND}")
    for name, expected in manifest.files.items():
        if (found := _sha256(files[name])) != expected:
            raise ArchiveError(f"{name} has SHA-256 {found}, expected {expected}. {_MEND}")


def _require_one_version(archive: ModelArchive, bundle: BundleManifest) -> None:
    """What the documents say of each other: an archive put together from two versions has fitting digests too."""
    manifest, training, evidence = archive.manifest, archive.training, archive.evidence
    listed = {MANIFEST_FILE, *bundle.files}
    widths = sorted({len(request.features) for request in archive.warm_up.requests})
    pairs: tuple[tuple[str, object, object], ...] = (
        ("bundle", bundle.digest(), manifest.bundle_digest),
        ("bundle's model", bundle.model, manifest.model),
        ("bundle's files", sorted(archive.bundle), sorted(listed)),
        ("contract's model", archive.contract.model, manifest.model),
        ("recorded requests' features", widths, [len(archive.contract.features)]),
        ("training rows", training.content_digest, manifest.data_digest),
        ("training manifest's model", training.model, manifest.model),
        ("evidence", evidence.digest(), manifest.evidence_digest),
        ("evidence's model and version", (evidence.model, evidence.version), (manifest.model, manifest.version)),
        ("evidence's bundle", evidence.bundle_digest, manifest.bundle_digest),
    )
    for what, found, expected in pairs:
        if found != expected:
            raise ArchiveError(f"The archive's {what}: found {found}, where {expected} belongs. {_MEND}")


def _document(name: str, files: Mapping[str, bytes], kind: type[D]) -> D:
    try:
        return kind.model_validate_json(files[name])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ArchiveError(f"{name} is not what this release reads: {where}: {first['msg']}. {_MEND}") from error


def _json(name: str, content: bytes) -> object:
    try:
        return json.loads(content)
    except ValueError as error:
        raise ArchiveError(f"{name} is no JSON: {error}. {_MEND}") from error


def _digest_line(content: bytes) -> bytes:
    return f"{_sha256(content)}\n".encode()


def _sha256(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())
