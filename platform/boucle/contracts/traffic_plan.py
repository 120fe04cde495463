"""Which version answers which entity."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion


class Strategy(StrEnum):
    """How a version comes into traffic."""

    DIRECT = "direct"


class Role(StrEnum):
    """What an arm is there for. `standby` answers nobody: it is the previous version, kept warm for rollback."""

    PRODUCTION = "production"
    STANDBY = "standby"


class Arm(Document):
    """One version with its bundle, role and share of entities in per cent."""

    version: ModelVersion
    bundle_digest: Digest
    weight: float = Field(ge=0, le=100)
    role: Role


class TrafficPlan(Document):
    """One revision of a model's plan; replicas serve the highest revision of each model.

    `revision` counts from 1 for each model. `decision_id` is the ledger row that caused it.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    revision: int = Field(ge=1)
    strategy: Strategy
    arms: tuple[Arm, ...]
    decision_id: int
    created_at: AwareDatetime
    created_by: str
    reason: str

    @model_validator(mode="after")
    def _weights_cover_everyone(self) -> Self:
        total = sum(arm.weight for arm in self.arms)
        if abs(total - 100) > 1e-9:
            raise ValueError(f"the weights of a traffic plan must sum to 100 per cent, these sum to {total:g}")
        if [arm.role for arm in self.arms].count(Role.PRODUCTION) != 1:
            raise ValueError("a traffic plan needs exactly one arm with role production")
        return self

    @property
    def production(self) -> Arm:
        """The arm with role production."""
        return next(arm for arm in self.arms if arm.role is Role.PRODUCTION)
