"""The guard of one model: a sensor that looks at what replicas answer, and undoes a promotion that broke it."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import dagster as dg

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.facts import ServiceFacts
from boucle.errors import ConflictError, NoProductionModelError, RegistryError
from boucle.operations import promotion
from boucle.policy.service import GuardOutcome, ServicePolicy, guard, service_gates
from boucle_adapters.home import Home
from boucle_adapters.replica_metrics import NOTHING, Counted, read_counts, since
from boucle_adapters.rolling_back import follow_in_registry, roll_back
from boucle_platform.model_loop.automation import EVERY_TICK_SECONDS, checks_job_name
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.home import HomeResource


@dataclass(frozen=True, kw_only=True)
class Window:
    """What the replicas had counted when a window began, about which decision's version.

    `followed` is the newest rollback that the registry's aliases follow; `base` has the replicas that are counted.
    """

    decision: int = 0
    followed: int = 0
    began: float = 0.0
    base: Mapping[str, Counted] = field(default_factory=dict)

    @classmethod
    def read(cls, cursor: str | None) -> "Window":
        """The window of a cursor; of one that cannot be read, none."""
        try:
            found = json.loads(cursor or "{}")
            base = {
                name: Counted(started=float(counts["started"]), facts=ServiceFacts(**counts["facts"]))
                for name, counts in found["base"].items()
            }
            numbers = {name: int(found[name]) for name in ("decision", "followed")}
            return cls(**numbers, began=float(found["began"]), base=base)
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def written(self) -> str:
        """The cursor that says so."""
        return json.dumps(
            {
                "decision": self.decision,
                "followed": self.followed,
                "began": self.began,
                "base": {name: asdict(counts) for name, counts in self.base.items()},
            }
        )


def guard_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Judges the service objectives; a breach rolls back at once, and the aliases follow any rollback.

    The cursor holds what the replicas had counted when the window began: at the newest move of production, then again
    whenever `window_seconds` are over.
    """

    @dg.sensor(
        name=f"{spec.model}_guard",
        job_name=checks_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        description="Failed or slow answers of a promoted version put the previous one back; the aliases follow.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
        ports = home.connect()
        try:
            move = promotion.last_move(ports.state, spec.name)
        except NoProductionModelError as error:
            return dg.SensorResult(skip_reason=str(error))
        window, said = _followed(ports, move, Window.read(context.cursor))
        window, measured = _measured(ports, spec, move, window)
        judged = service_gates(spec.service, measured)
        decision = guard(judged, move=move.decision, back_to=promotion.previous_version(ports.state, spec.name))
        if decision.outcome is GuardOutcome.HOLD:
            return dg.SensorResult(skip_reason=" ".join([*said, decision.reason]), cursor=window.written())
        return _rolled_back(ports, spec, move, reason=decision.reason, sensor=context.sensor_name)

    return evaluate


def _followed(home: Home, move: Decision, window: Window) -> tuple[Window, list[str]]:
    """Put the aliases right once after a rollback, over HTTP or by the guard: neither waits for the registry."""
    if move.decision.kind is not DecisionKind.ROLLBACK or window.followed == move.decision_id:
        return window, []
    try:
        aliases = follow_in_registry(home.registry, home.state, move)
    except RegistryError as error:
        return window, [f"The registry does not follow decision {move.decision_id} yet: {error}."]
    return replace(window, followed=move.decision_id), [f"{sentence}." for sentence in aliases]


def _measured(home: Home, spec: LoopSpec, move: Decision, window: Window) -> tuple[Window, ServiceFacts]:
    """What production answered in the window, and the window that the next tick goes on with."""
    version = move.decision.to_version
    counts: dict[str, Counted] = {}
    if version is not None:
        counts = read_counts(
            home.state,
            spec.name,
            version,
            slow_seconds=spec.service.slow_seconds,
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
    now = time.time()
    if window.decision != move.decision_id:
        base = _zeros(counts) if _moved_since(home, window, move, spec.service, now) else counts
        window = replace(window, decision=move.decision_id, began=now, base=base)
    measured = since(counts, window.base)
    if now - window.began > spec.service.window_seconds:
        # Who cannot be read now is counted from when it can be again: its next count is not of one window.
        window = replace(window, began=now, base=counts)
    return replace(window, base={**counts, **window.base}), measured


def _moved_since(home: Home, window: Window, move: Decision, policy: ServicePolicy, now: float) -> bool:
    """Whether all that the version answered it answered after the guard's last look.

    It must have looked until a moment ago, and the version be promoted for the first time: one that was production
    before, or while nobody looked, goes on counting where it was, and how far that was is not known.
    """
    looked = window.decision != 0 and now - window.began <= policy.window_seconds + 3 * EVERY_TICK_SECONDS
    new = move.decision
    moves = [row for row in home.state.decisions(new.model) if row.decision.kind in MOVES]
    first = next(row.decision_id for row in moves if row.decision.to_version == new.to_version)
    return looked and new.kind is DecisionKind.PROMOTE and first == move.decision_id


def _zeros(counts: Mapping[str, Counted]) -> dict[str, Counted]:
    return {name: replace(counted, facts=NOTHING) for name, counted in counts.items()}


def _rolled_back(home: Home, spec: LoopSpec, move: Decision, *, reason: str, sensor: str) -> dg.SensorResult:
    try:
        done = roll_back(
            home.state,
            spec.name,
            reason=reason,
            actor=home.actor(f"sensor:{sensor}", spec.name),
            leaving=move.decision.to_version,
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
    except (ConflictError, NoProductionModelError) as error:
        return dg.SensorResult(skip_reason=f"{reason}, but: {error}")
    tags: dict[str, Any] = {ACTOR_TAG: sensor, "boucle/trigger": reason[:250]}
    # The cursor stays: the next tick sees a new decision, and the aliases follow it.
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{spec.model}/{done.decision.row_hash}", tags=tags)])
