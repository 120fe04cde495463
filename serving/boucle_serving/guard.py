"""The guard inside a replica: it looks at what production answers here, and undoes a promotion that broke it.

It has a thread of its own and reads counters that are kept anyway, so that no request waits for it. What it does, it
does through the ledger, as everybody does: every replica follows, and several that see one incident undo it once. While
the state store is away it changes nothing, for a replica that answered otherwise than its plan says would be a second
truth; it says so, and tries again.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from boucle.contracts.facts import BurnFacts, ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.prediction import PredictionFields
from boucle.contracts.service import BurnRule, ServiceObjectives
from boucle.contracts.traffic_plan import Role
from boucle.contracts.verdict import Gate, Verdict
from boucle.errors import ConflictError, NoProductionModelError
from boucle.operations.actor import Actor
from boucle.operations.production import last_move, previous_version
from boucle.policy.burn import Seen, burn_gates, looked, seen_before
from boucle.policy.pins import pin_in_force
from boucle.policy.service import GuardOutcome, guard, output_gates
from boucle.ports import Clock, StateStore
from boucle_adapters.rolling_back import roll_back
from boucle_serving.metrics import ServingMetrics
from boucle_serving.outputs import Outputs
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import for_callers

_LOGGER = logging.getLogger("boucle.serving")
LOOK_SECONDS = 0.05
"""A look costs about 0.1 ms of processor time, beside the requests."""
_LATE_SECONDS = 0.5
"""A look that comes so late says that the process, or the machine, stood still: whoever was slow then, it was not the
version. What was under way is counted by nobody: it is answered within `_BLIND_SECONDS`."""
_BLIND_SECONDS = 1.0
_MOST_RECORDS = 64
_OUTPUTS_SECONDS = 0.5
"""So many records of a look are compared with the version before, so often: it costs processor time to score them."""
_RETRY_SECONDS = 0.5
"""A breach that cannot be undone is tried again this often: a pin may go, the state store may come back."""


@dataclass
class _Watched:
    """What the guard knows of one model: its production version here, what was counted, what becomes of a breach."""

    version: ModelVersion
    slow_seconds: float
    history: tuple[Seen[ServiceFacts], ...]
    outputs: Outputs
    output_gates: tuple[Gate, ...] = ()
    outputs_judged_at: float = -math.inf
    held: str = ""
    retry_at: float = 0.0
    undoing: threading.Thread | None = None


class ReplicaGuard:
    """Judges production of each model by the objectives in its plan; without any, nothing is judged.

    Args:
        predictor: What is served here.
        metrics: What was counted here, and where the guard says what it does.
        newest: The newest records of the prediction log; they are taken out as they are looked at.
        open_state: Where a rollback goes on record; may raise while there is no state store.
        open_clock: The time of a model.
        replica: Who this is: the ledger says `guard:<replica>`.
        replica_timeout_seconds: How long a replica that is silent counts as live.
        timer: Seconds that only rise.
    """

    def __init__(
        self,
        *,
        predictor: Predictor,
        metrics: ServingMetrics,
        newest: deque[PredictionFields],
        open_state: Callable[[], StateStore],
        open_clock: Callable[[ModelName], Clock],
        replica: str,
        replica_timeout_seconds: float,
        timer: Callable[[], float] = monotonic,
    ) -> None:
        self._predictor = predictor
        self._metrics = metrics
        self._newest = newest
        self._open_state = open_state
        self._open_clock = open_clock
        self._replica = replica
        self._replica_timeout_seconds = replica_timeout_seconds
        self._timer = timer
        self._watched: dict[ModelName, _Watched] = {}
        self._looked_at = timer()
        self._blind_until = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_forever, name="boucle-guard", daemon=True)

    def start(self) -> None:
        """Start looking."""
        self._thread.start()

    def stop(self) -> None:
        """Stop looking; a rollback under way goes on by itself."""
        self._over.set()
        self._thread.join(timeout=5)

    def problems(self) -> tuple[str, ...]:
        """Breaches that are not undone, and why, a sentence each."""
        return tuple(watched.held for watched in list(self._watched.values()) if watched.held)

    def look(self) -> None:
        """Judge every model once, and begin to undo what is surely broken."""
        now = self._timer()
        if now - self._looked_at > _LATE_SECONDS:
            self._blind_until = now + _BLIND_SECONDS
        self._looked_at = now
        records = self._newest.copy()
        self._newest.clear()
        for model, served in self._predictor.served.items():
            if served.plan.service is None:
                continue
            try:
                self._judge(model, served, served.plan.service, records, now)
            except Exception:
                _LOGGER.exception("the guard's look at %s failed; the next one looks anew", model)

    def wait(self) -> None:
        """Wait until what is being undone is undone, or is not."""
        for watched in list(self._watched.values()):
            if watched.undoing is not None:
                watched.undoing.join()

    def _judge(
        self,
        model: ModelName,
        served: ServedModel,
        objectives: ServiceObjectives,
        records: Sequence[PredictionFields],
        now: float,
    ) -> None:
        watched = self._watching(model, served, objectives, now)
        answered = [one for one in records if one["model"] == model and one["model_version"] == watched.version]
        broken = self._broken(served, objectives, watched, answered)
        self._metrics.guard_breached.labels(model).set(bool(broken))
        if broken:
            self._undo(model, watched, broken, now)
        else:
            watched.held = ""
        self._metrics.guard_held.labels(model).set(bool(watched.held))

    def _open_early(self) -> None:
        """Open the state store and read once: the first use costs half a second, which an incident has not."""
        try:
            state = self._open_state()
            for model in self._predictor.served:
                state.decisions(model)
        except Exception as error:  # noqa: BLE001 - it is not there yet, or away: who follows the plans says so
            _LOGGER.debug("the guard will open the state store when it needs it: %s", error)

    def _look_forever(self) -> None:
        self._open_early()
        while not self._over.wait(LOOK_SECONDS):
            try:
                self.look()
            except Exception:
                _LOGGER.exception("the guard's look failed; the next one looks anew")

    def _watching(self, model: ModelName, served: ServedModel, objectives: ServiceObjectives, now: float) -> _Watched:
        """What is known with this look; it begins anew with another version.

        The counts alone do after a stand-still, and where slow means something else from now on.
        """
        version, slow_seconds = served.plan.production.version, objectives.slow_seconds
        counted = self._metrics.counted(model, version, slow_seconds=slow_seconds)
        seen = Seen(now, counted)
        watched = self._watched.get(model)
        if watched is None or watched.version != version:
            watched = self._watched[model] = _Watched(
                version, slow_seconds, (seen,), Outputs(least=objectives.min_rows)
            )
        elif now < self._blind_until or watched.slow_seconds != slow_seconds:
            watched.slow_seconds, watched.history = slow_seconds, (seen,)
        else:
            watched.history = looked(watched.history, seen, objectives.fast)
        return watched

    def _broken(
        self,
        served: ServedModel,
        objectives: ServiceObjectives,
        watched: _Watched,
        answered: Sequence[PredictionFields],
    ) -> list[Gate]:
        judged = [
            gate for rule in objectives.fast for gate in burn_gates(objectives, rule, _facts(watched.history, rule))
        ]
        watched.outputs.add(answered[-_MOST_RECORDS:])
        if watched.outputs.has_more and self._timer() - watched.outputs_judged_at >= _OUTPUTS_SECONDS:
            watched.outputs_judged_at = self._timer()
            watched.output_gates = _output_gates(served, objectives, watched.outputs)
        return [gate for gate in (*judged, *watched.output_gates) if gate.verdict is Verdict.FAILED]

    def _undo(self, model: ModelName, watched: _Watched, broken: Sequence[Gate], now: float) -> None:
        """Roll back beside the looks: it waits for every replica, and perhaps for the state store."""
        is_undoing = watched.undoing is not None and watched.undoing.is_alive()
        if is_undoing or now < watched.retry_at:
            return
        watched.retry_at = now + _RETRY_SECONDS
        watched.undoing = threading.Thread(
            target=self._roll_back, args=(model, watched, broken), name=f"boucle-undo-{model}", daemon=True
        )
        watched.undoing.start()

    def _roll_back(self, model: ModelName, watched: _Watched, broken: Sequence[Gate]) -> None:
        version, said = watched.version, "; ".join(gate.figures() for gate in broken)
        try:
            state = self._open_state()
            move = last_move(state, model)
            if move.decision.to_version != version:
                return  # decided since: the next plan says who answers
            decision = guard(
                broken,
                move=move.decision,
                back_to=previous_version(state, model),
                pin=pin_in_force(state.decisions(model)),
            )
            if decision.outcome is GuardOutcome.HOLD:
                watched.held = f"Production of '{model}': {decision.reason}."
                return
            actor = Actor(name=f"guard:{self._replica}", at=self._open_clock(model).now())
            done = roll_back(
                state,
                model,
                reason=decision.reason,
                actor=actor,
                leaving=version,
                replica_timeout_seconds=self._replica_timeout_seconds,
            )
        except (ConflictError, NoProductionModelError) as error:
            _LOGGER.info("version %s of %s was not rolled back here: %s", version, model, error)
        except Exception as error:  # noqa: BLE001 - any driver's error: the store is away
            held = f"Version {version} of '{model}' should be rolled back ({said}), and cannot be yet"
            watched.held = f"{held}: {for_callers(error)}"
            _LOGGER.warning("%s: %s: %s", held, type(error).__name__, error)
        else:
            if done.decision.decision.actor == actor.name:
                self._metrics.guard_rollbacks.labels(model).inc()
                _LOGGER.warning("version %s of %s rolled back: %s", version, model, decision.reason)


def _facts(history: Sequence[Seen[ServiceFacts]], rule: BurnRule) -> BurnFacts:
    now = history[-1]
    return BurnFacts(
        long=_between(seen_before(history, now.at - rule.long_seconds), now),
        short=_between(seen_before(history, now.at - rule.short_seconds), now),
    )


def _between(before: Seen[ServiceFacts], now: Seen[ServiceFacts]) -> ServiceFacts:
    was, found = before.counted, now.counted
    return ServiceFacts(
        requests=found.requests - was.requests, failed=found.failed - was.failed, slow=found.slow - was.slow
    )


def _output_gates(served: ServedModel, objectives: ServiceObjectives, outputs: Outputs) -> tuple[Gate, ...]:
    """Against the version that stands by; where none does, or it is not warm, there is nothing to say."""
    standby = (arm.bundle_digest for arm in served.plan.arms if arm.role is Role.STANDBY)
    before = next((served.bundles[digest] for digest in standby if digest in served.bundles), None)
    facts = outputs.facts(served.production, before, level=objectives.confidence) if before else None
    return output_gates(objectives, facts)
