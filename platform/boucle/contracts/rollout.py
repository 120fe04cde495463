"""A rollout: one version's way into traffic, and what was counted on the way."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion


class Phase(StrEnum):
    """Where a rollout is. The last two are final."""

    SHADOW = "shadow"
    CANARY = "canary"
    TRIAL = "trial"
    """A version that is not promoted answers its share, until a test has an answer."""
    COMPLETE = "complete"
    ABORTED = "aborted"


class Rollout(Document):
    """One challenger's way into traffic. `step` counts canary steps from 0; `phase_began_at` is of the step."""

    schema_version: Literal[1] = 1
    model: ModelName
    challenger: ModelVersion
    production: ModelVersion
    phase: Phase
    step: int = Field(default=0, ge=0)
    weight: float = Field(ge=0, le=100, description="of the challenger, per cent of entities")
    began_at: AwareDatetime
    phase_began_at: AwareDatetime

    @property
    def rollout_id(self) -> str:
        """What entities are drawn for: the same over all its steps, another one for the next rollout."""
        return f"{self.model}/{self.challenger}/{self.began_at.isoformat()}"

    @property
    def is_open(self) -> bool:
        """Whether something may still follow."""
        return self.phase not in {Phase.COMPLETE, Phase.ABORTED}


class Scores(Document):
    """Count, mean and variance (over `n`) of scores, or of differences of two."""

    n: int = Field(default=0, ge=0)
    mean: float = 0.0
    variance: float = Field(default=0.0, ge=0)


class ArmCounts(Document):
    """What one arm did in one step: requests, those that failed by its fault, those slower than the limit, scores.

    `slow` is None where latencies cannot be compared: shadows are not timed as requests are.
    """

    requests: int = Field(default=0, ge=0)
    failed: int = Field(default=0, ge=0)
    slow: int | None = Field(default=0, ge=0)
    scores: Scores = Scores()


class StepCounts(Document):
    """Challenger and production in the same time; `loss` is the challenger's log loss minus production's on the same
    requests (paired by shadow), `production_loss` that of production on them, nats.

    `in_shadow`: the challenger's counts are of its shadows. A shadow fails for fewer reasons than an answer that
    somebody waits for, and its latency is that of the model alone.
    """

    in_shadow: bool = False
    challenger: ArmCounts = ArmCounts()
    production: ArmCounts = ArmCounts()
    loss: Scores = Scores()
    production_loss: float | None = None
