"""Evaluation reports in files: `<data>/<model>/versions/<version>/evidence/<digest>`, as JSON, page and summary."""

from pathlib import Path

from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelName, ModelVersion


class EvidenceFiles:
    """What was measured of each version, by digest: what a decision refers to is there for ever."""

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir

    def file(self, evidence: Evidence, suffix: str = ".html") -> Path:
        """The report that people read of this evidence; `.md` is its summary, `.json` the evidence itself."""
        return self._folder(evidence.model, evidence.version) / f"{evidence.digest()}{suffix}"

    def newest(self, model: ModelName, version: ModelVersion) -> Evidence | None:
        """The newest evidence about a version; None when it was never evaluated."""
        files = self._folder(model, version).glob("*.json")
        found = [Evidence.model_validate_json(file.read_text(encoding="utf-8")) for file in files]
        return max(found, key=lambda evidence: evidence.created_at, default=None)

    def _folder(self, model: ModelName, version: ModelVersion) -> Path:
        return self._data_dir / model / "versions" / str(version) / "evidence"
