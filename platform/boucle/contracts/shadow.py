"""The shadow log: what another version would have answered, one line of JSON per answer that was tried."""

from datetime import datetime
from typing import Literal, Self, TypedDict

from pydantic import AwareDatetime, FiniteFloat, model_validator

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion


class ShadowRecord(Document):
    """One line of the shadow log.

    `prediction_id` is that of the answer that was given; the prediction log has its features. Either `proba`, or
    `error` says why there is none. `at` is the moment at which this was known, on boucle's clock.
    """

    schema_version: Literal[1] = 1
    prediction_id: str
    at: AwareDatetime
    model: ModelName
    model_version: ModelVersion
    bundle_digest: Digest
    plan_revision: int
    proba: FiniteFloat | None
    error: Literal["failed", "stalled"] | None
    latency_ms: float
    replica: str

    @model_validator(mode="after")
    def _answers_or_says_why_not(self) -> Self:
        if (self.proba is None) == (self.error is None):
            raise ValueError("a shadow has either an answer or an error")
        return self


class ShadowFields(TypedDict):
    """The fields of a `ShadowRecord` as serving writes them: plain values need no check."""

    schema_version: Literal[1]
    prediction_id: str
    at: datetime
    model: ModelName
    model_version: ModelVersion
    bundle_digest: Digest
    plan_revision: int
    proba: float | None
    error: Literal["failed", "stalled"] | None
    latency_ms: float
    replica: str
