"""The guard of one model: a sensor that looks at what replicas answer, and undoes a promotion that broke it."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import dagster as dg

from boucle.contracts.decision import Decision, DecisionKind
from boucle.contracts.facts import BurnFacts, LoadFacts, ServiceFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.profile import CalibrationProfile
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.verdict import Gate
from boucle.errors import BoucleError, ConflictError, NoProductionModelError, RegistryError
from boucle.operations import traffic
from boucle.operations.actor import Actor
from boucle.operations.production import last_move, previous_version
from boucle.policy.burn import Seen, burn_gates, looked, seen_before
from boucle.policy.pins import pin_in_force
from boucle.policy.service import GuardOutcome, guard, log_loss_gate, saturation_gate
from boucle_adapters.home import Home
from boucle_adapters.replica_metrics import Counted, base_at, leaving_out, read_counts, since
from boucle_adapters.rolling_back import follow_in_registry, roll_back
from boucle_platform.model_loop.automation import EVERY_TICK_SECONDS, checks_job_name
from boucle_platform.model_loop.in_environment import sensor_status
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import read_reference
from boucle_platform.resources.home import HomeResource

_A_MOMENT_SECONDS = 30.0
"""The daemon ticks every few seconds; a guard that was silent for longer was not looking, unless its rules take longer
to say that something is over."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the replicas had counted at each look since a decision, and what they were asked before it.

    `followed` is the newest rollback that the registry's aliases follow; `slow_seconds` is from where on it counted
    answers as slow; `resumed` is the end of its newest silence, in seconds since the epoch, 0 where there was none.
    """

    decision: int = 0
    slow_seconds: float = 0.0
    followed: int = 0
    history: tuple[Seen[Mapping[str, Counted]], ...] = ()
    before: LoadFacts | None = None
    resumed: float = 0.0

    @classmethod
    def read(cls, cursor: str | None) -> "Watch":
        """What a cursor says; of one that cannot be read, nothing."""
        try:
            found = json.loads(cursor or "{}")
            return cls(
                decision=int(found["decision"]),
                slow_seconds=float(found["slow_seconds"]),
                followed=int(found["followed"]),
                history=tuple(Seen(float(at), _counted(counts)) for at, counts in found["history"]),
                before=LoadFacts(**found["before"]) if found["before"] else None,
                resumed=float(found.get("resumed", 0.0)),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return cls()

    def written(self) -> str:
        """The cursor that says so."""
        return json.dumps(
            {
                "decision": self.decision,
                "slow_seconds": self.slow_seconds,
                "followed": self.followed,
                "history": [(at, {name: asdict(one) for name, one in counts.items()}) for at, counts in self.history],
                "before": asdict(self.before) if self.before else None,
                "resumed": self.resumed,
            }
        )

    def measured(self, seconds: float) -> ServiceFacts:
        """What was answered in so many seconds before the newest look."""
        at, counts = self.history[-1]
        return since(counts, base_at(self.history, at - seconds))

    def load(self, seconds: float) -> LoadFacts | None:
        """What was asked in so many seconds before the newest look; None before there are two looks.

        It goes back to the end of a silence at most, of which nobody knows how much was asked in it.
        """
        if len(self.history) < 2:
            return None
        now = self.history[-1].at
        seconds = min(seconds, now - self.resumed)
        facts, began = self.measured(seconds), seen_before(self.history, now - seconds).at
        return LoadFacts(asked=facts.asked, refused=facts.refused, seconds=max(now - began, 1e-3))


def guard_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Judges the service objectives by their slow rules; a breach rolls back at once, the aliases follow any rollback.

    The cursor holds what the replicas had counted at each look that a window may begin with.
    """

    @dg.sensor(
        name=f"{spec.model}_guard",
        job_name=checks_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        default_status=sensor_status(),
        description="A promoted version that misses its objectives is taken back; the aliases follow any rollback.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult:
        ports = home.connect()
        try:
            move = last_move(ports.state, spec.name)
        except NoProductionModelError as error:
            return dg.SensorResult(skip_reason=str(error))
        watch, said = _followed(ports, move, Watch.read(context.cursor))
        actor = ports.actor(f"sensor:{context.sensor_name}", spec.name)
        said += _renewed(ports, spec, actor)
        last, watch = watch, _looked(ports, spec, move, watch)
        said += _silence(last, watch)
        decision = guard(
            (*_gates(spec.service, watch), *_loss_gates(ports, spec, move)),
            move=move.decision,
            back_to=previous_version(ports.state, spec.name),
            pin=pin_in_force(ports.state.decisions(spec.name)),
        )
        if decision.outcome is GuardOutcome.HOLD:
            return dg.SensorResult(skip_reason=" ".join([*said, decision.reason]), cursor=watch.written())
        return _rolled_back(ports, spec, move, reason=decision.reason, actor=actor)

    return evaluate


def _followed(home: Home, move: Decision, watch: Watch) -> tuple[Watch, list[str]]:
    """Put the aliases right once after a rollback, over HTTP or by the guard: neither waits for the registry."""
    if move.decision.kind is not DecisionKind.ROLLBACK or watch.followed == move.decision_id:
        return watch, []
    try:
        aliases = follow_in_registry(home.registry, home.state, move)
    except RegistryError as error:
        return watch, [f"The registry does not follow decision {move.decision_id} yet: {error}."]
    return replace(watch, followed=move.decision_id), [f"{sentence}." for sentence in aliases]


def _renewed(home: Home, spec: LoopSpec, actor: Actor) -> list[str]:
    """Tell the replicas the objectives of `defs.yaml`, where the plan has others."""
    try:
        plan = traffic.renew_objectives(home.state, spec.name, spec.service, actor=actor)
    except ConflictError:  # somebody decided meanwhile; the next tick looks again
        return []
    return [f"Revision {plan.revision} of the traffic plan has the objectives of defs.yaml."] if plan else []


def _looked(home: Home, spec: LoopSpec, move: Decision, watch: Watch) -> Watch:
    """What was known with one more look; with another decision, or another bound of what is slow, it begins anew."""
    version, slow_seconds = move.decision.to_version, spec.service.slow_seconds
    counts: dict[str, Counted] = {}
    if version is not None:
        counts = read_counts(
            home.state,
            spec.name,
            version,
            slow_seconds=slow_seconds,
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
    now = time.time()
    seen: Seen[Mapping[str, Counted]] = Seen(now, counts)
    if watch.decision == move.decision_id:
        return _with_another(watch, seen, spec.service)
    anew = replace(watch, decision=move.decision_id, slow_seconds=slow_seconds, history=(seen,), before=None)
    if not _was_looking(watch, move, now, spec.service):
        return anew
    before = watch.load(_load_seconds(spec.service))
    if _is_known(home, move):
        return replace(anew, before=before)
    then, counted = watch.history[-1]
    return replace(anew, history=(Seen(then, _at_the_move(counts, counted)), seen), before=before)


def _with_another(watch: Watch, seen: Seen[Mapping[str, Counted]], objectives: ServiceObjectives) -> Watch:
    """One more look at the same version; with another bound of what is slow it begins anew."""
    if watch.slow_seconds != objectives.slow_seconds or not watch.history:
        return replace(watch, slow_seconds=objectives.slow_seconds, history=(seen,))
    if _looked_just_now(watch, seen.at, objectives):
        return replace(watch, history=looked(watch.history, seen, objectives.slow))
    # What was counted in a silence may be from its beginning: a window would say that it happens now.
    *before, last = leaving_out(watch.history, seen.counted)
    # The last look before it stays: no window reaches further back because of the silence.
    return replace(watch, history=(*looked(before, last, objectives.slow), seen), resumed=seen.at)


def _silence(last: Watch, watch: Watch) -> list[str]:
    """How long the guard did not look before this one, where that was too long."""
    if not last.history or watch.resumed != watch.history[-1].at:
        return []
    return [
        f"The guard had not looked for {watch.resumed - last.history[-1].at:.0f} s: what was answered meanwhile counts "
        "for nothing. While each look says so, the sensor judges no counts: Dagster's daemon looks too seldom."
    ]


def _at_the_move(counts: Mapping[str, Counted], last: Mapping[str, Counted]) -> dict[str, Counted]:
    """What replicas had counted when a version came: of it nothing, of all requests what the last look saw."""
    began = {}
    for name, now in counts.items():
        then = last.get(name, now)
        known = then if then.started == now.started else now
        began[name] = replace(known, facts=replace(known.facts, requests=0, failed=0, slow=0))
    return began


def _was_looking(watch: Watch, move: Decision, now: float, objectives: ServiceObjectives) -> bool:
    """Whether the guard looked until a moment before a promotion."""
    return _looked_just_now(watch, now, objectives) and move.decision.kind is DecisionKind.PROMOTE


def _looked_just_now(watch: Watch, now: float, objectives: ServiceObjectives) -> bool:
    """Whether it looked within a moment, or within the shortest time in which a rule says that something is over."""
    shortest = min((rule.short_seconds for rule in objectives.slow), default=0.0)
    return bool(watch.history) and now - watch.history[-1].at <= max(_A_MOMENT_SECONDS, shortest)


def _is_known(home: Home, move: Decision) -> bool:
    """Whether replicas may have asked the version before it came: it was production, on trial or beside it.

    It goes on counting where it was then, and how far that was is not known.
    """
    plans = home.state.plan_history(move.decision.model)
    earlier = (plan for plan in plans if plan.decision_id < move.decision_id)
    return any(arm.version == move.decision.to_version for plan in earlier for arm in plan.arms)


def _gates(objectives: ServiceObjectives, watch: Watch) -> tuple[Gate, ...]:
    """The objectives that change slowly, or that no replica knows alone."""
    burning = [
        gate
        for rule in objectives.slow
        for gate in burn_gates(
            objectives,
            rule,
            BurnFacts(long=watch.measured(rule.long_seconds), short=watch.measured(rule.short_seconds)),
        )
    ]
    load = watch.load(_load_seconds(objectives)) or LoadFacts(asked=0, refused=0, seconds=1)
    return (*burning, saturation_gate(objectives, load, watch.before))


def _load_seconds(objectives: ServiceObjectives) -> float:
    return max((rule.long_seconds for rule in objectives.slow), default=0.0)


def _loss_gates(home: Home, spec: LoopSpec, move: Decision) -> tuple[Gate, ...]:
    """By what was reported of the version since it came; where no limit is said, nothing is read."""
    new = move.decision
    if spec.service.max_log_loss_increase is None or new.to_version is None:
        return ()
    report = home.monitoring.newest_about(new.model, new.to_version, since=new.at)
    holdout = _holdout(home, spec, new.to_version) if report else None
    return (log_loss_gate(spec.service, report, holdout, reported_level=spec.monitoring.confidence),)


def _holdout(home: Home, spec: LoopSpec, version: ModelVersion) -> CalibrationProfile | None:
    try:
        return read_reference(home, spec, version).outcomes
    except (OSError, ValueError, BoucleError):  # its files are gone, or of another release
        return None


def _counted(counts: Mapping[str, Any]) -> dict[str, Counted]:
    return {
        name: Counted(started=float(one["started"]), facts=ServiceFacts(**one["facts"])) for name, one in counts.items()
    }


def _rolled_back(home: Home, spec: LoopSpec, move: Decision, *, reason: str, actor: Actor) -> dg.SensorResult:
    try:
        done = roll_back(
            home.state,
            spec.name,
            reason=reason,
            actor=actor,
            leaving=move.decision.to_version,
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
    except (ConflictError, NoProductionModelError) as error:
        return dg.SensorResult(skip_reason=f"{reason}, but: {error}")
    tags: dict[str, Any] = {ACTOR_TAG: actor.name.removeprefix("sensor:"), "boucle/trigger": reason[:250]}
    # The cursor stays: the next tick sees a new decision, and the aliases follow it.
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=f"{spec.model}/{done.decision.row_hash}", tags=tags)])
