"""A version's way into traffic: the arms of its plan, and the next state of its rollout."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.traffic_plan import Arm, Role
from boucle.contracts.verdict import Gate, Verdict
from boucle.errors import NoProductionModelError
from boucle.policy.canary import CanaryPolicy, canary_verdict

FINAL = frozenset({Phase.COMPLETE, Phase.ABORTED})


def direct_arms(
    bundles: Mapping[ModelVersion, Digest], *, production: ModelVersion, previous: ModelVersion | None
) -> tuple[Arm, ...]:
    """Production answers everybody; the previous version stands by with weight 0, kept warm for a rollback.

    Raises:
        NoProductionModelError: There is no bundle of the production version.
    """
    if production not in bundles:
        raise NoProductionModelError(
            f"Version {production} has no release bundle, so it cannot answer; nothing changed."
        )
    arms = (Arm(version=production, bundle_digest=bundles[production], weight=100, role=Role.PRODUCTION),)
    if previous is None or previous == production or previous not in bundles:
        return arms
    return (*arms, Arm(version=previous, bundle_digest=bundles[previous], weight=0, role=Role.STANDBY))


def first_rollout(
    policy: CanaryPolicy, model: ModelName, *, challenger: ModelVersion, production: ModelVersion, at: datetime
) -> Rollout:
    """Where a rollout begins: in shadow if the policy asks for it, else at the first canary step."""
    return Rollout(
        model=model,
        challenger=challenger,
        production=production,
        phase=Phase.SHADOW if policy.shadow else Phase.CANARY,
        weight=0 if policy.shadow else policy.steps[0].weight,
        began_at=at,
        phase_began_at=at,
    )


def next_rollout(
    policy: CanaryPolicy, current: Rollout, gates: Sequence[Gate], *, requests: int, at: datetime
) -> Rollout:
    """The state that follows; the same state means hold.

    A failed metric aborts at once. Upwards goes one step at a time, after the least time and requests of the step. What
    stays without an answer is given up: no data is never a pass.

    Args:
        policy: Of the model.
        current: The state.
        gates: Every metric of the rollout so far.
        requests: What the challenger answered, or shadowed, in this step.
        at: Now.
    """
    if current.phase in FINAL:
        return current
    # A policy that has fewer steps by now stops nobody where it is.
    step = policy.steps[min(current.step, len(policy.steps) - 1)] if current.phase is Phase.CANARY else None
    verdict = canary_verdict(policy, gates, required_pass=step is not None and step.required_pass)
    if verdict is Verdict.FAILED:
        return aborted(current, at=at)
    least = step or policy.shadow
    minutes = (at - current.phase_began_at).total_seconds() / 60
    is_early = least is not None and (requests < least.min_requests or minutes < least.min_minutes)
    if verdict is Verdict.PASSED and not is_early:
        return _up(policy, current, at=at)
    return aborted(current, at=at) if minutes >= policy.give_up_hours * 60 else current


def aborted(current: Rollout, *, at: datetime) -> Rollout:
    """The challenger answers nobody any more; from every state but the final ones."""
    if current.phase in FINAL:
        return current
    return current.model_copy(update={"phase": Phase.ABORTED, "weight": 0.0, "phase_began_at": at})


def _up(policy: CanaryPolicy, current: Rollout, *, at: datetime) -> Rollout:
    step = current.step + 1 if current.phase is Phase.CANARY else 0
    if step >= len(policy.steps):
        return current.model_copy(update={"phase": Phase.COMPLETE, "weight": 100.0, "phase_began_at": at})
    weight = policy.steps[step].weight
    return current.model_copy(update={"phase": Phase.CANARY, "step": step, "weight": weight, "phase_began_at": at})
