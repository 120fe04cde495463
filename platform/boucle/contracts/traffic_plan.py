"""Which version answers which entity."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, Self

from pydantic import AwareDatetime, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from boucle.contracts.decision import Decision, NewDecision
from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.rollout import Rollout
from boucle.contracts.service import ServiceObjectives


class Strategy(StrEnum):
    """How a version comes into traffic, or is tried there."""

    DIRECT = "direct"
    CANARY = "canary"
    SHADOW = "shadow"
    AB = "ab"
    BANDIT = "bandit"
    INTERLEAVING = "interleaving"


class Role(StrEnum):
    """What an arm is there for. `standby` answers nobody: it is the previous version, kept warm for rollback."""

    PRODUCTION = "production"
    CHALLENGER = "challenger"
    STANDBY = "standby"


MOST_ARMS = 8
"""A draw has 64 bytes, eight for each arm."""


class Arm(Document):
    """One version with its bundle, role and share of entities in per cent."""

    version: ModelVersion
    bundle_digest: Digest
    weight: float = Field(ge=0, le=100)
    role: Role


class NewPlan(Document):
    """A plan before it has a revision.

    While a rollout is open, `rollout` says where it is, and `shadow_share` of the entities, in per cent, are scored by
    the other arm as well. `service` is what replicas hold production to; a plan that says nothing of it leaves it as it
    was, so that a rollback needs nobody who knows the objectives.
    """

    strategy: Strategy
    arms: tuple[Arm, ...] = Field(max_length=MOST_ARMS)
    rollout: Rollout | None = None
    shadow_share: float = Field(default=0.0, ge=0, le=100)
    service: ServiceObjectives | None = None

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

    @property
    def challengers(self) -> tuple[Arm, ...]:
        """The arms on trial, in the order of the plan."""
        return tuple(arm for arm in self.arms if arm.role is Role.CHALLENGER)


class TrafficPlan(NewPlan):
    """One revision of a model's plan; replicas serve the highest revision of each model.

    `revision` counts from 1 for each model. `decision_id` is the ledger row that caused it.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    revision: int = Field(ge=1)
    decision_id: int
    created_at: AwareDatetime
    created_by: str
    reason: str

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without objectives it is written as before there were any: replicas of the release before read it."""
        written: dict[str, Any] = write(self)
        return written if self.service is not None else {k: v for k, v in written.items() if k != "service"}

    def says(self, new: NewPlan) -> bool:
        """Whether this is what another plan would say."""
        same = all(getattr(self, name) == getattr(new, name) for name in NewPlan.model_fields if name != "service")
        return same and new.service in {None, self.service}


def next_plan(
    current: TrafficPlan | None, decision: Decision, new: NewPlan, *, actor: str, at: datetime
) -> TrafficPlan:
    """The revision that follows `current` for a decision."""
    said = {name: getattr(new, name) for name in NewPlan.model_fields}
    if new.service is None and current is not None:
        said["service"] = current.service
    return TrafficPlan(
        **said,
        model=decision.decision.model,
        revision=1 if current is None else current.revision + 1,
        decision_id=decision.decision_id,
        created_at=at,
        created_by=actor,
        reason=decision.decision.reason,
    )


def plan_moved(new: NewDecision, expected_revision: int) -> str:
    """What is said when a plan is not the one that somebody judged."""
    return (
        f"The traffic plan of '{new.model}' is not revision {expected_revision} any more, as this {new.kind} expected: "
        "somebody decided in between. Nothing was changed; look at `boucle status` and decide again."
    )
