"""What production is, was and could go back to, as ledger and plan say."""

from boucle.contracts.decision import MOVES, Decision, DecisionKind
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.traffic_plan import NewPlan, Strategy
from boucle.errors import NoProductionModelError
from boucle.policy.rollout import direct_arms
from boucle.ports import StateStore


def last_move(state: StateStore, model: ModelName) -> Decision:
    """The newest decision that moved production. Raises NoProductionModelError."""
    for row in reversed(state.decisions(model)):
        if row.decision.kind in MOVES:
            return row
    raise NoProductionModelError(
        f"No version of '{model}' is in production yet. Materialise candidate_model to production_alias "
        f"(or run `boucle retrain {model}`) once enough labels are mature."
    )


def known_version(version: ModelVersion | None, model: ModelName) -> ModelVersion:
    """The version. Raises NoProductionModelError when there is none."""
    if version is None:
        raise NoProductionModelError(f"No version of '{model}' is in production yet; there is nothing to do.")
    return version


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


def rolled_back(state: StateStore, model: ModelName) -> dict[ModelVersion, str]:
    """Versions whose last move was out of production by a rollback, with who did it and why."""
    found: dict[ModelVersion, str] = {}
    for row in state.decisions(model):
        move = row.decision
        if move.kind is DecisionKind.ROLLBACK and move.from_version is not None:
            found[move.from_version] = f"decision {row.decision_id} by {move.actor}: {move.reason}"
        if move.kind in MOVES and move.to_version is not None:
            found.pop(move.to_version, None)
    return found


def _promoted_before(state: StateStore, model: ModelName, version: ModelVersion | None) -> ModelVersion | None:
    for row in state.decisions(model):
        if row.decision.kind is DecisionKind.PROMOTE and row.decision.to_version == version:
            return row.decision.from_version
    return None
