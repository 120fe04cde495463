"""Is a challenger fit for more traffic? Judged at every look against production in the same time.

Each metric is how much worse the challenger is than production, with an interval that holds at every look of the whole
rollout (`boucle.stats.sequential`): passed when the whole interval is within the margin, failed when the whole is
beyond. The error that is allowed is spent once, over all metrics, steps and looks.

Failures of shadows and of answers are two things, and one must not hide the other: a million shadows without a failure
would outweigh all that fail in traffic. So `failed` is judged of shadows as long as nobody is answered, then anew of
answers alone; `slow` of answers alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.rollout import ArmCounts, Scores, StepCounts
from boucle.contracts.verdict import Bound, Gate, GateMode, Verdict
from boucle.stats.sequential import (
    Difference,
    Sample,
    difference,
    information_needed,
    interval,
    mean_of,
    pooled,
    share,
)

SLOW_FACTOR = 2.0
"""Twice production's 99th percentile: what a caller notices, and far enough out for production to be seldom there."""


class Say(StrEnum):
    """What a metric has to say: `required` must pass before the next step; a `veto` stops the rollout, and no more."""

    REQUIRED = "required"
    VETO = "veto"


class Metric(BaseModel):
    """How much worse than production a challenger may be, and from how much on it must be caught."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    margin: float = Field(gt=0, description="this much worse still passes")
    effect: float = Field(gt=0, description="this much worse is surely caught with the requests asked for")
    unit: str
    say: Say = Say.REQUIRED

    @model_validator(mode="after")
    def _margin_below_effect(self) -> "Metric":
        if not self.margin < self.effect:
            raise ValueError(f"the margin ({self.margin:g}) must be below the effect ({self.effect:g})")
        return self

    @property
    def distance(self) -> float:
        """From the margin to the nearer of no effect and the effect."""
        return min(self.margin, self.effect - self.margin)


class CanaryStep(BaseModel):
    """A share of entities, and the least it takes to judge there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(gt=0, lt=100, description="per cent of entities")
    min_requests: int = Field(default=500, ge=1, description="drawn for the challenger in this step")
    min_minutes: float = Field(default=10, ge=0)
    required_pass: bool = Field(default=True, description="else a step where nothing failed is enough")


class ShadowStep(BaseModel):
    """The least it takes to let a challenger answer somebody; until then it answers nobody."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_requests: int = Field(default=500, ge=1, description="shadowed")
    min_minutes: float = Field(default=10, ge=0)


class CanaryPolicy(BaseModel):
    """How a challenger comes into traffic, and what it must show on the way."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shadow: ShadowStep | None = ShadowStep()
    steps: tuple[CanaryStep, ...] = (
        CanaryStep(weight=1, required_pass=False),
        CanaryStep(weight=5),
        CanaryStep(weight=25),
    )
    failed: Metric = Metric(margin=0.01, effect=0.02, unit="ratio of requests")
    # Where the 99th percentile is three times as high, one request in a hundred is slower than twice the old one.
    slow: Metric = Metric(margin=0.005, effect=0.01, unit="ratio of requests")
    slow_factor: float = Field(
        default=SLOW_FACTOR, gt=1, description="times production's 99th percentile in the same step; beyond is slow"
    )
    score_shift: Metric = Metric(margin=0.1, effect=0.2, unit="standard deviations")
    loss: Metric = Metric(margin=0.025, effect=0.05, unit="ratio of production's log loss")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="how often an equal challenger is stopped")
    power: float = Field(default=0.98, gt=0.5, lt=1, description="of each metric, with the requests asked for")
    min_samples: int = Field(default=100, ge=30, description="a side, before a standard error says anything")
    give_up_hours: float = Field(default=72, gt=0, description="in one step without an answer")

    @model_validator(mode="after")
    def _rises(self) -> "CanaryPolicy":
        weights = [step.weight for step in self.steps]
        if not weights or weights != sorted(set(weights)):
            raise ValueError(f"the weights of the steps must rise, not {weights}")
        return self

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """All of them, by name."""
        return {"failed": self.failed, "slow": self.slow, "score_shift": self.score_shift, "loss": self.loss}

    @property
    def alpha_each(self) -> float:
        """What one metric may spend: it looks as often as it likes, over all steps (Bonferroni over metrics).

        `failed` spends it twice, of shadows and of answers.
        """
        return self.alpha / (len(self.metrics) + 1)


def canary_gates(policy: CanaryPolicy, steps: Sequence[StepCounts]) -> tuple[Gate, ...]:
    """Every metric over the steps so far; each step against production of its own time.

    While there are only shadows `slow` is switched off: nothing is known of how long a caller would wait.
    """
    return tuple(_gate(policy, name, metric, steps) for name, metric in policy.metrics.items())


def canary_verdict(policy: CanaryPolicy, gates: Sequence[Gate], *, required_pass: bool = True) -> Verdict:
    """One failed metric fails; without one, all that are required must have passed, where that is asked."""
    by_name = {gate.name: gate.verdict for gate in gates}
    if Verdict.FAILED in by_name.values():
        return Verdict.FAILED
    off = {gate.name for gate in gates if gate.mode is GateMode.OFF}
    asked = [name for name, metric in policy.metrics.items() if metric.say is Say.REQUIRED and name not in off]
    required = [by_name.get(name) for name in asked]
    if required_pass and any(verdict is not Verdict.PASSED for verdict in required):
        return Verdict.INCONCLUSIVE
    return Verdict.PASSED


