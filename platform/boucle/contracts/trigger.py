"""Documents of the retraining trigger: what asked, what was judged, and what became of it."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion, PeriodKey


class TriggerOutcome(StrEnum):
    """What became of a retraining trigger."""

    FIRED = "fired"
    SUPPRESSED = "suppressed"


class TriggerCause(StrEnum):
    """What asked whether the model should be trained again."""

    DRIFT = "drift"
    ARRIVAL = "arrival"
    SCHEDULE = "schedule"
    ALERT = "alert"


class TriggerRule(StrEnum):
    """Which rule of `boucle.policy.retraining` decided."""

    BUSY = "busy"
    OUTDATED = "outdated"
    FIRED_ALREADY = "fired_already"
    TOO_FEW_LABELS = "too_few_labels"
    NO_PRODUCTION = "no_production"
    NO_NEW_LABELS = "no_new_labels"
    BROKEN_INPUT = "broken_input"
    COOL_DOWN = "cool_down"
    BUDGET = "budget"
    NOT_PERSISTENT = "not_persistent"
    INCONCLUSIVE = "inconclusive"
    WITHIN_LIMITS = "within_limits"
    DRIFT = "drift"
    ARRIVAL = "arrival"
    SCHEDULE = "schedule"
    ALERT = "alert"


class BudgetUse(Document):
    """What automatic retrainings used in one month, and what the policy allows. Minutes are of CPU time."""

    month: str
    runs: int
    max_runs: int
    cpu_minutes: float
    max_cpu_minutes: float

    @property
    def runs_left(self) -> int:
        """Retrainings that the month still allows."""
        return max(0, self.max_runs - self.runs)

    @property
    def cpu_minutes_left(self) -> float:
        """CPU minutes that the month still allows."""
        return max(0.0, self.max_cpu_minutes - self.cpu_minutes)

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of one of the two."""
        return self.runs_left == 0 or self.cpu_minutes_left == 0


class WindowCount(Document):
    """In how many of the windows looked at, the newest one included, a drift gate failed, and what the policy asks."""

    failed: int
    looked_at: int
    asked_failed: int
    asked_of: int


class Gain(Document):
    """A difference of log loss in nats a row, over `rows`; above 0 is better. `low` and `high` where it has them."""

    nats: float
    rows: int
    low: float | None = None
    high: float | None = None


class Trigger(Document):
    """One evaluation of the retraining policy, fired or suppressed, with its reason and numbers.

    `production_version` and `report_digest` say what was judged; `run_key` names it, so that one report is judged once.
    `expected_gain` is what recalibrating production would have gained on the window's mature labels (None: too few).
    Triggers of earlier releases have no rule and no numbers.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    period: PeriodKey
    production_version: ModelVersion | None = None
    report_digest: Digest | None = None
    outcome: TriggerOutcome
    reason: str
    run_key: str
    cause: TriggerCause = TriggerCause.DRIFT
    rule: TriggerRule | None = None
    failed_gates: tuple[str, ...] = ()
    windows: WindowCount | None = None
    new_mature_periods: int | None = None
    budget: BudgetUse | None = None
    expected_gain: Gain | None = None
    alert: str | None = None


class AnswerKind(StrEnum):
    """How a retraining that a trigger asked for ended. All but the first two made no decision about a candidate."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    WAITING = "waiting"
    FAILED = "failed"
    STOPPED = "stopped"


class TriggerAnswer(Document):
    """What became of a trigger that fired: the run, its candidate, what it was measured to gain and really gained.

    `holdout_gain` is paired, production - candidate, on the holdout of the evaluation (for a first model: baseline -
    candidate). `realised_gain` is the same on requests since then whose labels are mature, whoever answered them: it
    grows with the labels, and is None until there are some. `cpu_seconds` are those of the fit, or, where the run ended
    before it was measured, the run's wall time.
    """

    schema_version: Literal[1] = 1
    run_key: str
    model: ModelName
    kind: AnswerKind
    reason: str
    dagster_run_id: str
    compared_with: ModelVersion | None = None
    version: ModelVersion | None = None
    holdout_gain: Gain | None = None
    realised_gain: Gain | None = None
    cpu_seconds: float = 0.0
    at: AwareDatetime

    @property
    def helped(self) -> bool | None:
        """Whether the new version is better, by what is known best: realised, else on the holdout; None: not known.

        A gain whose interval holds 0 is not known to be one.
        """
        gain = self.realised_gain or self.holdout_gain
        if gain is None:
            return None
        low, high = (gain.nats if end is None else end for end in (gain.low, gain.high))
        return None if low <= 0.0 <= high else low > 0.0


class AlertState(StrEnum):
    """What Alertmanager says of an alert."""

    FIRING = "firing"
    RESOLVED = "resolved"


class AlertRequest(Document):
    """An alert about a model that came in by webhook; firing, it asks for retraining once an incident.

    An incident is known by `fingerprint` (of the alert's labels) and `starts_at`.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    fingerprint: str
    starts_at: AwareDatetime
    state: AlertState
    name: str
    summary: str = ""
    actor: str
    received_at: AwareDatetime

    @property
    def incident(self) -> str:
        """What names the incident."""
        return f"{self.fingerprint}/{self.starts_at.isoformat()}"
