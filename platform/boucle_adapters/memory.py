"""Stores in memory that keep every rule of the real ones: for tests, and for trying a decision without a home."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import monotonic

from boucle.contracts.decision import GENESIS, MOVES, PLANNED, Decision, NewDecision
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.ledger import row_hash, verify_chain
from boucle.contracts.traffic_plan import NewPlan, TrafficPlan, next_plan, plan_moved
from boucle.contracts.trigger import AlertRequest, Trigger, TriggerAnswer
from boucle.errors import ConflictError, RegistryError
from boucle.ports import RegisteredVersion


class MemoryStateStore:
    """`boucle.ports.StateStore` in memory; safe for threads, each call is one transaction."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._decisions: list[Decision] = []
        self._plans: dict[ModelName, list[TrafficPlan]] = {}
        self._replicas: dict[str, tuple[float, dict[ModelName, int], str]] = {}
        self._triggers: dict[str, tuple[datetime, Trigger]] = {}
        self._answers: dict[str, TriggerAnswer] = {}
        self._alerts: dict[tuple[ModelName, str], AlertRequest] = {}

    def decisions(self, model: ModelName | None = None) -> Sequence[Decision]:
        """All decisions, or those of one model, oldest first."""
        with self._lock:
            return [row for row in self._decisions if model is None or row.decision.model == model]

    def verify(self) -> None:
        """Walk the chain of the whole ledger. Raises LedgerError."""
        verify_chain(self.decisions())

    def move_at(self, model: ModelName, moment: datetime) -> Decision | None:
        """The newest decision up to a moment that said which version is production, or None."""
        moves = [row for row in self.decisions(model) if row.decision.kind in MOVES and row.decision.at <= moment]
        return moves[-1] if moves else None

    def production(self, model: ModelName) -> ModelVersion | None:
        """The version that the ledger calls production."""
        rows = self.decisions(model)
        return rows[-1].decision.to_version if rows else None

    def record(
        self, new: NewDecision, *, expected_production: ModelVersion | None, judged_up_to: int | None = None
    ) -> Decision:
        """Append a decision if production is what the caller saw and no decision came since. Raises ConflictError."""
        with self._lock:
            rows = self.decisions(new.model)
            if judged_up_to is not None and judged_up_to != (rows[-1].decision_id if rows else 0):
                raise ConflictError(
                    f"Decisions about '{new.model}' were recorded after this {new.kind} was judged. Nothing was "
                    "changed; look at the history and decide again."
                )
            current = self.production(new.model)
            if current != expected_production:
                raise ConflictError(
                    f"Production of '{new.model}' is {current}, not {expected_production} as this {new.kind} "
                    "expected: somebody decided in between. Nothing was changed; look at the history and decide again."
                )
            previous = self._decisions[-1].row_hash if self._decisions else GENESIS
            decision = Decision(
                decision_id=len(self._decisions) + 1,
                previous_hash=previous,
                row_hash=row_hash(previous, new),
                decision=new,
            )
            self._decisions.append(decision)
            return decision

    def record_with_plan(
        self,
        new: NewDecision,
        *,
        expected_production: ModelVersion | None,
        plan: NewPlan,
        expected_revision: int | None = None,
        judged_up_to: int | None = None,
    ) -> tuple[Decision, TrafficPlan]:
        """Append a decision and the plan it causes in one transaction. Raises ConflictError."""
        with self._lock:
            current = self.plan(new.model)
            if expected_revision is not None and expected_revision != (current.revision if current else 0):
                raise ConflictError(plan_moved(new, expected_revision))
            decision = self.record(new, expected_production=expected_production, judged_up_to=judged_up_to)
            return decision, self.publish_plan(decision, plan=plan, actor=new.actor, at=new.at)

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
        with self._lock:
            model = decision.decision.model
            moves = [row.decision_id for row in self.decisions(model) if row.decision.kind in MOVES]
            if decision.decision.kind not in PLANNED or moves[-1] > decision.decision_id:
                raise ConflictError(
                    f"Decision {decision.decision_id} about '{model}' is not its newest move: somebody decided in "
                    "between. The traffic plan was not changed; look at the history and decide again."
                )
            current = self.plan(model)
            if current is not None and current.says(plan):
                return current
            if expected_revision is not None and expected_revision != (current.revision if current else 0):
                raise ConflictError(plan_moved(decision.decision, expected_revision))
            made = next_plan(current, decision, plan, actor=actor, at=at)
            self._plans.setdefault(model, []).append(made)
            return made

    def plan_history(self, model: ModelName) -> Sequence[TrafficPlan]:
        """Every revision, oldest first."""
        with self._lock:
            return list(self._plans.get(model, ()))

    def plan(self, model: ModelName) -> TrafficPlan | None:
        """The plan of the highest revision, or None."""
        with self._lock:
            revisions = self._plans.get(model)
            return revisions[-1] if revisions else None

    def plans(self) -> Mapping[ModelName, TrafficPlan]:
        """The current plan of each model."""
        with self._lock:
            return {model: revisions[-1] for model, revisions in self._plans.items()}

    def heartbeat(self, replica: str, revisions: Mapping[ModelName, int], address: str) -> None:
        """Say which revisions a replica serves now."""
        with self._lock:
            self._replicas[replica] = (monotonic(), dict(revisions), address)

    def replicas(self, *, max_age_seconds: float) -> Mapping[str, Mapping[ModelName, int]]:
        """Revisions by live replica: those with a heartbeat not older than this."""
        oldest = monotonic() - max_age_seconds
        with self._lock:
            return {
                name: dict(revisions)
                for name, (seen, revisions, _) in self._replicas.items()
                if seen >= oldest and revisions
            }

    def addresses(self, *, max_age_seconds: float) -> Mapping[str, str]:
        """Where each live replica says that it answers."""
        oldest = monotonic() - max_age_seconds
        with self._lock:
            return {
                name: address
                for name, (seen, revisions, address) in self._replicas.items()
                if seen >= oldest and revisions
            }

    def record_trigger(self, trigger: Trigger, at: datetime, decision: NewDecision | None = None) -> bool:
        """Keep a trigger and the decision that follows; False when its run key is there. Raises ConflictError."""
        with self._lock:
            if trigger.run_key in self._triggers:
                return False
            if decision is not None:
                self.record(decision, expected_production=trigger.production_version)
            self._triggers[trigger.run_key] = (at.astimezone(UTC), trigger)
            return True

    def triggers(self, model: ModelName) -> Sequence[tuple[datetime, Trigger]]:
        """All triggers of a model, oldest first."""
        with self._lock:
            rows = [row for row in self._triggers.values() if row[1].model == model]
        return sorted(rows, key=lambda row: (row[0], row[1].run_key))

    def record_answer(self, answer: TriggerAnswer) -> None:
        """Keep what became of a trigger, in place of what was known before."""
        with self._lock:
            self._answers[answer.run_key] = answer

    def answers(self, model: ModelName) -> Mapping[str, TriggerAnswer]:
        """What became of the triggers of a model, by run key."""
        with self._lock:
            return {key: answer for key, answer in self._answers.items() if answer.model == model}

    def record_alert(self, alert: AlertRequest) -> None:
        """Keep what was last said of an incident."""
        with self._lock:
            self._alerts[alert.model, alert.incident] = alert

    def alerts(self, model: ModelName) -> Sequence[AlertRequest]:
        """Every incident of a model, as last heard of, in the order of their starts."""
        with self._lock:
            found = [alert for alert in self._alerts.values() if alert.model == model]
        return sorted(found, key=lambda alert: (alert.starts_at, alert.fingerprint))


