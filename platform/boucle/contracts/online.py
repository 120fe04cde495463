"""The online snapshot: feature rows that serving looks up by (entity, as_of).

A snapshot is a directory `<digest>/` with `manifest.json`, `entity_keys.npy` (fixed-width bytes, UTF-8),
`as_of.npy` (int64, microseconds since 1970-01-01 UTC) and `features.npy` (float64, C order, shape [rows, features]).
Rows are sorted by (entity key as bytes, as_of). `CURRENT` beside the directories names the digest in force and is put
in place by rename, so that a reader sees one whole snapshot or the one before.
"""

from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName

CURRENT_FILE = "CURRENT"


class OnlineManifest(Document):
    """What the arrays beside it hold. `watermark`: nothing after it is known; a later `as_of` is refused."""

    schema_version: Literal[1] = 1
    model: ModelName
    feature_names: tuple[str, ...]
    rows: int
    entities: int
    oldest_as_of: AwareDatetime
    watermark: AwareDatetime
    source_digests: tuple[Digest, ...]
    content_digest: Digest
