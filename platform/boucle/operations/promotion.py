"""Promote, reject and roll back: the same verbs for assets, sensors, CLI and HTTP, over the ports."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from boucle.contracts.decision import MOVES, Decision, DecisionKind, NewDecision
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.ids import Digest, ModelName, ModelVersion, version_text
from boucle.contracts.traffic_plan import NewPlan, Strategy, TrafficPlan
from boucle.contracts.verdict import Verdict, overall
from boucle.errors import ConflictError, NoProductionModelError, PinnedError, PromotionRefusedError, RegistryError
from boucle.operations import approval
from boucle.operations.actor import Actor
from boucle.policy.approval import Consent, PromotionMode, Standing, is_person, standing
from boucle.policy.limits import PromotionPolicy
from boucle.policy.pins import pin_in_force, pinned_by
from boucle.policy.promotion import PromotionDecision, PromotionOutcome, decide
from boucle.policy.risk import Asked, RiskFacts
from boucle.policy.rollout import direct_arms
from boucle.ports import ModelRegistry, StateStore

PRODUCTION = "production"
PREVIOUS = "previous"
CHALLENGER = "challenger"
NOTHING_MEASURED = RiskFacts()


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """The decision that made a version production, and a sentence per alias that somebody else had moved before."""

    decision: Decision
    repaired: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Every gate passed and nothing moved: what is waited for, and since when, if somebody was asked."""

    reason: str
    request: Decision | None


def promote(
    state: StateStore,
    registry: ModelRegistry,
    *,
    evidence: Evidence,
    policy: PromotionPolicy,
    actor: Actor,
    risk: RiskFacts = NOTHING_MEASURED,
    doubts: Sequence[str] = (),
) -> Promotion | Waiting:
    """Make the evidence's version production in the ledger, then in the registry; doing it twice is doing it once.

    Where the policy wants a person's approval that nobody asked for yet, this asks. A refusal is on record before it is
    raised. Aliases that were moved behind the ledger are put right, and named in the reason of the decision.

    `risk` is what was measured of this promotion, for a policy that goes by it.

    Raises:
        PromotionRefusedError: A gate did not pass, there are doubts about the evidence, production moved since it was
            taken, or the version was rolled back.
        RegistryError: The registry cannot be read, and nothing was decided; or it did not follow the decision, and
            promoting again finishes.
    """
    # Before judging, as the registry is slow to answer: what people say meanwhile counts.
    moved = alias_differences(state, registry, evidence.model)
    known = state.decisions(evidence.model)
    current = state.production(evidence.model)
    asked = policy.asked(risk)
    judged, people = judge(state, evidence, policy, at=actor.at, risk=risk, doubts=doubts)
    if judged.outcome is PromotionOutcome.REJECT:
        reject(state, registry, subject=evidence, reason=judged.reason, policy=asked.name, actor=actor)
        raise _refused(evidence, judged.reason, current)
    if judged.outcome is PromotionOutcome.WAIT:
        return _wait(state, registry, evidence, asked, people, judged.reason, actor)
    if judged.outcome is PromotionOutcome.KEEP:
        decision = last_move(state, evidence.model)
    else:
        reason = " ".join([judged.reason, *(f"Put right: {sentence}." for sentence in moved)])
        new = _decision(evidence, DecisionKind.PROMOTE, actor, production=current, policy=asked.name, reason=reason)
        try:
            decision = state.record(
                new,
                expected_production=evidence.production_version,
                judged_up_to=known[-1].decision_id if known else 0,
            )
        except ConflictError:  # somebody moved production or spoke since: judge by that too
            return promote(state, registry, evidence=evidence, policy=policy, actor=actor, risk=risk, doubts=doubts)
    reconcile_aliases(state, registry, evidence.model)
    tags = {"validation_status": "approved", "ledger_head": decision.row_hash}
    registry.set_tags(evidence.model, evidence.version, tags)
    return Promotion(decision=decision, repaired=moved)


def reject(
    state: StateStore,
    registry: ModelRegistry,
    *,
    subject: Evidence | Candidate,
    reason: str,
    policy: str,
    actor: Actor,
) -> Decision | None:
    """Record why a version does not become production; None for the one that is production, which stays it.

    The same reason against the same production, twice in a row, is recorded once. The version is tagged as rejected
    only when its own gates did not pass: another refusal says nothing about the model.
    """
    current = state.production(subject.model)
    if subject.version == current:
        return None
    new = _decision(subject, DecisionKind.REJECT, actor, production=current, policy=policy, reason=reason)
    decision = _recorded(state, new) or state.record(new, expected_production=current)
    status = {} if overall(subject.gates) is Verdict.PASSED else {"validation_status": "rejected"}
    with suppress(RegistryError):  # the ledger has it: a tag that is missing hides nothing
        registry.set_tags(subject.model, subject.version, {**status, "ledger_head": decision.row_hash})
    return decision


