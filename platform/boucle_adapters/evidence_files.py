"""Evaluation reports in files: `<data>/<model>/versions/<version>/evidence/<digest>`, as JSON, page and summary.

What another environment measured of an imported version lies beside it, in `imported/`: it is for people to read, and
no decision of this environment goes by it.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from boucle.contracts.archive import ARCHIVE_FILE, EVIDENCE_FILE, ArchiveManifest
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelName, ModelVersion
from boucle_adapters.atomic_file import replace_bytes


@dataclass(frozen=True, kw_only=True)
class ImportedEvidence:
    """Where a version came from, what was measured of it there, and the file of that."""

    manifest: ArchiveManifest
    evidence: Evidence
    file: Path


class EvidenceFiles:
    """What was measured of each version, by digest: what a decision refers to is there for ever."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def file(self, evidence: Evidence, suffix: str = ".html") -> Path:
        """The report that people read of this evidence; `.md` is its summary, `.json` the evidence itself."""
        return self._folder(evidence.model, evidence.version) / f"{evidence.digest()}{suffix}"

    def newest(self, model: ModelName, version: ModelVersion) -> Evidence | None:
        """The newest evidence about a version; None when it was never evaluated."""
        found = [_read(file) for file in self._folder(model, version).glob("*.json")]
        return max(found, key=lambda evidence: evidence.created_at, default=None)

    def imported(self, model: ModelName, version: ModelVersion) -> ImportedEvidence | None:
        """What came with an imported version; None for one that was made here."""
        folder = self._imported(model, version)
        if not (folder / ARCHIVE_FILE).exists():
            return None
        manifest = ArchiveManifest.model_validate_json((folder / ARCHIVE_FILE).read_bytes())
        return ImportedEvidence(manifest=manifest, evidence=_read(folder / EVIDENCE_FILE), file=folder / EVIDENCE_FILE)

    def keep_imported(self, version: ModelVersion, manifest: ArchiveManifest, evidence: Evidence) -> None:
        """Keep what came with a version that is this one here; `manifest` last, which says that all is there."""
        folder = self._imported(manifest.model, version)
        replace_bytes(folder / EVIDENCE_FILE, evidence.model_dump_json(indent=1).encode())
        replace_bytes(folder / ARCHIVE_FILE, manifest.model_dump_json(indent=1).encode())

    def of_runs(self, model: ModelName, run_ids: Collection[str]) -> list[Evidence]:
        """What these runs measured, of whichever version, the newest first, without files that cannot be read."""
        found = []
        for file in (self._data_dir / model / "versions").glob("*/evidence/*.json"):
            with suppress(OSError, ValueError):  # of other runs, as far as anybody knows
                found.append(_read(file))
        ours = [evidence for evidence in found if evidence.run_id in run_ids]
        return sorted(ours, key=lambda evidence: evidence.created_at, reverse=True)

    def _imported(self, model: ModelName, version: ModelVersion) -> Path:
        return self._data_dir / model / "versions" / str(version) / "imported"

    def _folder(self, model: ModelName, version: ModelVersion) -> Path:
        return self._data_dir / model / "versions" / str(version) / "evidence"


def _read(file: Path) -> Evidence:
    return _content(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=512)
def _content(file: Path, modified_ns: int) -> Evidence:  # noqa: ARG001 - names the content
    return Evidence.model_validate_json(file.read_text(encoding="utf-8"))
