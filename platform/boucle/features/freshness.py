"""Is the newest data of a source as young as it should be? Counted on the clock of the home, not on that of a run."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.windows import Period


class FreshnessPolicy(BaseModel):
    """How old the newest period of a source may be. It is published at its end; the next one follows a period later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    warn_days: float = Field(
        default=35, ge=0.01, le=3650, description="days since the end of the newest period; more is late"
    )
    fail_days: float = Field(
        default=40, ge=0.01, le=3650, description="days since the end of the newest period; more is overdue"
    )

    @model_validator(mode="after")
    def _warns_before_it_fails(self) -> Self:
        if self.warn_days >= self.fail_days:
            raise ValueError(f"warn_days ({self.warn_days:g}) must be below fail_days ({self.fail_days:g})")
        return self


class Freshness(StrEnum):
    """What the age of the newest period means; `unknown`: nothing has landed, which is never fresh."""

    FRESH = "fresh"
    LATE = "late"
    OVERDUE = "overdue"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class FreshnessReading:
    """The answer, the age it was read from (days; None without a period), and both as a sentence."""

    freshness: Freshness
    age_days: float | None
    sentence: str


def read_freshness(policy: FreshnessPolicy, newest: Period | None, now: datetime, *, ended: bool) -> FreshnessReading:
    """Judge a source by the end of its newest landed period; `ended`: that one is its last, nothing more is due."""
    if newest is None:
        return FreshnessReading(freshness=Freshness.UNKNOWN, age_days=None, sentence="unknown: nothing has landed")
    age = (now - newest.end).total_seconds() / 86_400
    if ended:
        sentence = f"fresh: {newest.key} is the last period of the source"
        return FreshnessReading(freshness=Freshness.FRESH, age_days=age, sentence=sentence)
    freshness = _of_age(policy, age)
    sentence = (
        f"{freshness}: {newest.key} ended {age:.1f} days ago (late after {policy.warn_days:g}, overdue after "
        f"{policy.fail_days:g})"
    )
    return FreshnessReading(freshness=freshness, age_days=age, sentence=sentence)


def _of_age(policy: FreshnessPolicy, age: float) -> Freshness:
    if age > policy.fail_days:
        return Freshness.OVERDUE
    return Freshness.LATE if age > policy.warn_days else Freshness.FRESH
