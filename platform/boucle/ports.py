"""The outside world as the core sees it. Adapters implement these; nothing else crosses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

from boucle.contracts.decision import Decision, NewDecision
from boucle.contracts.feedback import FeedbackFields, FeedbackRecord
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.prediction import PredictionFields, PredictionRecord
from boucle.contracts.rank import RankFields, RankRecord
from boucle.contracts.shadow import ShadowFields, ShadowRecord
from boucle.contracts.traffic_plan import NewPlan, TrafficPlan
from boucle.contracts.trigger import AlertRequest, Trigger, TriggerAnswer


class Clock(Protocol):
    """The one source of time."""

    def now(self) -> datetime:
        """The current moment in UTC; a replayed history has its own."""


@dataclass(frozen=True, kw_only=True)
class RegisteredVersion:
    """What the registry holds of one version."""

    version: ModelVersion
    run_id: str
    tags: Mapping[str, str]


class ModelRegistry(Protocol):
    """Versions and aliases of registered models."""

    def version(self, model: ModelName, version: ModelVersion) -> RegisteredVersion:
        """One version. Raises RegistryError when there is none."""

    def versions(self, model: ModelName) -> Sequence[RegisteredVersion]:
        """All versions, oldest first."""

    def alias(self, model: ModelName, alias: str) -> ModelVersion | None:
        """The version that carries the alias, or None."""

    def set_alias(self, model: ModelName, alias: str, version: ModelVersion | None) -> None:
        """Point the alias at the version; None removes it."""

    def set_tags(self, model: ModelName, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""


class BundleStore(Protocol):
    """Release bundles by digest."""

    def put(self, source: Path, model: ModelName) -> Digest:
        """Store the files of a directory as a bundle; storing the same twice is the same bundle."""

    def fetch(self, digest: Digest) -> Path:
        """The directory of a bundle, every file verified. Raises BundleError."""

    def read(self, digest: Digest) -> Mapping[str, bytes]:
        """The files of a bundle by name: the bytes that were verified, not read again. Raises BundleError."""


class StateStore(Protocol):
    """Ledger, traffic plans, replicas and triggers. Each call is one transaction."""

    def decisions(self, model: ModelName | None = None) -> Sequence[Decision]:
        """All decisions, or those of one model, oldest first."""

    def verify(self) -> None:
        """Walk the chain of the whole ledger as it is stored. Raises LedgerError."""

    def move_at(self, model: ModelName, moment: datetime) -> Decision | None:
        """The newest decision up to a moment that said which version is production, or None."""

    def production(self, model: ModelName) -> ModelVersion | None:
        """The version that the ledger calls production."""

    def record(
        self, new: NewDecision, *, expected_production: ModelVersion | None, judged_up_to: int | None = None
    ) -> Decision:
        """Append a decision if production is still what the caller saw. Raises ConflictError.

        With `judged_up_to`, the newest decision about the model that the caller knew (0: none), also when another one
        followed: it might have been decided otherwise.
        """

    def record_with_plan(
        self,
        new: NewDecision,
        *,
        expected_production: ModelVersion | None,
        plan: NewPlan,
        expected_revision: int | None = None,
        judged_up_to: int | None = None,
    ) -> tuple[Decision, TrafficPlan]:
        """Append a decision and the plan it causes in one transaction.

        Raises ConflictError when production, or with `expected_revision` the plan, is not what the caller saw, or, with
        `judged_up_to`, another decision followed the newest one about the model that the caller knew.
        """

    def publish_plan(
        self,
        decision: Decision,
        *,
        plan: NewPlan,
        actor: str,
        at: datetime,
        expected_revision: int | None = None,
    ) -> TrafficPlan:
        """The next revision of the plan, for the newest move in the ledger; a plan that says the same changes nothing.

        Raises ConflictError when another move followed `decision`, or the plan is not what the caller saw.
        """

    def plan_history(self, model: ModelName) -> Sequence[TrafficPlan]:
        """Every revision, oldest first."""

    def plan(self, model: ModelName) -> TrafficPlan | None:
        """The plan of the highest revision, or None."""

    def plans(self) -> Mapping[ModelName, TrafficPlan]:
        """The current plan of each model."""

    def heartbeat(self, replica: str, revisions: Mapping[ModelName, int], address: str) -> None:
        """Say which revisions a replica serves now."""

    def replicas(self, *, max_age_seconds: float) -> Mapping[str, Mapping[ModelName, int]]:
        """Revisions by live replica: those with a heartbeat not older than this."""

    def addresses(self, *, max_age_seconds: float) -> Mapping[str, str]:
        """Where each live replica says that it answers, such as `http://127.0.0.1:8000`; perhaps empty."""

    def record_trigger(self, trigger: Trigger, at: datetime, decision: NewDecision | None = None) -> bool:
        """Keep a trigger and the decision that follows from it, both or neither.

        False, with nothing written, when a trigger with the same run key is there already. Raises ConflictError when
        production is no longer the version that the trigger is about.
        """

    def triggers(self, model: ModelName) -> Sequence[tuple[datetime, Trigger]]:
        """All triggers of a model, oldest first."""

    def record_answer(self, answer: TriggerAnswer) -> None:
        """Keep what became of a trigger, in place of what was known before."""

    def answers(self, model: ModelName) -> Mapping[str, TriggerAnswer]:
        """What became of the triggers of a model, by run key."""

    def record_alert(self, alert: AlertRequest) -> None:
        """Keep what was last said of an incident."""

    def alerts(self, model: ModelName) -> Sequence[AlertRequest]:
        """Every incident of a model, as last heard of, in the order of their starts."""


class OnlineRow(NamedTuple):
    """A feature row found for (entity, as_of): values in the snapshot's feature order, and the moment they are of."""

    values: Sequence[float]
    as_of: datetime


class OnlineFeatures(Protocol):
    """Feature rows of one model for look-up."""

    def look_up(self, entity_key: EntityKey, as_of: datetime, *, max_age_days: float) -> OnlineRow:
        """The newest row with `as_of - max_age < row.as_of <= as_of`. Raises UnknownEntityError or AsOfError."""


_Fields_contra = TypeVar("_Fields_contra", contravariant=True)
_Record_co = TypeVar("_Record_co", covariant=True)


class RecordLog(Protocol[_Fields_contra, _Record_co]):
    """Records by stream (the model they are of), in the order each replica wrote them."""

    def append(self, *records: _Fields_contra) -> None:
        """Write records of one stream before their answers leave: all of them, or OSError and none."""

    def sync(self) -> None:
        """Bring what was written to the disk. Raises OSError when it cannot."""

    def repair(self, replica: str) -> Sequence[str]:
        """Put in order what a dead process of this replica left behind; what was cut off, a sentence each."""

    def close(self) -> None:
        """Close what is open; the next record opens it again."""

    def read(self, stream: str, start: datetime, end: datetime, /) -> Iterator[_Record_co]:
        """Records with `start <= moment < end`, each once."""


class PredictionLog(RecordLog[PredictionFields, PredictionRecord], Protocol):
    """Answered predictions by model; a record is known by its prediction id, its moment is `at`."""


class FeedbackLog(RecordLog[FeedbackFields, FeedbackRecord], Protocol):
    """What became of predictions, all in the stream `FEEDBACK_STREAM`; the moment of a record is `received_at`."""


class ShadowLog(RecordLog[ShadowFields, ShadowRecord], Protocol):
    """What other versions would have answered, by model; the moment of a record is `at`."""


class RankLog(RecordLog[RankFields, RankRecord], Protocol):
    """Lists that were ranked for requests, by model; a record is known by its rank id, its moment is `at`."""
