"""A look at an open rollout: what was counted so far, what each metric says, what is waited for."""

from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.rollout import Rollout
from boucle.contracts.traffic_plan import Role, Strategy
from boucle.contracts.verdict import Gate


class ArmLook(Document):
    """One arm since the rollout began: entities' share in per cent, requests that were drawn for it, and of these how
    many it failed and how many were slow; None where nobody counts that."""

    version: ModelVersion
    role: Role
    weight: float = Field(ge=0, le=100)
    requests: int = Field(ge=0)
    failed: int | None = None
    slow: int | None = None


class ArmEstimate(Document):
    """What a reward would be on average if one arm had answered everybody, from the log of draws, each with its 95 per
    cent interval; by inverse propensity, and self-normalised."""

    version: ModelVersion
    ips: float
    ips_low: float | None
    ips_high: float | None
    snips: float
    snips_low: float | None
    snips_high: float | None
    decisions: int


class RolloutLook(Document):
    """What the controller saw and did at `at`; `rollout` and `plan_revision` are from before.

    `said` is the outcome in a sentence; `needed` how many requests of the challenger (for `loss`: pairs with their
    outcome) each metric asks for, as far as that can be known.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    at: AwareDatetime
    strategy: Strategy
    plan_revision: int
    rollout: Rollout
    arms: tuple[ArmLook, ...]
    gates: tuple[Gate, ...]
    needed: dict[str, int] = Field(default_factory=dict)
    estimates: tuple[ArmEstimate, ...] = ()
    moved: bool
    said: str
