"""The prediction log: one line of JSON per answered prediction, in segments that are sealed when they are closed."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypedDict

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion


class Fallback(StrEnum):
    """Why production answered in place of the arm that was drawn."""

    FAILED = "failed"
    """It gave no answer, or one outside the limits of its contract."""
    STALLED = "stalled"
    """It did not answer in time."""
    CUT = "cut"
    """It was not asked: it had failed too often in a row."""


class PredictionRecord(Document):
    """One line of the prediction log.

    `as_of` is the moment asked about; `features_as_of` the moment of the feature row that answered; `at` the moment
    of the answer on boucle's clock. `features` follow the order of the bundle's contract; None is a missing value.
    Where the caller gave the features, `features_as_of` is None, and so is `entity_key` if it named none. `fallback`
    says why the answering arm is not the assigned one; a `pinned` request was not drawn, its caller chose the arm.
    """

    schema_version: Literal[1] = 1
    prediction_id: str
    request_id: str
    at: AwareDatetime
    model: ModelName
    entity_key: EntityKey | None
    as_of: AwareDatetime
    features_as_of: AwareDatetime | None
    model_version: ModelVersion
    bundle_digest: Digest
    plan_revision: int
    assigned_role: str
    answering_role: str
    propensity: float
    proba: float
    features: tuple[float | None, ...]
    latency_ms: float
    replica: str
    fallback: Fallback | None = None
    pinned: bool = False


class PredictionFields(TypedDict):
    """The fields of a `PredictionRecord` as serving writes them, thousands a second: plain values need no check.

    A missing feature is NaN here, and null in the log.
    """

    schema_version: Literal[1]
    prediction_id: str
    request_id: str
    at: datetime
    model: ModelName
    entity_key: EntityKey | None
    as_of: datetime
    features_as_of: datetime | None
    model_version: ModelVersion
    bundle_digest: Digest
    plan_revision: int
    assigned_role: str
    answering_role: str
    propensity: float
    proba: float
    features: Sequence[float]
    latency_ms: float
    replica: str
    fallback: Fallback | None
    pinned: bool


class SegmentSeal(Document):
    """What a closed segment of the prediction log holds; written beside it.

    `first_at` and `last_at` are the earliest and latest `at` of its records. `torn_bytes` were cut off its end: a line
    that the death of its process had torn.
    """

    schema_version: Literal[1] = 1
    records: int
    bytes: int
    sha256: Digest
    first_at: AwareDatetime | None
    last_at: AwareDatetime | None
    torn_bytes: int = 0
