"""How requests come to versions: traffic after a promotion, rollouts step by step, trials, and their end."""

from collections.abc import Mapping

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion, version_text
from boucle.contracts.rollout import Rollout
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.traffic_plan import NewPlan, Strategy, TrafficPlan
from boucle.errors import ConflictError
from boucle.operations import promotion
from boucle.operations.actor import Actor
from boucle.operations.production import direct_plan, known_version, last_move, promoted_bundles, rollout_under_way
from boucle.policy.rollout import first_rollout
from boucle.policy.trials import TrafficPolicy, first_weight, new_trial, rollout_plan
from boucle.ports import StateStore


def start_traffic(
    state: StateStore,
    model: ModelName,
    *,
    policy: TrafficPolicy,
    actor: Actor,
    objectives: ServiceObjectives | None = None,
) -> TrafficPlan:
    """Bring the version that the ledger calls production into traffic, as the policy says; twice is once.

    Direct: it answers everybody, and the one to go back to is kept warm. Canary: a rollout begins, in which the version
    that was production before answers all but the first step; without such a version there is nothing to compare with,
    and it is direct. With `objectives`, replicas hold production to these from now on.

    Raises:
        NoProductionModelError: Nothing was promoted yet.
        ConflictError: Production, or the plan, moved in between.
    """
    move = last_move(state, model)
    target = known_version(move.decision.to_version, model)
    history = state.plan_history(model)
    if history and history[-1].decision_id >= move.decision_id and not traffic_difference(state, model):
        return history[-1]  # this promotion has its plan, whatever followed from it: a step, its end, a trial
    before = move.decision.from_version
    bundles = promoted_bundles(state, model)
    plan = direct_plan(state, model, production=target, came_from=before)
    is_promotion = move.decision.kind is DecisionKind.PROMOTE
    if policy.after_promotion is Strategy.CANARY and is_promotion and before is not None and before in bundles:
        rollout = first_rollout(policy.canary, model, challenger=target, production=before, at=actor.at)
        plan = rollout_plan(Strategy.CANARY, rollout, bundles, shadow_share=policy.shadow_share)
    seen = history[-1].revision if history else 0
    plan = plan.model_copy(update={"service": objectives})
    return state.publish_plan(move, plan=plan, actor=actor.name, at=actor.at, expected_revision=seen)


def renew_objectives(
    state: StateStore, model: ModelName, objectives: ServiceObjectives, *, actor: Actor
) -> TrafficPlan | None:
    """The plan that says these objectives, where the one in force says others; None where nothing has to change.

    An open rollout is left alone: what is counted in it is counted by revision of the plan.

    Raises:
        NoProductionModelError: Nothing was promoted yet.
        ConflictError: The plan or production moved in between.
    """
    plan = state.plan(model)
    if plan is None or plan.service == objectives or rollout_under_way(state, model):
        return None
    said = {name: getattr(plan, name) for name in NewPlan.model_fields} | {"service": objectives}
    move = last_move(state, model)
    return state.publish_plan(
        move, plan=NewPlan(**said), actor=actor.name, at=actor.at, expected_revision=plan.revision
    )


def try_version(
    state: StateStore,
    model: ModelName,
    *,
    challenger: ModelVersion,
    bundle: Digest,
    strategy: Strategy,
    policy: TrafficPolicy,
    actor: Actor,
    reason: str,
) -> tuple[Decision, TrafficPlan]:
    """Try a version that is not promoted beside production.

    Raises:
        NoProductionModelError: There is no production to try it against.
        ConfigurationError: The strategy tries no version.
        ConflictError: It is production, another rollout is open, or production does not have its traffic yet.
    """
    production = known_version(state.production(model), model)
    weight = first_weight(policy, strategy)
    if challenger == production:
        raise ConflictError(f"Version {challenger} of '{model}' is in production already. Nothing was changed.")
    current = state.plan(model)
    if hindered := rollout_under_way(state, model) or traffic_difference(state, model):
        raise ConflictError(f"Version {challenger} cannot be tried now: {hindered}. Nothing was changed.")
    rollout = new_trial(model, production=production, challenger=challenger, weight=weight, at=actor.at)
    bundles = {**promoted_bundles(state, model), challenger: bundle}
    share = 100.0 if strategy is Strategy.SHADOW else 0.0
    plan = rollout_plan(strategy, rollout, bundles, shadow_share=share)
    said = f"{strategy} of version {challenger} against version {production}: {reason}"
    seen = current.revision if current else 0
    return _recorded(state, model, plan, rollout=rollout, reason=said, actor=actor, seen=seen)


