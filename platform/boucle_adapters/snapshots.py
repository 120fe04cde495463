"""Immutable Parquet snapshots and the quarantine: what other steps read instead of the warehouse.

`<data>/<model>/validated_features/<period>/` holds `<digest>.parquet` and `<digest>.json` for each content the period
ever had, `CURRENT`, which names the one in force, and, where corrections landed after its `as_of`, `RESTATED`, which
names the one that knows them: requests are answered from it, no model learns from it.
`<data>/<model>/quarantine/<source>/<period>.parquet` holds the rows of the period that were set aside, with the column
`reason`; `<data>/<model>/refused/` likewise those of a landing file that was refused whole, until a good one is loaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd
from pyarrow import ArrowInvalid
from pydantic import ValidationError

from boucle.contracts.data import SnapshotManifest
from boucle.contracts.ids import Digest, ModelName, PeriodKey
from boucle.contracts.windows import Period
from boucle.errors import NotEnoughDataError
from boucle.features.digest import content_digest
from boucle_adapters.atomic_file import put_in_place, replace_bytes

CURRENT, RESTATED = "CURRENT", "RESTATED"
QUARANTINE, REFUSED = "quarantine", "refused"


@dataclass(frozen=True)
class SnapshotStore:
    """Snapshots below `<home>/data`. Paths in manifests are relative to the home."""

    home: Path

    def write(
        self,
        frame: pd.DataFrame,
        *,
        model: ModelName,
        period: Period,
        keys: Sequence[str],
        quarantined: int,
        created_at: datetime,
        pointer: str = CURRENT,
    ) -> SnapshotManifest:
        """Store a period's validated rows and make them the current ones; content seen before is not written again.

        Args:
            frame: Valid rows, each with an `as_of` in the period.
            model: The model they are features of.
            period: The period they are of.
            keys: Columns that name a row.
            quarantined: Rows of the period that broke the contract.
            created_at: Moment of the snapshot, from the clock.
            pointer: What names it: `CURRENT`, or `RESTATED` for rows that know later corrections.
        """
        digest = content_digest(frame, keys)
        folder = self._folder(model, period.key)
        file = folder / f"{digest}.parquet"
        if not file.exists():
            with put_in_place(file) as draft:
                frame.to_parquet(draft, index=False)
        manifest = SnapshotManifest(
            model=model,
            period=period.key,
            as_of=period.end,
            rows=len(frame),
            quarantined=quarantined,
            columns=tuple(frame.columns),
            content_digest=digest,
            file=file.relative_to(self.home).as_posix(),
            created_at=created_at,
        )
        manifest = self._keep(manifest, folder / f"{digest}.json")
        replace_bytes(folder / pointer, digest.encode())
        return manifest

    def current(self, model: ModelName, period: PeriodKey, *, pointer: str = CURRENT) -> SnapshotManifest | None:
        """The manifest in force for a period, or None when it has no snapshot."""
        try:
            digest = (self._folder(model, period) / pointer).read_text()
        except FileNotFoundError:
            return None
        return self.by_digest(model, period, Digest(digest))

    def without_restated(self, model: ModelName, period: PeriodKey) -> None:
        """Nothing that landed later changes the period's rows (any more): the current ones answer requests."""
        (self._folder(model, period) / RESTATED).unlink(missing_ok=True)

    def served(self, model: ModelName) -> tuple[SnapshotManifest, ...]:
        """What requests are answered from, oldest period first: restated where corrections came, else in force."""
        in_force = self.in_force(model)
        return tuple(self.current(model, found.period, pointer=RESTATED) or found for found in in_force)

    def versions(self, model: ModelName, period: PeriodKey) -> tuple[SnapshotManifest, ...]:
        """Every content the period ever had, the one in force first, the others newest first."""
        current = self.current(model, period)
        if current is None:
            return ()
        digests = (Digest(file.stem) for file in self._folder(model, period).glob("*.json"))
        others = [self.by_digest(model, period, digest) for digest in digests if digest != current.content_digest]
        return (current, *sorted(others, key=lambda manifest: manifest.created_at, reverse=True))

    def in_force(self, model: ModelName) -> tuple[SnapshotManifest, ...]:
        """The manifests in force, oldest period first. Raises NotEnoughDataError when there is none."""
        found = tuple(self.current(model, period) for period in self.periods(model))
        manifests = tuple(manifest for manifest in found if manifest is not None)
        if not manifests:
            raise NotEnoughDataError(f"'{model}' has no validated features yet: land a period and materialise them.")
        return manifests

    def by_digest(self, model: ModelName, period: PeriodKey, digest: Digest) -> SnapshotManifest:
        """The manifest of one content of a period. Raises NotEnoughDataError when it is not there."""
        try:
            return SnapshotManifest.model_validate_json((self._folder(model, period) / f"{digest}.json").read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            raise NotEnoughDataError(
                f"There is no whole snapshot {digest[:12]}… of '{model}' for {period}: materialise validated_features "
                "of that period again."
            ) from error

    def periods(self, model: ModelName) -> tuple[PeriodKey, ...]:
        """Periods that have a snapshot in force, oldest first."""
        folder = self.home / "data" / model / "validated_features"
        return tuple(sorted(PeriodKey(file.parent.name) for file in folder.glob(f"*/{CURRENT}")))

    def read(self, manifest: SnapshotManifest, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """The rows of a snapshot, or some of its columns. Raises NotEnoughDataError when the file is gone."""
        try:
            return pd.read_parquet(self.home / manifest.file, columns=None if columns is None else list(columns))
        except (FileNotFoundError, ArrowInvalid) as error:
            raise NotEnoughDataError(
                f"The snapshot {manifest.file} is gone or damaged: materialise validated_features of "
                f"{manifest.period} again."
            ) from error

    def write_quarantine(self, frame: pd.DataFrame, *, model: ModelName, source: str, period: PeriodKey) -> Path:
        """Make these the set-aside rows of a period, none included; return the file. A refused file is over with."""
        file = _write(frame, self._quarantine(model, source, period))
        self._quarantine(model, source, period, REFUSED).unlink(missing_ok=True)
        return file

    def write_refused(self, frame: pd.DataFrame, *, model: ModelName, source: str, period: PeriodKey) -> Path:
        """Keep the broken rows of a file that was refused whole; those of what is loaded stay beside them."""
        return _write(frame, self._quarantine(model, source, period, REFUSED))

    def read_quarantine(
        self, model: ModelName, source: str, period: PeriodKey, folder: str = QUARANTINE
    ) -> pd.DataFrame:
        """The set-aside rows of a period; of `folder` `REFUSED`, of its refused file. An empty table where none are."""
        file = self._quarantine(model, source, period, folder)
        try:
            return pd.read_parquet(file) if file.exists() else pd.DataFrame()
        except ArrowInvalid as error:
            raise NotEnoughDataError(f"{file} is damaged: materialise {period} again.") from error

    def _keep(self, manifest: SnapshotManifest, file: Path) -> SnapshotManifest:
        if file.exists():
            known = SnapshotManifest.model_validate_json(file.read_bytes())
            if known.model_copy(update={"created_at": manifest.created_at}) == manifest:
                return known
        replace_bytes(file, manifest.canonical())
        return manifest

    def _folder(self, model: ModelName, period: PeriodKey) -> Path:
        return self.home / "data" / model / "validated_features" / period

    def _quarantine(self, model: ModelName, source: str, period: PeriodKey, folder: str = QUARANTINE) -> Path:
        return self.home / "data" / model / folder / source / f"{period}.parquet"


def _write(frame: pd.DataFrame, file: Path) -> Path:
    with put_in_place(file) as draft:
        frame.to_parquet(draft, index=False)
    return file
