"""The labelled feature rows of a training set: read from snapshots or, warm, from what the last one holds."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pandas as pd

from boucle.contracts.data import SnapshotManifest, TrainingManifest
from boucle.errors import NotEnoughDataError
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.features import feature_names
from boucle_platform.model_loop.steps.store import document_file, read_document

KEYS = ("entity_key", "as_of")


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Feature rows with their mature labels, and how many periods of them were not read again."""

    rows: pd.DataFrame
    reused: int


def last_training_set(home: Home, spec: LoopSpec) -> TrainingManifest | None:
    """What the last training run learnt from, if its rows are still there and have today's features."""
    file = document_file(home, spec, "training_set")
    if not file.exists():
        return None
    manifest = read_document(file, TrainingManifest)
    same = manifest.feature_names == feature_names(spec)
    return manifest if same and (home.settings.home_dir / manifest.file).exists() else None


def labelled_rows(
    home: Home,
    spec: LoopSpec,
    snapshots: Sequence[SnapshotManifest],
    labels: pd.DataFrame,
    before: TrainingManifest | None = None,
) -> Labelled:
    """Every mature label joined with the features of its entity and moment.

    With `before`, the features of a period are taken from its rows where the snapshot in force is the one that they
    were made of and every label has its row there. Labels are always those known now. So the rows are the same, to the
    digest, as without it; only the snapshots of the other periods are read.

    Raises:
        NotEnoughDataError: No label is mature.
    """
    horizon, watermark = timedelta(days=spec.horizon_days), snapshots[-1].as_of
    wanted = [manifest for manifest in snapshots if manifest.as_of + horizon <= watermark]
    if not wanted or labels.empty:
        raise NotEnoughDataError(
            f"No label of '{spec.model}' is mature at {watermark:%Y-%m-%d}: a label is known {spec.horizon_days} days "
            "after its as_of. Land further periods. Nothing was trained."
        )
    known = labels.rename(columns={spec.entity: "entity_key"})
    kept = pd.read_parquet(home.settings.home_dir / before.file) if before is not None else None
    parts, reused = [], 0
    for manifest in wanted:
        part = None
        if before is not None and kept is not None and before.snapshots.get(manifest.period) == manifest.content_digest:
            part = _of_period(spec, manifest, kept, known)
        reused += part is not None
        part = _read(home, spec, manifest) if part is None else part
        parts.append(part.assign(period_end=naive(manifest.as_of)))
    features = pd.concat(parts, ignore_index=True)
    rows = features.merge(known, on=list(KEYS), how="inner", validate="one_to_one")
    return Labelled(rows=rows.sort_values(list(KEYS), ignore_index=True), reused=reused)


def naive(moment: Any) -> pd.Timestamp:
    """A moment as tables hold it: in UTC, and not saying so."""
    return pd.Timestamp(moment.replace(tzinfo=None))


def _read(home: Home, spec: LoopSpec, manifest: SnapshotManifest) -> pd.DataFrame:
    columns = [spec.entity, "as_of", *feature_names(spec)]
    rows = SnapshotStore(home.settings.home_dir).read(manifest, columns=columns)
    return rows.rename(columns={spec.entity: "entity_key"})


def _of_period(
    spec: LoopSpec, manifest: SnapshotManifest, kept: pd.DataFrame, labels: pd.DataFrame
) -> pd.DataFrame | None:
    """The features of a period among kept rows; None where a label has no row there: it was not mature, or purged."""
    period = spec.period(manifest.period)
    own = _within(kept, naive(period.start), naive(period.end))
    due = _within(labels, naive(period.start), naive(period.end))
    missing = due[list(KEYS)].merge(own[list(KEYS)], on=list(KEYS), how="left", indicator=True)["_merge"] != "both"
    return None if own.empty or missing.any() else own[[*KEYS, *feature_names(spec)]]


def _within(rows: pd.DataFrame, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    return rows[(rows["as_of"] > start) & (rows["as_of"] <= end)]