def judge(
    state: StateStore,
    evidence: Evidence,
    policy: PromotionPolicy,
    *,
    at: datetime,
    risk: RiskFacts = NOTHING_MEASURED,
    doubts: Sequence[str] = (),
) -> tuple[PromotionDecision, Standing]:
    """What the policy says of the evidence as things stand, and what people say."""
    asked = policy.asked(risk)
    people = standing(
        asked.mode,
        asked.approval,
        state.decisions(evidence.model),
        version=evidence.version,
        evidence_digest=evidence.digest(),
        at=at,
    )
    production = state.production(evidence.model)
    if production != evidence.version:
        pin = pin_in_force(state.decisions(evidence.model))
        hindered = (rollout_under_way(state, evidence.model), pinned_by(pin) if pin else "")
        doubts = (*doubts, *(sentence for sentence in hindered if sentence))
    decision = decide(
        policy,
        evidence,
        production=production,
        rolled_back=_rolled_back(state, evidence.model),
        people=people,
        asked=asked,
        doubts=doubts,
    )
    return decision, people


def roll_back(
    state: StateStore,
    model: ModelName,
    *,
    reason: str,
    actor: Actor,
    to: ModelVersion | None = None,
    leaving: ModelVersion | None = None,
) -> tuple[Decision, TrafficPlan]:
    """Put an earlier version back, in ledger and traffic at once; `to` defaults to the one promoted before.

    The registry is not on this path: `reconcile_aliases` follows. Two who see one incident undo it once: the rollback
    that was made is the answer when it left `leaving` or went `to`, and without either a second one is refused. Who is
    no person moves nothing that a person pinned.

    Args:
        state: Ledger and plans.
        model: Of which.
        reason: Goes on record.
        actor: Who wants it.
        to: A version that was promoted before.
        leaving: The version that answers wrongly; when another one is production, nothing moves.

    Raises:
        NoProductionModelError: Nothing is in production, or there is no earlier version to go back to.
        PinnedError: A person keeps production where it is, and the actor is none.
        ConflictError: Production is not `leaving`, was rolled back just before, or moved in between.
    """
    rows = state.decisions(model)
    current = known_version(state.production(model), model)
    move, plan = last_move(state, model), state.plan(model)
    back_already = move.decision.kind is DecisionKind.ROLLBACK
    if back_already and plan and _said(to, current) and _said(leaving, move.decision.from_version) and (to or leaving):
        return move, plan
    if leaving not in {None, current}:
        raise ConflictError(
            f"Version {leaving} of '{model}' is not in production, version {current} is. Nothing was changed."
        )
    if back_already and to is None and leaving is None:
        undone = move.decision
        raise ConflictError(
            f"Version {undone.from_version} of '{model}' was rolled back already, at {undone.at:%Y-%m-%d %H:%M} UTC by "
            f"{undone.actor} (decision {move.decision_id}: {undone.reason}); version {current} is in production. If "
            f"that one is wrong too, say so: `--from {current}`. Nothing was changed."
        )
    pin = None if is_person(actor.name) else pin_in_force(rows)
    if pin is not None:
        raise PinnedError(f"Nothing was rolled back: {pinned_by(pin)}. Nothing was changed.")
    bundles = promoted_bundles(state, model)
    target = to if to is not None else previous_version(state, model)
    if target is None or target == current or target not in bundles:
        known = ", ".join(str(version) for version in sorted(bundles) if version != current) or "none"
        raise NoProductionModelError(
            f"'{model}' cannot be rolled back from version {current} to {version_text(target)}: versions promoted "
            f"earlier: {known}. Nothing was changed."
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
    back = direct_plan(state, model, production=target, came_from=current)
    # A pin may have come since the look above; what a person decides is not looked over.
    judged_up_to = None if is_person(actor.name) else rows[-1].decision_id
    return state.record_with_plan(new, expected_production=current, plan=back, judged_up_to=judged_up_to)


def _said(wanted: ModelVersion | None, found: ModelVersion | None) -> bool:
    return wanted in {None, found}


def previous_version(state: StateStore, model: ModelName) -> ModelVersion | None:
    """The version to go back to: what was promoted before the production version was, or None.

    After a rollback from 3 to 2 this is 1: going back twice goes further back, it does not return to 3.
    """
    return _promoted_before(state, model, state.production(model))


def promoted_bundles(state: StateStore, model: ModelName) -> dict[ModelVersion, Digest]:
    """Bundle of each version that was ever promoted: the ledger alone is enough to roll back and to compare with.

    Other rows do not count: one that refuses a candidate names production and the bundle of the candidate.
    """
    return {
        row.decision.to_version: row.decision.bundle_digest
        for row in state.decisions(model)
        if row.decision.kind is DecisionKind.PROMOTE and row.decision.to_version and row.decision.bundle_digest
    }


def reconcile_aliases(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """Make the registry's aliases say what the ledger says; returns a sentence per alias that was wrong."""
    wanted = _wanted_aliases(state, model)
    mended = []
    for alias, version in wanted.items():
        found = registry.alias(model, alias)
        if found != version:
            registry.set_alias(model, alias, version)
            mended.append(
                f"alias '{alias}' of '{model}' was {version_text(found)}, is {version_text(version)} as the ledger says"
            )
    return tuple(mended)


def alias_differences(state: StateStore, registry: ModelRegistry, model: ModelName) -> tuple[str, ...]:
    """A sentence per alias that was moved or deleted behind the ledger's back; changes nothing."""
    wanted = _wanted_aliases(state, model)
    return tuple(
        f"alias '{alias}' points to {version_text(found)}, the ledger says {version_text(version)}"
        for alias, version in wanted.items()
        if (found := registry.alias(model, alias)) != version
    )


def _wanted_aliases(state: StateStore, model: ModelName) -> dict[str, ModelVersion | None]:
    plan = state.plan(model)
    rollout = plan.rollout if plan else None
    return {
        PRODUCTION: state.production(model),
        PREVIOUS: previous_version(state, model),
        CHALLENGER: rollout.challenger if rollout and rollout.is_open else None,
    }


def last_move(state: StateStore, model: ModelName) -> Decision:
    """The newest decision that moved production. Raises NoProductionModelError."""
    for row in reversed(state.decisions(model)):
        if row.decision.kind in MOVES:
            return row
    raise NoProductionModelError(
        f"No version of '{model}' is in production yet. Materialise candidate_model to production_alias "
        f"(or run `boucle retrain {model}`) once enough labels are mature."
    )


def _wait(
    state: StateStore,
    registry: ModelRegistry,
    evidence: Evidence,
    asked: Asked,
    people: Standing,
    reason: str,
    actor: Actor,
) -> Waiting:
    request = people.request
    if people.consent is Consent.MISSING and asked.mode is PromotionMode.SEMI_AUTOMATIC:
        request = approval.request(state, evidence=evidence, asked=asked, actor=actor, reason=reason)
    with suppress(RegistryError):  # the ledger has it
        registry.set_tags(evidence.model, evidence.version, {"validation_status": "pending"})
    return Waiting(reason=reason, request=request)


def _refused(evidence: Evidence, reason: str, production: ModelVersion | None) -> PromotionRefusedError:
    return PromotionRefusedError(
        f"Version {evidence.version} of '{evidence.model}' was not promoted: {reason} "
        f"Production stays {version_text(production)}."
    )


def _recorded(state: StateStore, new: NewDecision) -> Decision | None:
    """The model's newest rejection, when it says the same of the same version."""
    rejections = [row for row in state.decisions(new.model) if row.decision.kind is new.kind]
    for row in rejections[-1:]:
        known = row.decision
        if (known.kind, known.subject_version, known.bundle_digest, known.from_version, known.reason) == (
            new.kind,
            new.subject_version,
            new.bundle_digest,
            new.from_version,
            new.reason,
        ):
            return row
    return None


def direct_plan(
    state: StateStore, model: ModelName, *, production: ModelVersion, came_from: ModelVersion | None
) -> NewPlan:
    """All requests to production; the version a rollback would go to stands by, else the one it came from.

    Raises:
        NoProductionModelError: The ledger knows no bundle of it.
    """
    standby = _promoted_before(state, model, production) or came_from
    arms = direct_arms(promoted_bundles(state, model), production=production, previous=standby)
    return NewPlan(strategy=Strategy.DIRECT, arms=arms)


def rollout_under_way(state: StateStore, model: ModelName) -> str:
    """A sentence about the rollout that is open; empty when there is none."""
    plan = state.plan(model)
    if plan is None or plan.rollout is None or not plan.rollout.is_open:
        return ""
    rollout = plan.rollout
    return (
        f"version {rollout.challenger} of '{model}' is on its way into traffic ({plan.strategy}, {rollout.phase}, "
        f"{rollout.weight:g} per cent): wait for its end, or `boucle abort {model}`"
    )


def _promoted_before(state: StateStore, model: ModelName, version: ModelVersion | None) -> ModelVersion | None:
    for row in state.decisions(model):
        if row.decision.kind is DecisionKind.PROMOTE and row.decision.to_version == version:
            return row.decision.from_version
    return None


def _decision(
    subject: Evidence | Candidate,
    kind: DecisionKind,
    actor: Actor,
    *,
    production: ModelVersion | None,
    policy: str,
    reason: str,
) -> NewDecision:
    return NewDecision(
        kind=kind,
        model=subject.model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=production,
        to_version=subject.version if kind is DecisionKind.PROMOTE else production,
        subject_version=subject.version,
        policy=policy,
        evidence_digest=subject.digest(),
        bundle_digest=subject.bundle_digest,
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
        if move.kind in MOVES and move.to_version is not None:
            found.pop(move.to_version, None)
    return found


def known_version(version: ModelVersion | None, model: ModelName) -> ModelVersion:
    """The version. Raises NoProductionModelError when there is none."""
    if version is None:
        raise NoProductionModelError(f"No version of '{model}' is in production yet; there is nothing to do.")
    return version
