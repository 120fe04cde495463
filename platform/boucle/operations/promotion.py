"""Promote, reject and roll back: the same verbs for assets, sensors, CLI and HTTP, over the ports."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.ids import ModelName, ModelVersion, version_text
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.contracts.verdict import Verdict, overall
from boucle.errors import ConflictError, NoProductionModelError, PinnedError, PromotionRefusedError, RegistryError
from boucle.operations import approval
from boucle.operations.actor import Actor
from boucle.operations.aliases import alias_differences, reconcile_aliases
from boucle.operations.production import (
    direct_plan,
    known_version,
    last_move,
    previous_version,
    promoted_bundles,
    rolled_back,
    rollout_under_way,
)
from boucle.policy.approval import Consent, PromotionMode, Standing, is_person, standing
from boucle.policy.limits import PromotionPolicy
from boucle.policy.pins import pin_in_force, pinned_by
from boucle.policy.promotion import PromotionDecision, PromotionOutcome, decide
from boucle.policy.risk import Asked, RiskFacts
from boucle.ports import ModelRegistry, StateStore

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
        rolled_back=rolled_back(state, evidence.model),
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
