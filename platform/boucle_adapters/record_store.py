"""What a digest stands for, where the digest alone would not say what changed: packages, source files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from boucle.contracts.document import canonical_json
from boucle_adapters.atomic_file import replace_bytes


@dataclass(frozen=True)
class RecordStore:
    """Names and values by the digest that they are known by, a file each."""

    root: Path

    def keep(self, digest: str, content: Mapping[str, str]) -> None:
        """Write what a digest stands for, once."""
        if not (file := self._file(digest)).exists():
            replace_bytes(file, canonical_json(dict(content)))

    def read(self, digest: str) -> dict[str, str] | None:
        """What a digest stands for; None when nobody kept it."""
        file = self._file(digest)
        if not file.exists():
            return None
        found: dict[str, str] = json.loads(file.read_bytes())
        return found

    def _file(self, digest: str) -> Path:
        return self.root / f"{digest}.json"