def take_step(
    state: StateStore, plan: TrafficPlan, after: Rollout, *, reason: str, actor: Actor
) -> tuple[Decision, TrafficPlan]:
    """Go on to the next state of an open rollout: more of the entities, other weights, or all of them at its end.

    Raises:
        ConflictError: The plan or production moved in between; nothing was changed.
    """
    bundles: Mapping[ModelVersion, Digest] = {arm.version: arm.bundle_digest for arm in plan.arms}
    new = rollout_plan(plan.strategy, after, bundles, shadow_share=plan.shadow_share)
    return _recorded(state, plan.model, new, rollout=after, reason=reason, actor=actor, seen=plan.revision)


def end_trial(
    state: StateStore,
    plan: TrafficPlan,
    *,
    reason: str,
    actor: Actor,
    kind: DecisionKind = DecisionKind.ROLLOUT,
) -> tuple[Decision, TrafficPlan]:
    """Give everybody back to production after a trial; what it said is the reason.

    Raises:
        ConflictError: The plan or production moved in between, or there is no trial.
    """
    rollout = _open(plan)
    new = direct_plan(state, plan.model, production=rollout.production, came_from=None)
    return _recorded(state, plan.model, new, rollout=rollout, reason=reason, actor=actor, seen=plan.revision, kind=kind)


def abort(state: StateStore, model: ModelName, *, reason: str, actor: Actor) -> tuple[Decision, TrafficPlan]:
    """End the open rollout at once: its challenger answers nobody any more.

    A canary follows a promotion, so its end is a rollback: the ledger goes back too, and the aliases follow.

    Raises:
        ConflictError: No rollout is open.
    """
    plan = state.plan(model)
    if plan is None or plan.rollout is None or not plan.rollout.is_open:
        raise ConflictError(
            f"No rollout of '{model}' is open. Nothing was changed; `boucle rollback` undoes a promotion."
        )
    if plan.strategy is not Strategy.CANARY:
        return end_trial(state, plan, reason=reason, actor=actor, kind=DecisionKind.ABORT)
    rollout = plan.rollout
    return promotion.roll_back(
        state, model, reason=reason, actor=actor, to=rollout.production, leaving=rollout.challenger
    )


def note_served(state: StateStore, plan: TrafficPlan, *, seconds: float, actor: Actor) -> Decision | None:
    """Record, once a move, that every live replica answers by its plan, and how long that took.

    None when production moved in between: that move has a plan of its own, and whoever moved it notes that.
    """
    move, now = last_move(state, plan.model), plan.production.version
    if state.plan(plan.model) != plan or move.decision.to_version != now:
        return None
    for row in state.decisions(plan.model):
        if row.decision.kind is DecisionKind.SERVED and row.decision_id > move.decision_id:
            return row
    new = NewDecision(
        kind=DecisionKind.SERVED,
        model=plan.model,
        at=actor.at,
        actor=actor.name,
        reason=f"every live replica serves decision {move.decision_id}",
        from_version=now,
        to_version=now,
        subject_version=now,
        seconds=seconds,
        dagster_run_id=actor.dagster_run_id,
    )
    try:
        return state.record(new, expected_production=now)
    except ConflictError:  # moved since the look above
        return None


def traffic_difference(state: StateStore, model: ModelName) -> str:
    """A sentence when the traffic plan does not give the requests to production (a kill in between); else empty."""
    production, plan = state.production(model), state.plan(model)
    answering = None if plan is None else plan.production.version
    if plan is not None and plan.strategy is Strategy.CANARY and plan.rollout is not None and plan.rollout.is_open:
        answering = plan.rollout.challenger  # on its way: it was promoted, and gets its requests step by step
    if answering == production:
        return ""
    return (
        f"the traffic plan gives the requests to {version_text(answering)}, the ledger says {version_text(production)}"
    )


def _open(plan: TrafficPlan) -> Rollout:
    if plan.rollout is None or not plan.rollout.is_open:
        raise ConflictError(f"No rollout of '{plan.model}' is open. Nothing was changed.")
    return plan.rollout


def _recorded(
    state: StateStore,
    model: ModelName,
    plan: NewPlan,
    *,
    rollout: Rollout,
    reason: str,
    actor: Actor,
    seen: int | None = None,
    kind: DecisionKind = DecisionKind.ROLLOUT,
) -> tuple[Decision, TrafficPlan]:
    production = state.production(model)
    challenger = next((arm for arm in plan.arms if arm.version == rollout.challenger), None)
    new = NewDecision(
        kind=kind,
        model=model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=production,
        to_version=production,
        subject_version=rollout.challenger,
        bundle_digest=challenger.bundle_digest if challenger else None,
        git_commit=actor.git_commit,
        dagster_run_id=actor.dagster_run_id,
    )
    return state.record_with_plan(new, expected_production=production, plan=plan, expected_revision=seen)
