"""A person may pin production: then nothing automatic moves it, neither up nor back."""

from collections.abc import Sequence

from boucle.contracts.decision import MOVES, Decision, DecisionKind


def pin_in_force(decisions: Sequence[Decision]) -> Decision | None:
    """The pin that holds production; None where there is none, it was taken away, or a person moved production since.

    Args:
        decisions: All about one model, oldest first.
    """
    for row in reversed(decisions):
        if row.decision.kind is DecisionKind.PIN:
            return row
        if row.decision.kind in MOVES or row.decision.kind is DecisionKind.UNPIN:
            return None
    return None


def pinned_by(pin: Decision) -> str:
    """Who pinned what, and why, in one clause."""
    said = pin.decision
    return (
        f"version {said.to_version} of '{said.model}' is pinned by {said.actor} (decision {pin.decision_id}: "
        f"{said.reason.rstrip('.')}): `boucle unpin {said.model}` lets it move"
    )