def requests_needed(
    policy: CanaryPolicy, *, weight: float, failed: float, slow: float, loss_deviation: float
) -> Mapping[str, int]:
    """How many requests the challenger (for `loss`: pairs with their outcome) each metric needs at one step.

    Args:
        policy: With margins and effects.
        weight: Of the challenger, per cent.
        failed: Share of production's requests that fail.
        slow: Share of production's requests that are slow.
        loss_deviation: Standard deviation of the paired difference of losses over production's mean loss.
    """
    odds = weight / (100 - weight)

    def rate(base: float, metric: Metric) -> float:
        worst = min(0.5, base + metric.effect)
        return worst * (1 - worst) + odds * base * (1 - base)

    variances = {
        "failed": rate(failed, policy.failed),
        "slow": rate(slow, policy.slow),
        "score_shift": 1 + odds,
        "loss": loss_deviation**2,
    }
    return {name: math.ceil(_information(policy, metric) * variances[name]) for name, metric in policy.metrics.items()}


def _information(policy: CanaryPolicy, metric: Metric) -> float:
    return information_needed(metric.distance, alpha=policy.alpha_each, power=policy.power)


def _gate(policy: CanaryPolicy, name: str, metric: Metric, steps: Sequence[StepCounts]) -> Gate:
    judged = _judged(name, steps)
    measures = [_MEASURES[name](policy, step) for step in judged]
    found = pooled([part for part in measures if part is not None])
    samples = sum(_SAMPLES[name](step) for step in judged)
    gate = Gate(
        name=name,
        verdict=Verdict.INCONCLUSIVE,
        measured=None,
        bound=Bound.AT_MOST,
        limit=metric.margin,
        unit=metric.unit,
        sample_size=samples,
    )
    if steps and not judged:
        detail = "Latency is compared once the challenger answers somebody."
        return gate.model_copy(update={"mode": GateMode.OFF, "detail": detail})
    if found is None:
        return gate.model_copy(update={"detail": f"Fewer than {policy.min_samples} a side: nothing is known yet."})
    low, high = interval(found, alpha=policy.alpha_each, planned_information=_information(policy, metric))
    worst, best = (low, high) if name != "score_shift" else _apart(low, high)
    verdict = Verdict.INCONCLUSIVE
    if worst > metric.margin:
        verdict = Verdict.FAILED
    elif best <= metric.margin:
        verdict = Verdict.PASSED
    return gate.model_copy(
        update={"verdict": verdict, "measured": found.estimate, "low": low, "high": high},
    )


def _judged(name: str, steps: Sequence[StepCounts]) -> Sequence[StepCounts]:
    """The steps that a metric is about."""
    if name not in {"failed", "slow"}:
        return steps
    answered = [step for step in steps if not step.in_shadow]
    return answered if answered or name == "slow" else steps


def _apart(low: float, high: float) -> tuple[float, float]:
    """Of an interval, how far it lies from zero at least and at most: a shift counts in both directions."""
    least = max(low, -high, 0.0)
    return least, max(abs(low), abs(high))


def _share_of(of: Callable[[ArmCounts], int | None]) -> Callable[[CanaryPolicy, StepCounts], Difference | None]:
    def measure(policy: CanaryPolicy, step: StepCounts) -> Difference | None:
        challenger, production = step.challenger, step.production
        worse, usual = of(challenger), of(production)
        if worse is None or usual is None or min(challenger.requests, production.requests) < policy.min_samples:
            return None
        return difference(share(worse, challenger.requests), share(usual, production.requests))

    return measure


def _score_shift(policy: CanaryPolicy, step: StepCounts) -> Difference | None:
    """In standard deviations of production's scores."""
    challenger, production = step.challenger.scores, step.production.scores
    if min(challenger.n, production.n) < policy.min_samples or production.variance <= 0:
        return None
    found = difference(_sample(challenger), _sample(production))
    deviation = math.sqrt(production.variance)
    return None if found is None else _scaled(found, 1 / deviation)


def _loss(policy: CanaryPolicy, step: StepCounts) -> Difference | None:
    """Over production's loss on the same requests."""
    if step.loss.n < policy.min_samples or not step.production_loss:
        return None
    found = mean_of(_sample(step.loss))
    return None if found is None else _scaled(found, 1 / step.production_loss)


def _sample(scores: Scores) -> Sample:
    return Sample(n=scores.n, mean=scores.mean, variance=scores.variance)


def _scaled(found: Difference, factor: float) -> Difference:
    return replace(found, estimate=found.estimate * factor, standard_error=found.standard_error * factor)


_MEASURES: Mapping[str, Callable[[CanaryPolicy, StepCounts], Difference | None]] = {
    "failed": _share_of(lambda arm: arm.failed),
    "slow": _share_of(lambda arm: arm.slow),
    "score_shift": _score_shift,
    "loss": _loss,
}
_SAMPLES: Mapping[str, Callable[[StepCounts], int]] = {
    "failed": lambda step: step.challenger.requests,
    "slow": lambda step: step.challenger.requests,
    "score_shift": lambda step: step.challenger.scores.n,
    "loss": lambda step: step.loss.n,
}
