"""Pin and unpin production: a person's word that nothing automatic goes against."""

from boucle.contracts.decision import Decision, DecisionKind, NewDecision
from boucle.contracts.ids import ModelName
from boucle.errors import ApprovalError, ConflictError
from boucle.operations.actor import Actor
from boucle.operations.production import known_version
from boucle.policy.approval import is_person
from boucle.policy.pins import pin_in_force
from boucle.ports import StateStore


def pin(state: StateStore, model: ModelName, *, reason: str, actor: Actor) -> Decision:
    """Keep the version that is in production there; saying it twice is saying it once.

    A rollback by a person ends it: what they put in place is not pinned.

    Raises:
        ApprovalError: The actor is no person.
        NoProductionModelError: Nothing is in production.
        ConflictError: Production moved in between.
    """
    return pin_in_force(state.decisions(model)) or _record(state, model, DecisionKind.PIN, reason, actor)


def unpin(state: StateStore, model: ModelName, *, reason: str, actor: Actor) -> Decision:
    """Let production move again.

    Raises:
        ApprovalError: The actor is no person.
        ConflictError: Nothing is pinned, or production moved in between.
    """
    if pin_in_force(state.decisions(model)) is None:
        raise ConflictError(f"No version of '{model}' is pinned. Nothing was changed.")
    return _record(state, model, DecisionKind.UNPIN, reason, actor)


def _record(state: StateStore, model: ModelName, kind: DecisionKind, reason: str, actor: Actor) -> Decision:
    if not is_person(actor.name):
        raise ApprovalError(f"'{actor.name}' is no person; pins are people's. Nothing was recorded.")
    production = known_version(state.production(model), model)
    new = NewDecision(
        kind=kind,
        model=model,
        at=actor.at,
        actor=actor.name,
        reason=reason,
        from_version=production,
        to_version=production,
        subject_version=production,
        git_commit=actor.git_commit,
        dagster_run_id=actor.dagster_run_id,
    )
    return state.record(new, expected_production=production)
