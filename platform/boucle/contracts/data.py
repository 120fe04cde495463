"""Documents of the data side: what landed, what was set aside, which rows a model learnt from."""

from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, PeriodKey
from boucle.contracts.verdict import Gate


class LandingReceipt(Document):
    """What loading one landing file did. `version` counts the different contents landed for the period, from 1.

    `content_digest` is of the rows that were loaded, `file_digest` the SHA-256 of the file's bytes.
    """

    model: ModelName
    source: str
    period: PeriodKey
    version: int
    source_file: str
    content_digest: Digest
    rows: int
    quarantined: int
    changed: bool
    landed_at: AwareDatetime
    file_digest: Digest = Digest("")


class SnapshotManifest(Document):
    """One immutable Parquet snapshot of a period's validated features. `file` is relative to boucle's home."""

    schema_version: Literal[1] = 1
    model: ModelName
    period: PeriodKey
    as_of: AwareDatetime
    rows: int
    quarantined: int
    columns: tuple[str, ...]
    content_digest: Digest
    file: str
    created_at: AwareDatetime


class TrainingManifest(Document):
    """The exact rows of one training run and how time splits them.

    Every training label was known by `holdout_from`, the earliest `as_of` of the holdout; every holdout label by
    `watermark`. `file` holds the rows (entity_key, as_of, label, features, part) and is named by `content_digest`.
    `gates` say whether that is enough to learn from. `started_from` names the rows of an earlier training set that
    `reused_periods` periods were taken from; a cold start makes the same rows.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    watermark: AwareDatetime
    horizon_days: int
    train_as_of: tuple[AwareDatetime, ...]
    holdout_as_of: tuple[AwareDatetime, ...]
    holdout_from: AwareDatetime
    snapshots: dict[PeriodKey, Digest]
    feature_names: tuple[str, ...]
    train_rows: int
    train_positives: int
    holdout_rows: int
    holdout_positives: int
    content_digest: Digest
    file: str
    gates: tuple[Gate, ...] = ()
    note: str = ""
    started_from: Digest | None = None
    reused_periods: int = 0
