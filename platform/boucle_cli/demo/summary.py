"""What a replay amounted to, as one value."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Move:
    """A promotion, refusal or rollback.

    `seconds_until_served` is the time from the plan's publication until every replica served it; None unless an
    answer of that version was then seen over HTTP. `after_drift`: a failed drift gate of the version before asked for
    the training.
    """

    period: str
    version: int
    reason: str
    seconds_until_served: float | None
    after_drift: bool = False


@dataclass(frozen=True, kw_only=True)
class Month:
    """One served month, on the predictions whose outcome is known; static is the first model, never retrained."""

    period: str
    version: int
    predictions: int
    positive_rate: float
    mean_loop: float
    mean_static: float
    logloss_loop: float
    logloss_static: float


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """What happened to the broken landing files."""

    rows: int
    reasons: dict[str, int]
    refused_whole: str


@dataclass(kw_only=True)
class Summary:
    """The result of `boucle demo`; `missing` names what should have happened and did not.

    `not_asked` names what only the whole history is asked for: in a few months the figures may fall either way.
    """

    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    peak_memory_mib: dict[str, float] = field(default_factory=dict)
    months: list[Month] = field(default_factory=list)
    periods: int = 0
    published_periods: int = 0
    predictions_served: int = 0
    requests_failed: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    retrainings: int = 0
    promotions: list[Move] = field(default_factory=list)
    refusals: list[Move] = field(default_factory=list)
    rollbacks: list[Move] = field(default_factory=list)
    worse_candidate_refused: bool = False
    quarantine: Quarantined | None = None
    report: str = ""

    @property
    def logloss_loop(self) -> float | None:
        """Mean log loss of what was served, in nats, over all served rows with an outcome."""
        return self._mean("logloss_loop")

    @property
    def logloss_static(self) -> float | None:
        """The same rows, answered by the first model."""
        return self._mean("logloss_static")

    @property
    def calibration_error_loop(self) -> float | None:
        """Mean over months of |mean proba - positive rate|."""
        return self._calibration("mean_loop")

    @property
    def calibration_error_static(self) -> float | None:
        """The same for the first model."""
        return self._calibration("mean_static")

    def missing(self) -> list[str]:
        """What a complete replay has and this one has not."""
        wanted = {
            "at least two promotions": len(self.promotions) >= 2,
            "a promotion that drift asked for": any(move.after_drift for move in self.promotions),
            "every promoted version answered over HTTP": all(
                move.seconds_until_served is not None for move in self.promotions
            ),
            "no failed request": self.requests_failed == 0 and self.predictions_served > 0,
            "the candidate made worse on purpose was refused": self.worse_candidate_refused,
            "broken rows in quarantine": self.quarantine is not None and self.quarantine.rows > 0,
            "a file without a column refused whole": self.quarantine is not None
            and bool(self.quarantine.refused_whole),
            "the previous version answered after the rollback": any(
                move.seconds_until_served is not None for move in self.rollbacks
            ),
            "outcomes of served predictions": bool(self.months),
        }
        if self.whole_history:
            wanted |= self._figures_wanted()
        return [name for name, happened in wanted.items() if not happened]

    def not_asked(self) -> list[str]:
        """What a replay of a part of the history is not asked for; nothing when it was whole."""
        return [] if self.whole_history else list(self._figures_wanted())

    @property
    def whole_history(self) -> bool:
        """Whether every published period was replayed."""
        return 0 < self.published_periods == self.periods

    @property
    def complete(self) -> bool:
        """Whether all of it happened."""
        return not self.missing()

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        figures = ("logloss_loop", "logloss_static", "calibration_error_loop", "calibration_error_static")
        return {
            **asdict(self),
            **{name: getattr(self, name) for name in figures},
            "missing": self.missing(),
            "not_asked": self.not_asked(),
        }

    def _figures_wanted(self) -> dict[str, bool]:
        return {
            "log loss of the loop below that of the first model": _below(self.logloss_loop, self.logloss_static),
            "calibration error of the loop below that of the first model": _below(
                self.calibration_error_loop, self.calibration_error_static
            ),
        }

    def _mean(self, name: str) -> float | None:
        total = sum(month.predictions for month in self.months)
        return sum(getattr(month, name) * month.predictions for month in self.months) / total if total else None

    def _calibration(self, name: str) -> float | None:
        gaps = [abs(getattr(month, name) - month.positive_rate) for month in self.months]
        return sum(gaps) / len(gaps) if gaps else None


def _below(loop: float | None, static: float | None) -> bool:
    return loop is not None and static is not None and loop < static