class MemoryRegistry:
    """`boucle.ports.ModelRegistry` in memory; `register` stands for a training run."""

    def __init__(self) -> None:
        self._versions: dict[ModelName, list[RegisteredVersion]] = {}
        self._aliases: dict[tuple[ModelName, str], ModelVersion] = {}

    def register(self, model: ModelName, *, run_id: str = "", tags: Mapping[str, str] | None = None) -> ModelVersion:
        """Add the next version of a model and return its number, counted from 1."""
        versions = self._versions.setdefault(model, [])
        version = ModelVersion(len(versions) + 1)
        versions.append(RegisteredVersion(version=version, run_id=run_id, tags=dict(tags or {})))
        return version

    def version(self, model: ModelName, version: ModelVersion) -> RegisteredVersion:
        """One version. Raises RegistryError when there is none."""
        for registered in self._versions.get(model, []):
            if registered.version == version:
                return registered
        raise RegistryError(f"The registry holds no version {version} of '{model}'. Nothing was changed.")

    def versions(self, model: ModelName) -> Sequence[RegisteredVersion]:
        """All versions, oldest first."""
        return list(self._versions.get(model, []))

    def alias(self, model: ModelName, alias: str) -> ModelVersion | None:
        """The version that carries the alias, or None."""
        return self._aliases.get((model, alias))

    def set_alias(self, model: ModelName, alias: str, version: ModelVersion | None) -> None:
        """Point the alias at the version; None removes it."""
        if version is None:
            self._aliases.pop((model, alias), None)
            return
        self.version(model, version)
        self._aliases[(model, alias)] = version

    def set_tags(self, model: ModelName, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Add or replace tags of a version."""
        old = self.version(model, version)
        versions = self._versions[model]
        versions[versions.index(old)] = replace(old, tags={**old.tags, **tags})
