"""The controller of rollouts: read what was counted, let the policy judge it, carry out what follows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from boucle.contracts.bundle import CONTRACT_FILE, BundleContract
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import ModelVersion
from boucle.contracts.look import ArmEstimate, ArmLook, RolloutLook
from boucle.contracts.rollout import ArmCounts, Phase, Rollout, StepCounts
from boucle.contracts.shadow_report import ShadowReport
from boucle.contracts.traffic_plan import Role, Strategy, TrafficPlan
from boucle.contracts.trials import Outcome, TrialResult
from boucle.contracts.verdict import Gate, Verdict
from boucle.errors import ApprovalError, ConflictError
from boucle.operations import approval, traffic
from boucle.operations.actor import Actor
from boucle.policy.ab import ab_gates, ab_outcome
from boucle.policy.bandit import BanditPolicy, arm_rewards, bandit_outcome, seeded, settled, weights
from boucle.policy.canary import canary_gates, requests_needed
from boucle.policy.interleaving import decided_requests_needed, interleaving_gates, interleaving_outcome
from boucle.policy.pins import pin_in_force, pinned_by
from boucle.policy.rollout import next_rollout
from boucle.policy.trials import shadow_outcome, weights_moved
from boucle.stats.intervals import wilson_interval
from boucle.stats.off_policy import every_arm
from boucle_adapters.home import Home
from boucle_adapters.log_tables import RolloutLogs
from boucle_adapters.rank_facts import preferences
from boucle_adapters.replicas import wait_until_served
from boucle_adapters.rolling_back import FOLLOW_TIMEOUT_SECONDS, abort
from boucle_adapters.rollout_facts import BanditLog, ab_counts, bandit_log, canary_steps, shadow_report
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import truth_files
from boucle_platform.model_loop.steps.risk import risk_of

_DAY = timedelta(days=1)
_MOST_FALLBACKS = 0.05
"""Share of lists for which an interleaved challenger may have no order."""
_GUARDRAILS = ("failed", "slow")
"""Metrics of the canary that end a trial of another kind as well."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What one look says: `after` is the next state where there is one, `result` says how a trial stands."""

    said: str
    gates: tuple[Gate, ...]
    arms: tuple[ArmLook, ...]
    after: Rollout | None = None
    result: TrialResult | None = None
    needed: Mapping[str, int] = field(default_factory=dict)
    estimates: tuple[ArmEstimate, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a judge sees: the plan, every revision of its rollout, the logs, and now."""

    spec: LoopSpec
    plan: TrafficPlan
    rollout: Rollout
    history: tuple[TrafficPlan, ...]
    home: Home
    logs: RolloutLogs
    at: datetime

    @property
    def days(self) -> float:
        return (self.at - self.rollout.began_at) / _DAY


def look(home: Home, spec: LoopSpec, *, who: str) -> RolloutLook | None:
    """Judge the open rollout and carry out what follows; None when none is open.

    Raises:
        ConflictError: Somebody decided in between; the next look judges anew.
    """
    plan = home.state.plan(spec.name)
    if plan is None or plan.rollout is None or not plan.rollout.is_open:
        return None
    rollout, actor = plan.rollout, home.actor(who, spec.name)
    history = tuple(
        one
        for one in home.state.plan_history(spec.name)
        if one.rollout and one.rollout.rollout_id == rollout.rollout_id
    )
    seen = _Seen(spec=spec, plan=plan, rollout=rollout, history=history, home=home, logs=_logs(home, spec), at=actor.at)
    judged = _JUDGES[plan.strategy](seen)
    held = _pinned(home, plan)
    more = "" if held else _carried_out(home, seen, judged, actor)
    found = RolloutLook(
        model=spec.name,
        at=actor.at,
        strategy=plan.strategy,
        plan_revision=plan.revision,
        rollout=rollout,
        arms=judged.arms,
        gates=judged.gates,
        needed=dict(judged.needed),
        estimates=judged.estimates,
        moved=bool(more),
        said=f"{judged.said} {held or more}".strip(),
    )
    home.looks.write(found)
    return found


def _logs(home: Home, spec: LoopSpec) -> RolloutLogs:
    labels = truth_files(home, spec)
    return RolloutLogs(predictions=home.log, shadows=home.shadows, feedback=home.feedback, labels=labels)


def shadow_report_of(home: Home, spec: LoopSpec) -> ShadowReport | None:
    """How the scores of both versions of the newest rollout differ, by the slices of the promotion policy."""
    history = home.state.plan_history(spec.name)
    if not history:
        return None
    bundle = home.bundles.fetch(history[-1].production.bundle_digest)
    names = BundleContract.model_validate_json((bundle / CONTRACT_FILE).read_bytes()).feature_names
    slices = {name: names.index(name) for name in spec.promotion.slicing.by if name in names}
    return shadow_report(_logs(home, spec), history, slices)


def _canary(seen: _Seen) -> Judged:
    policy, rollout = seen.spec.traffic.canary, seen.rollout
    steps = canary_steps(seen.logs, seen.history, slow_factor=policy.slow_factor)
    gates = canary_gates(policy, steps)
    now = steps[-1] if steps else StepCounts()
    after = next_rollout(policy, rollout, gates, requests=now.challenger.requests, at=seen.at)
    return Judged(
        said=_canary_sentence(rollout, after, gates),
        gates=gates,
        arms=_arms(seen.plan, steps),
        after=after if after != rollout else None,
        needed=_needed(seen, steps),
    )


def _shadow(seen: _Seen) -> Judged:
    policy = seen.spec.traffic.canary
    steps = canary_steps(seen.logs, seen.history, slow_factor=policy.slow_factor)
    gates = canary_gates(policy, steps)
    requests = steps[-1].challenger.requests if steps else 0
    minutes = (seen.at - seen.rollout.began_at).total_seconds() / 60
    result = shadow_outcome(policy, gates, requests=requests, minutes=minutes)
    arms = _arms(seen.plan, steps)
    return Judged(said=result.reason, gates=gates, arms=arms, result=result, needed=_needed(seen, steps))


def _ab(seen: _Seen) -> Judged:
    weight = seen.rollout.weight  # of the plan: what the policy says by now changes no trial
    policy = seen.spec.traffic.ab.model_copy(update={"weight": weight})
    counts = ab_counts(seen.logs, seen.history, policy.metric)
    result = _guarded(seen, ab_outcome(policy, ab_gates(policy, counts), days=seen.days))
    sides = {Role.PRODUCTION: counts.production, Role.CHALLENGER: counts.challenger}
    arms = tuple(
        ArmLook(version=arm.version, role=arm.role, weight=arm.weight, requests=sides[arm.role].assigned)
        for arm in seen.plan.arms
    )
    return Judged(said=result.reason, gates=result.gates, arms=arms, result=result)


def _bandit(seen: _Seen) -> Judged:
    policy = seen.spec.traffic.bandit
    found = bandit_log(seen.logs, seen.history, seen.at)
    log = found.logged
    versions = [arm.version for arm in seen.plan.arms]
    rewards = arm_rewards(policy, log, versions)
    rollout = seen.rollout
    known = bandit_outcome(
        policy, rewards, seeded(rollout.rollout_id, rewards), production=rollout.production, days=seen.days
    )
    result = _guarded(seen, known)
    weight = weights(policy, rewards, seeded(rollout.rollout_id, rewards))[rollout.challenger]
    after = rollout.model_copy(update={"weight": weight})
    is_move = not result.is_final and weights_moved(seen.spec.traffic, rollout.weight, weight)
    answered = {one.version: one.answered for one in rewards}
    arms = tuple(
        ArmLook(version=arm.version, role=arm.role, weight=arm.weight, requests=answered[arm.version])
        for arm in seen.plan.arms
    )
    moved = f" The challenger's share goes from {rollout.weight:g} to {weight:g} per cent." if is_move else ""
    return Judged(
        said=result.reason + moved,
        gates=result.gates,
        arms=arms,
        result=result,
        after=after if is_move else None,
        needed={"rewards of each arm": policy.min_rewards},
        estimates=_estimates(policy, found, versions),
    )


def _estimates(policy: BanditPolicy, found: BanditLog, versions: list[ModelVersion]) -> tuple[ArmEstimate, ...]:
    """What each arm would earn alone, from the decisions whose reward is known."""
    log = found.logged
    known, rewards = settled(policy, log)
    by_arm = every_arm(
        versions, log.version[known], log.propensity[known], rewards[known], entities=found.entities[known]
    )
    return tuple(
        ArmEstimate(
            version=version,
            ips=one.ips.estimate,
            ips_low=one.ips.low,
            ips_high=one.ips.high,
            snips=one.snips.estimate,
            snips_low=one.snips.low,
            snips_high=one.snips.high,
            decisions=one.snips.matched,
        )
        for version in versions
        if (one := by_arm[version]) is not None
    )


def _interleaving(seen: _Seen) -> Judged:
    policy = seen.spec.traffic.interleaving
    home, model = seen.home, seen.spec.name
    counts = preferences(home.ranks, home.feedback, model, seen.history, policy=policy, now=seen.at)
    result = interleaving_outcome(policy, interleaving_gates(policy, counts), days=seen.days)
    shown = counts.decided + counts.ties + counts.pending + counts.fallbacks
    if shown and (failing := wilson_interval(counts.fallbacks, shown, level=0.999)).low > _MOST_FALLBACKS:
        reason = (
            f"The challenger is not fit to rank: of {shown} lists it had no order for {counts.fallbacks} "
            f"({failing.low:.3f} to {failing.high:.3f}, at most {_MOST_FALLBACKS})."
        )
        result = TrialResult(outcome=Outcome.LOST, reason=reason, gates=result.gates)
    lists = counts.decided + counts.ties
    arms = tuple(
        ArmLook(version=arm.version, role=arm.role, weight=arm.weight, requests=lists) for arm in seen.plan.arms
    )
    needed = {"lists with a preference": decided_requests_needed(policy)}
    return Judged(said=result.reason, gates=result.gates, arms=arms, result=result, needed=needed)


_JUDGES: Mapping[Strategy, Callable[[_Seen], Judged]] = {
    Strategy.CANARY: _canary,
    Strategy.SHADOW: _shadow,
    Strategy.AB: _ab,
    Strategy.BANDIT: _bandit,
    Strategy.INTERLEAVING: _interleaving,
}


def _carried_out(home: Home, seen: _Seen, judged: Judged, actor: Actor) -> str:
    """Do what was judged; a sentence about what moved, empty when nothing did."""
    plan = seen.plan
    if judged.result is not None and judged.result.is_final:
        # Before the end: killed in between, the next look finds the trial open and the request there.
        asked = _ask_for_promotion(home, seen, judged.result, actor) if judged.result.asks_for_promotion else ""
        traffic.end_trial(home.state, plan, reason=judged.said, actor=actor)
        return f"The trial is over; production answers everybody. {asked}".strip()
    if judged.after is None:
        return ""
    if judged.after.phase is Phase.ABORTED:
        done = abort(
            home.state,
            plan.model,
            reason=judged.said,
            actor=actor,
            replica_timeout_seconds=home.settings.replica_timeout_seconds,
        )
        return f"Version {seen.rollout.production} is back: {done.followed.sentence()}."
    _, after = traffic.take_step(home.state, plan, judged.after, reason=judged.said, actor=actor)
    followed = wait_until_served(
        home.state,
        plan.model,
        after.revision,
        timeout_seconds=FOLLOW_TIMEOUT_SECONDS,
        replica_timeout_seconds=home.settings.replica_timeout_seconds,
    )
    if followed.complete:
        traffic.note_served(home.state, after, seconds=followed.seconds, actor=actor)
    return f"{followed.sentence()}."


def _pinned(home: Home, plan: TrafficPlan) -> str:
    """Why a canary neither goes on nor ends by itself: a person pinned its version. A trial moves no production."""
    pin = pin_in_force(home.state.decisions(plan.model)) if plan.strategy is Strategy.CANARY else None
    return f"It stays where it is: {pinned_by(pin)}." if pin else ""


def _ask_for_promotion(home: Home, seen: _Seen, result: TrialResult, actor: Actor) -> str:
    """Put a request on record for the winner; who must agree, and whether gates pass, is for the policy to say."""
    winner: ModelVersion = result.winner or seen.rollout.challenger
    evidence = home.evidence.newest(seen.spec.name, winner)
    for known in home.state.decisions(seen.spec.name):
        said = known.decision
        if said.kind is DecisionKind.REQUEST and said.subject_version == winner and said.at >= seen.rollout.began_at:
            return f"Decision {known.decision_id} asks for the promotion of version {winner}."
    if evidence is None:
        return f"Version {winner} was never evaluated, so its promotion was not asked for."
    try:
        asked = seen.spec.promotion.asked(risk_of(home, seen.spec, evidence))
        row = approval.request(home.state, evidence=evidence, asked=asked, actor=actor, reason=result.reason)
    except (ApprovalError, ConflictError) as error:
        return f"Its promotion was not asked for: {error}"
    return f"Decision {row.decision_id} asks for the promotion of version {winner}."


def _canary_sentence(rollout: Rollout, after: Rollout, gates: tuple[Gate, ...]) -> str:
    figures = "; ".join(gate.figures() for gate in gates)
    place = "in shadow" if rollout.phase is Phase.SHADOW else f"at {rollout.weight:g} per cent"
    moves = {
        Phase.ABORTED: f"canary of version {rollout.challenger} aborted {place}",
        Phase.COMPLETE: f"canary of version {rollout.challenger} complete: every step was passed",
        Phase.CANARY: f"canary of version {rollout.challenger} goes on {place} to {after.weight:g} per cent",
    }
    holds = f"canary of version {rollout.challenger} holds {place}"
    return f"{holds if after == rollout else moves.get(after.phase, holds)}; {figures}."


def _arms(plan: TrafficPlan, steps: tuple[StepCounts, ...]) -> tuple[ArmLook, ...]:
    by_role = {
        Role.PRODUCTION: [step.production for step in steps],
        Role.CHALLENGER: [step.challenger for step in steps],
    }
    return tuple(
        ArmLook(version=arm.version, role=arm.role, weight=arm.weight, **_sums(by_role[arm.role])) for arm in plan.arms
    )


def _sums(counts: list[ArmCounts]) -> dict[str, int]:
    return {name: sum(getattr(one, name) or 0 for one in counts) for name in ("requests", "failed", "slow")}


def _guarded(seen: _Seen, result: TrialResult) -> TrialResult:
    """The result of a trial, unless the challenger fails its callers or is slow: then it is lost, whatever it earns."""
    policy = seen.spec.traffic.canary
    steps = canary_steps(seen.logs, seen.history, slow_factor=policy.slow_factor)
    guards = tuple(gate for gate in canary_gates(policy, steps) if gate.name in _GUARDRAILS)
    broken = [gate.figures() for gate in guards if gate.verdict is Verdict.FAILED]
    gates = (*result.gates, *guards)
    if not broken:
        return result.model_copy(update={"gates": gates})
    reason = f"The challenger is not fit to answer: {'; '.join(broken)}."
    return TrialResult(outcome=Outcome.LOST, reason=reason, gates=gates)


def _needed(seen: _Seen, steps: tuple[StepCounts, ...]) -> Mapping[str, int]:
    """By what production shows; nothing before it has answered anybody."""
    production, loss = [step.production for step in steps], [step.loss for step in steps if step.loss.n]
    asked = sum(one.requests for one in production)
    if not asked:
        return {}
    level = next((step.production_loss for step in steps if step.production_loss), None)
    deviation = max((one.variance**0.5 for one in loss), default=0.0)
    found = requests_needed(
        seen.spec.traffic.canary,
        weight=max(seen.rollout.weight, seen.spec.traffic.canary.steps[0].weight),
        failed=sum(one.failed for one in production) / asked,
        slow=sum(one.slow or 0 for one in production) / asked,
        loss_deviation=deviation / level if level else 0.0,
    )
    return found if level else {name: count for name, count in found.items() if name != "loss"}
