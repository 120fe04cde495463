"""How versions come into traffic, and how one that is not promoted is tried there: the policy, plans and outcomes."""

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.traffic_plan import Arm, NewPlan, Role, Strategy
from boucle.contracts.trials import Outcome, TrialResult
from boucle.contracts.verdict import Gate, Verdict
from boucle.errors import ConfigurationError
from boucle.policy.ab import AbPolicy, Better
from boucle.policy.bandit import BanditPolicy
from boucle.policy.canary import CanaryPolicy, Say, canary_verdict
from boucle.policy.interleaving import InterleavingPolicy
from boucle.policy.rollout import direct_arms

TRIALS = (Strategy.SHADOW, Strategy.AB, Strategy.BANDIT, Strategy.INTERLEAVING)
"""What tries a version that is not promoted; a win asks for its promotion."""


class TrafficPolicy(BaseModel):
    """How a promoted version comes into traffic, and what each kind of trial asks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    after_promotion: Literal[Strategy.DIRECT, Strategy.CANARY] = Field(
        default=Strategy.DIRECT, description="direct: everybody at once; canary: step by step, judged at each"
    )
    canary: CanaryPolicy = CanaryPolicy()
    shadow_share: float = Field(
        default=100, ge=0, le=100, description="per cent of entities that both versions score during a canary"
    )
    ab: AbPolicy = AbPolicy(metric="loss", unit="nats", better=Better.LOWER, min_effect=0.005)
    bandit: BanditPolicy = BanditPolicy()
    min_weight_move: float = Field(
        default=2, gt=0, description="points; a bandit's weights that would move less stay as they are"
    )
    interleaving: InterleavingPolicy = InterleavingPolicy()

    @model_validator(mode="after")
    def _shadows_where_it_waits_for_them(self) -> Self:
        waits = self.canary.shadow is not None or self.canary.loss.say is Say.REQUIRED
        if not self.shadow_share and waits:
            raise ValueError(
                "with shadow_share: 0 nobody is shadowed, and a canary would wait in vain: say `canary.shadow: null` "
                "and `canary.loss.say: veto` as well"
            )
        return self


def new_trial(
    model: ModelName, *, production: ModelVersion, challenger: ModelVersion, weight: float, at: datetime
) -> Rollout:
    """The rollout of a version that is tried without being promoted."""
    return Rollout(
        model=model,
        challenger=challenger,
        production=production,
        phase=Phase.TRIAL if weight else Phase.SHADOW,
        weight=weight,
        began_at=at,
        phase_began_at=at,
    )


def first_weight(policy: TrafficPolicy, strategy: Strategy) -> float:
    """The challenger's share of entities at the beginning of a trial, in per cent.

    Raises:
        ConfigurationError: The strategy is none that tries a version.
    """
    if strategy not in TRIALS:
        raise ConfigurationError(
            f"'{strategy}' tries no version; {', '.join(TRIALS)} do. A canary follows a promotion: set "
            "traffic.after_promotion in defs.yaml."
        )
    return {Strategy.AB: policy.ab.weight, Strategy.BANDIT: 50.0}.get(strategy, 0.0)


def rollout_plan(
    strategy: Strategy, rollout: Rollout, bundles: Mapping[ModelVersion, Digest], *, shadow_share: float
) -> NewPlan:
    """The plan of an open rollout: production and challenger with their weights; of a complete one, the challenger's.

    Args:
        strategy: How it is tried.
        rollout: Where it is.
        bundles: Of both versions.
        shadow_share: Per cent of entities that both versions score.
    """
    production, challenger = rollout.production, rollout.challenger
    if rollout.phase is Phase.COMPLETE:
        arms = direct_arms(bundles, production=challenger, previous=production)
        return NewPlan(strategy=Strategy.DIRECT, arms=arms, rollout=rollout)
    arms = (
        Arm(
            version=production,
            bundle_digest=bundles[production],
            weight=100 - rollout.weight,
            role=Role.PRODUCTION,
        ),
        Arm(version=challenger, bundle_digest=bundles[challenger], weight=rollout.weight, role=Role.CHALLENGER),
    )
    return NewPlan(strategy=strategy, arms=arms, rollout=rollout, shadow_share=shadow_share)


def shadow_outcome(policy: CanaryPolicy, gates: tuple[Gate, ...], *, requests: int, minutes: float) -> TrialResult:
    """Whether a version that only shadows has shown what a canary would ask for.

    Args:
        policy: With margins, and the least of its shadow step.
        gates: Of `canary_gates`.
        requests: Shadowed so far.
        minutes: Since it began.
    """
    figures = "; ".join(gate.figures() for gate in gates)
    least = policy.shadow
    is_early = least is not None and (requests < least.min_requests or minutes < least.min_minutes)
    verdict = canary_verdict(policy, gates)
    if verdict is Verdict.FAILED:
        return TrialResult(outcome=Outcome.LOST, reason=f"The challenger failed in shadow; {figures}.", gates=gates)
    if verdict is Verdict.PASSED and not is_early:
        return TrialResult(outcome=Outcome.WON, reason=f"The challenger passed in shadow; {figures}.", gates=gates)
    if minutes >= policy.give_up_hours * 60:
        reason = f"Not decided in {policy.give_up_hours:g} hours, so production stays; {figures}."
        return TrialResult(outcome=Outcome.NO_DIFFERENCE, reason=reason, gates=gates)
    return TrialResult(outcome=Outcome.CONTINUE, reason=f"Not decided; {figures}.", gates=gates)


def weights_moved(policy: TrafficPolicy, before: float, after: float) -> bool:
    """Whether a bandit's weight, in per cent, has moved enough for a new plan."""
    return abs(after - before) >= policy.min_weight_move
