"""Release bundles in a directory, each in a folder named by its digest; nothing that fails its digest gets out."""

import hashlib
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from boucle.contracts.bundle import CONTRACT_FILE, MANIFEST_FILE, MODEL_FILE, WARMUP_FILE, BundleManifest
from boucle.contracts.ids import Digest, ModelName
from boucle.errors import BundleError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_REQUIRED = (MODEL_FILE, CONTRACT_FILE, WARMUP_FILE)
_MEND = (
    "The bundle was not loaded; a version that is in memory keeps answering. Put the copy that the registry holds "
    "(tag `bundle_digest`) back, or materialise `candidate_model` again."
)


class DirectoryBundleStore:
    """`boucle.ports.BundleStore` over `<root>/<digest>/`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, source: Path, model: ModelName) -> Digest:
        """Store the files of `source` as a bundle and return its digest.

        A manifest that is in `source` already must fit the files; without one it is made. Storing the same twice is
        the same bundle; a damaged copy in the store is set aside and replaced.

        Raises:
            BundleError: A required file is missing, or the manifest does not fit. Nothing was stored.
        """
        manifest = _manifest_of(source, model)
        digest = manifest.digest()
        try:
            self.fetch(digest)
        except BundleError:
            self._store(source, manifest, digest)
        return digest

    def fetch(self, digest: Digest) -> Path:
        """The directory of a bundle, its manifest and every file of it verified.

        Raises:
            BundleError: There is no such bundle, or a file is not what the manifest says.
        """
        directory, manifest = self._manifest(digest)
        _verify_files(directory, manifest)
        return directory

    def read(self, digest: Digest) -> Mapping[str, bytes]:
        """The files of a bundle by name: the very bytes that were verified, whoever changes the directory meanwhile.

        Raises:
            BundleError: As `fetch`.
        """
        directory, manifest = self._manifest(digest)
        return {name: _content(directory, name, expected) for name, expected in manifest.files.items()}

    def _manifest(self, digest: Digest) -> tuple[Path, BundleManifest]:
        if not _DIGEST.fullmatch(digest):
            raise BundleError(f"'{digest}' is not the digest of a bundle (64 hexadecimal characters). {_MEND}")
        directory = self._root / digest
        manifest = _read_manifest(directory)
        if manifest.digest() != digest:
            raise BundleError(f"{directory / MANIFEST_FILE} has digest {manifest.digest()}, expected {digest}. {_MEND}")
        return directory, manifest

    def _store(self, source: Path, manifest: BundleManifest, digest: Digest) -> None:
        unique = f"{os.getpid()}-{time.monotonic_ns()}"
        draft = self._root / f".draft-{unique}"
        draft.mkdir(parents=True)
        try:
            for name in manifest.files:
                shutil.copyfile(source / name, draft / name)
            (draft / MANIFEST_FILE).write_bytes(manifest.canonical())
            _verify_files(draft, manifest)
            target = self._root / digest
            if target.exists():
                target.rename(self._root / f".damaged-{digest}-{unique}")
            draft.rename(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def file_digest(file: Path) -> Digest:
    """SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return Digest(hashlib.file_digest(stream, "sha256").hexdigest())


def _manifest_of(source: Path, model: ModelName) -> BundleManifest:
    missing = [name for name in _REQUIRED if not (source / name).is_file()]
    if missing:
        raise BundleError(f"{source} lacks {', '.join(missing)} and so is not a release bundle. Nothing was stored.")
    if (source / MANIFEST_FILE).exists():
        manifest = _read_manifest(source)
        _verify_files(source, manifest)
        if manifest.model != model or not set(_REQUIRED) <= set(manifest.files):
            raise BundleError(
                f"{source / MANIFEST_FILE} is of model '{manifest.model}' and lists {', '.join(manifest.files)}; "
                f"expected model '{model}' and at least {', '.join(_REQUIRED)}. Nothing was stored."
            )
        return manifest
    files = sorted(file for file in source.iterdir() if file.is_file())
    return BundleManifest(model=model, files={file.name: file_digest(file) for file in files})


def _read_manifest(directory: Path) -> BundleManifest:
    file = directory / MANIFEST_FILE
    try:
        return BundleManifest.model_validate_json(file.read_bytes())
    except OSError as error:
        raise BundleError(f"{file} cannot be read ({error.strerror}). {_MEND}") from error
    except ValidationError as error:
        raise BundleError(f"{file} is not a bundle manifest: {error.errors()[0]['msg']}. {_MEND}") from error


def _verify_files(directory: Path, manifest: BundleManifest) -> None:
    for name, expected in manifest.files.items():
        _content(directory, name, expected)


def _content(directory: Path, name: str, expected: Digest) -> bytes:
    """The bytes of a file, read once and verified."""
    if Path(name).name != name:
        raise BundleError(f"{directory / MANIFEST_FILE} names '{name}', which is not a plain file name. {_MEND}")
    try:
        content = (directory / name).read_bytes()
    except OSError as error:
        raise BundleError(f"{directory / name} cannot be read ({error.strerror}). {_MEND}") from error
    if (found := hashlib.sha256(content).hexdigest()) != expected:
        raise BundleError(f"{directory / name} has SHA-256 {found}, expected {expected}. {_MEND}")
    return content
