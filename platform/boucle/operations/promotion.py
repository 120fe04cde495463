"""Promote, reject and roll back: the same verbs for assets, sensors, CLI and HTTP, over the ports."""

from dataclasses import dataclass
from datetime import datetime

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.traffic_plan import Strategy, TrafficPlan
from boucle.errors import ConflictError, NoProductionModelError, PromotionRefusedError
from boucle.policy.promotion import PromotionDecision, PromotionOutcome, decide
from boucle.policy.rollout import direct_arms
from boucle.ports import ModelRegistry, StateStore

PRODUCTION = "production"
PREVIOUS = "previous"


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who decides, when, and from which code and run."""

    name: str
    at: datetime
    git_commit: str = ""
    dagster_run_id: str = ""


def promote(state: StateStore, registry: ModelRegistry, *, evidence: Evidence, policy: str, actor: Actor) -> Decision:
    """Make the evidence's version production in the ledger, then in the registry; doing it twice is doing it once.

    Raises:
        PromotionRefusedError: A gate did not pass, production moved since the evidence was taken, or the version was
            rolled back.
    """
    current = state.production(evidence.model)
    if current == evidence.version:
        return _finish(state, registry, evidence, last_move(state, evidence.model))
    judged = judge(state, evidence)
    if judged.outcome is not PromotionOutcome.PROMOTE:
        raise PromotionRefusedError(
            f"Version {evidence.version} of '{evidence.model}' was not promoted: {judged.reason} "
            f"Production stays {_name(current)}."
        )
    new = _decision(evidence, DecisionKind.PROMOTE, actor, production=current, policy=policy, reason=judged.reason)
    try:
        decision = state.record(new, expected_production=evidence.production_version)
    except ConflictError as error:
        raise PromotionRefusedError(
            f"Version {evidence.version} of '{evidence.model}' was not promoted: {error} Evaluate it again."
        ) from error
    return _finish(state, registry, evidence, decision)


def reject(state: StateStore, registry: ModelRegistry, *, evidence: Evidence, policy: str, actor: Actor) -> Decision:
    """Record that a candidate did not pass; production stays. The same evidence is recorded once."""
    for row in reversed(state.decisions(evidence.model)):
        if row.decision.kind is DecisionKind.REJECT and row.decision.evidence_digest == evidence.digest():
            return row
    current = state.production(evidence.model)
    reason = judge(state, evidence).reason
    new = _decision(evidence, DecisionKind.REJECT, actor, production=current, policy=policy, reason=reason)
    decision = state.record(new, expected_production=current)
    tags = {"validation_status": "rejected", "ledger_head": decision.row_hash}
    registry.set_tags(evidence.model, evidence.version, tags)
    return decision


def judge(state: StateStore, evidence: Evidence) -> PromotionDecision:
    """What the policy says of the evidence, as things stand."""
    return decide(
        evidence, production=state.production(evidence.model), rolled_back=_rolled_back(state, evidence.model)
    )


def start_traffic(state: StateStore, model: ModelName, *, actor: Actor) -> TrafficPlan:
    """Give all requests to the version that the ledger calls production; the one before it is kept warm.

    Raises:
        NoProductionModelError: Nothing was promoted yet.
    """
    move = last_move(state, model)
    to = move.decision.to_version
    arms = direct_arms(_bundles(state, model), production=_known(to, model), previous=move.decision.from_version)
    return state.publish_plan(move, strategy=Strategy.DIRECT, arms=arms, actor=actor.name, at=actor.at)


def roll_back(
    state: StateStore, model: ModelName, *, reason: str, actor: Actor, to: ModelVersion | None = None
) -> tuple[Decision, TrafficPlan]:
    """Put an earlier version back, in ledger and traffic at once; `to` defaults to the one promoted before.

    The registry is not on this path: `reconcile_aliases` follows.

    Raises:
        NoProductionModelError: Nothing is in production, or there is no earlier version to go back to.
    """
    current = _known(state.production(model), model)
    bundles = _bundles(state, model)
    target = to if to is not None else previous_version(state, model)
    if target is None or target == current or target not in bundles:
        known = ", ".join(str(version) for version in sorted(bundles) if version != current) or "none"
        raise NoProductionModelError(
            f"'{model}' cannot be rolled back from version {current} to {_name(target)}: versions promoted earlier: "
            f"{known}. Nothing was changed."
        )
    new = NewDecision(
        kind=DecisionKind.ROLLBACK,
        model=model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=current,
        to_version=target,
        bundle_digest=bundles[target],
        git_commit=actor.git_commit,
        dagster_run_id=actor.dagster_run_id,
    )
    arms = direct_arms(bundles, production=target, previous=current)
    return state.record_with_plan(new, expected_production=current, strategy=Strategy.DIRECT, arms=arms)


def note_served(state: StateStore, decision: Decision, *, seconds: float, actor: Actor) -> Decision:
    """Record that every live replica answers as `decision` says, and how long that took."""
    now = state.production(decision.decision.model)
    return state.record(
        NewDecision(
            kind=DecisionKind.SERVED,
            model=decision.decision.model,
            at=actor.at,
            actor=actor.name,
            reason=f"every live replica serves decision {decision.decision_id}",
            from_version=now,
            to_version=now,
            subject_version=decision.decision.to_version,
            seconds=seconds,
            dagster_run_id=actor.dagster_run_id,
        ),
        expected_production=now,
    )


def previous_version(state: StateStore, model: ModelName) -> ModelVersion | None:
    """The version to go back to: what was promoted before the production version was, or None.

    After a rollback from 3 to 2 this is 1: going back twice goes further back, it does not return to 3.
    """
    current = state.production(model)
    promotions = [row.decision for row in state.decisions(model) if row.decision.kind is DecisionKind.PROMOTE]
    for decision in promotions:
        if decision.to_version == current:
            return decision.from_version
    return None


def reconcile_aliases(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """Make the registry's aliases say what the ledger says; returns a sentence per alias that was wrong."""
    wanted = {PRODUCTION: state.production(model), PREVIOUS: previous_version(state, model)}
    mended = []
    for alias, version in wanted.items():
        found = registry.alias(model, alias)
        if found != version:
            registry.set_alias(model, alias, version)
            mended.append(f"alias '{alias}' of '{model}' was {_name(found)}, is {_name(version)} as the ledger says")
    return tuple(mended)


