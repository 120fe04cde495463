"""What two versions answered to the same requests, side by side."""

from typing import Literal

from pydantic import Field

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion


class Latency(Document):
    """Half of the answers took at most `p50_ms`, 99 of 100 at most `p99_ms`; milliseconds."""

    p50_ms: float
    p99_ms: float


class ShadowFigures(Document):
    """How far the challenger's answers are from production's, over requests that both were to answer.

    `disagreement` is the share of pairs on different sides of one half, `mean_difference` the mean distance of their
    scores; None without a pair. `shift` is how much higher the challenger scores, in standard deviations of
    production's scores, over the first pair of each of `entities` (requests of one resemble each other), with the
    interval that holds at every look; None while nothing is known.
    """

    requests: int = Field(ge=0, description="shadowed by the challenger")
    failed: int = Field(ge=0, description="without an answer, or one outside the limits of its contract")
    stalled: int = Field(ge=0, description="answered too late for a caller")
    pairs: int = Field(ge=0, description="with the scores of both")
    disagreement: float | None = None
    mean_difference: float | None = None
    entities: int = Field(default=0, ge=0)
    shift: float | None = None
    shift_low: float | None = None
    shift_high: float | None = None


class ShadowSlice(Document):
    """The figures of requests with a feature in `[low, high)`, the last slice of a feature with its end; both None: it
    is missing."""

    feature: str
    low: float | None
    high: float | None
    figures: ShadowFigures


class ShadowReport(Document):
    """A challenger in the shadow of production: all that production answered and the challenger was to score too.

    The latencies are not of the same: production's is that of the whole request, the challenger's of the model, by row.
    An interval of a slice holds by itself: of twenty slices one may miss.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    production: ModelVersion
    challenger: ModelVersion
    figures: ShadowFigures
    production_latency: Latency | None
    challenger_latency: Latency | None
    slices: tuple[ShadowSlice, ...] = ()
