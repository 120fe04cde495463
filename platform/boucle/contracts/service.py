"""The service-level objectives of a model: said in `defs.yaml`, carried by the traffic plan to every replica."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from boucle.contracts.document import Document
from boucle.contracts.measuring import LATENCY_BOUNDS_SECONDS


class BurnRule(Document):
    """Fires when the error budget burns `factor` times too fast over the long window, and still does in the short one.

    The long window makes it sure, the short one makes it end soon after the trouble does. Source: Beyer et al. 2018,
    The Site Reliability Workbook, chapter 5 (multiwindow, multi-burn-rate alerts).
    """

    factor: float = Field(gt=0, description="times the ratio that an objective allows")
    long_seconds: float = Field(gt=0)
    short_seconds: float = Field(gt=0)

    @model_validator(mode="after")
    def _short_is_shorter(self) -> Self:
        if self.short_seconds >= self.long_seconds:
            raise ValueError(
                f"short_seconds ({self.short_seconds:g}) must be below long_seconds ({self.long_seconds:g})"
            )
        return self


class ServiceObjectives(Document):
    """What callers may expect of production. A breach is sure, or it is none: the whole interval is above the limit.

    `fast` rules are judged in each replica, several times a second; `slow` ones by the sensor, over all replicas. An
    empty list of rules judges no counts there.
    """

    max_failed: float = Field(
        default=0.01, ge=0, lt=1, description="ratio of requests that ended as an error of the model (code 500)"
    )
    max_slow: float = Field(default=0.05, ge=0, lt=1, description="ratio of requests slower than `slow_seconds`")
    slow_seconds: float = Field(default=1.0, description="seconds; a bound of the histogram of durations")
    max_refused: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="ratio of requests that full replicas turned away, above that before the promotion",
    )
    max_score_shift: float = Field(
        default=2.0,
        gt=0,
        description="standard deviations of the answers of the version before, from its mean answer on the same rows",
    )
    max_same_answer: float = Field(
        default=0.9, gt=0, lt=1, description="ratio of different rows that get one and the same answer"
    )
    max_log_loss_increase: float | None = Field(
        default=None,
        gt=0,
        description="nats above the log loss on the version's holdout, on mature labels; empty: not asked",
    )
    min_requests: int = Field(default=50, ge=1, description="requests in the long window; fewer say nothing")
    min_rows: int = Field(default=100, ge=2, description="different rows that were answered; fewer say nothing")
    confidence: float = Field(default=0.999, gt=0.5, lt=1, description="coverage of the intervals; judged every look")
    fast: tuple[BurnRule, ...] = (
        BurnRule(factor=14.4, long_seconds=1, short_seconds=0.2),
        BurnRule(factor=6, long_seconds=15, short_seconds=3),
    )
    slow: tuple[BurnRule, ...] = (BurnRule(factor=1, long_seconds=60, short_seconds=15),)

    @field_validator("slow_seconds")
    @classmethod
    def _is_a_bound(cls, value: float) -> float:
        if value not in LATENCY_BOUNDS_SECONDS:
            raise ValueError(f"{value:g} s is not counted; choose one of {', '.join(map(str, LATENCY_BOUNDS_SECONDS))}")
        return value