def alias_differences(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """A sentence per alias that was moved or deleted behind the ledger's back; changes nothing."""
    wanted = {PRODUCTION: state.production(model), PREVIOUS: previous_version(state, model)}
    return tuple(
        f"alias '{alias}' points to {_name(found)}, the ledger says {_name(version)}"
        for alias, version in wanted.items()
        if (found := registry.alias(model, alias)) != version
    )


def last_move(state: StateStore, model: ModelName) -> Decision:
    """The newest decision that moved production. Raises NoProductionModelError."""
    for row in reversed(state.decisions(model)):
        if row.decision.kind in (DecisionKind.PROMOTE, DecisionKind.ROLLBACK):
            return row
    raise NoProductionModelError(
        f"No version of '{model}' is in production yet. Materialise candidate_model to production_alias "
        f"(or run `boucle retrain {model}`) once enough labels are mature."
    )


def _finish(state: StateStore, registry: ModelRegistry, evidence: Evidence, decision: Decision) -> Decision:
    """What follows a promotion in the registry; done again when a promotion that was interrupted is run again."""
    reconcile_aliases(state, registry, evidence.model)
    tags = {"validation_status": "approved", "ledger_head": decision.row_hash}
    registry.set_tags(evidence.model, evidence.version, tags)
    return decision


def _decision(
    evidence: Evidence, kind: DecisionKind, actor: Actor, *, production: ModelVersion | None, policy: str, reason: str
) -> NewDecision:
    return NewDecision(
        kind=kind,
        model=evidence.model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=production,
        to_version=evidence.version if kind is DecisionKind.PROMOTE else production,
        subject_version=evidence.version,
        policy=policy,
        evidence_digest=evidence.digest(),
        bundle_digest=evidence.bundle_digest,
        git_commit=actor.git_commit,
        dagster_run_id=actor.dagster_run_id,
    )


def _rolled_back(state: StateStore, model: ModelName) -> dict[ModelVersion, str]:
    """Versions whose last move was out of production by a rollback, with who did it and why."""
    found: dict[ModelVersion, str] = {}
    for row in state.decisions(model):
        move = row.decision
        if move.kind is DecisionKind.ROLLBACK and move.from_version is not None:
            found[move.from_version] = f"decision {row.decision_id} by {move.actor}: {move.reason}"
        if move.kind in (DecisionKind.PROMOTE, DecisionKind.ROLLBACK) and move.to_version is not None:
            found.pop(move.to_version, None)
    return found


def _bundles(state: StateStore, model: ModelName) -> dict[ModelVersion, Digest]:
    """Bundle of each version that was ever promoted: the ledger alone is enough to roll back."""
    return {
        row.decision.to_version: row.decision.bundle_digest
        for row in state.decisions(model)
        if row.decision.kind is DecisionKind.PROMOTE and row.decision.to_version and row.decision.bundle_digest
    }


def _known(version: ModelVersion | None, model: ModelName) -> ModelVersion:
    if version is None:
        raise NoProductionModelError(f"No version of '{model}' is in production yet; there is nothing to do.")
    return version


def _name(version: ModelVersion | None) -> str:
    return "no version" if version is None else f"version {version}"
