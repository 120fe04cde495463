"""Is a challenger better than production? One metric, declared before anybody looks, on two sides of entities.

The gain is how much better the challenger's mean is, with an interval that holds at every look
(`boucle.stats.sequential`). It wins when the whole interval is above 0, and loses when the whole is below; when the
whole is below the minimum effect, there is no difference worth a change. None of this counts unless both sides have the
share of entities that the plan gives them: a sample ratio mismatch means that entities were lost on the way, seldom by
chance (Fabijan et al. 2019, Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD).
"""

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.rollout import Scores
from boucle.contracts.trials import AbCounts, Outcome, TrialResult
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.stats.counts import always_valid_p
from boucle.stats.sequential import Difference, Sample, difference, information_needed, interval

SPLIT_CONCENTRATION = 100
"""Wrong splits are looked for some 5 points around the right one (`boucle.stats.counts`)."""


class Better(StrEnum):
    """Which direction of a metric is good."""

    LOWER = "lower"
    HIGHER = "higher"


class TrialLength(BaseModel):
    """How long a trial runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    min_days: float = Field(default=1, ge=0, description="before a trial is won: each hour of a day has its say")
    max_days: float = Field(default=28, gt=0, description="after which production stays")

    @model_validator(mode="after")
    def _min_below_max(self) -> "TrialLength":
        if not self.min_days < self.max_days:
            raise ValueError(f"min_days ({self.min_days:g}) must be below max_days ({self.max_days:g})")
        return self


class AbPolicy(TrialLength):
    """The metric that decides, and from how much on a gain must be found. Declared when the test begins."""

    metric: Literal["loss", "outcome", "reward"] = Field(description="one value for each entity")
    unit: str
    better: Better
    min_effect: float = Field(gt=0, description="the smallest gain worth a change, in the unit of the metric")
    weight: float = Field(default=50, gt=0, lt=100, description="of the challenger, per cent of entities")
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="how often equal sides are told apart")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="of the entities asked for, at the minimum effect")
    split_alpha: float = Field(default=0.001, gt=0, lt=0.5, description="how often a right split is called wrong")
    min_samples: int = Field(default=100, ge=30, description="a side, before a standard error says anything")

    @property
    def planned_information(self) -> float:
        """Where the interval is to be narrowest: with as much one decides."""
        return information_needed(self.min_effect, alpha=self.alpha, power=self.power)


def samples_needed(policy: AbPolicy, *, deviation: float, challenger_deviation: float | None = None) -> int:
    """Entities with a known outcome that both sides need together.

    With so many, a challenger better by `min_effect` has won, and an equal one has shown no difference, each with the
    probability `power`.

    Args:
        policy: With the minimum effect.
        deviation: Standard deviation of the metric between entities of production, in its unit.
        challenger_deviation: That of a challenger better by `min_effect`; None is the same. Of a share `p` it is
            `sqrt(p * (1 - p))`, and so changes with the effect.
    """
    share = policy.weight / 100
    other = deviation if challenger_deviation is None else challenger_deviation
    return math.ceil(policy.planned_information * (other**2 / share + deviation**2 / (1 - share)))


def ab_gates(policy: AbPolicy, counts: AbCounts) -> tuple[Gate, ...]:
    """The split of entities, the split of those whose outcome is known, and the gain."""
    return (srm(policy, counts), scored_srm(policy, counts), gain(policy, counts))


def srm(policy: AbPolicy, counts: AbCounts) -> Gate:
    """Sample ratio mismatch: whether the entities were split by the weights of the plan."""
    return _split(policy, "split", counts.challenger.assigned, counts.production.assigned)


def scored_srm(policy: AbPolicy, counts: AbCounts) -> Gate:
    """The same for entities with a known outcome: a side that loses outcomes compares others than were assigned."""
    return _split(policy, "scored_split", counts.challenger.scores.n, counts.production.scores.n)


def gain(policy: AbPolicy, counts: AbCounts) -> Gate:
    """How much better the challenger's mean is, above 0 in the better direction, with its interval."""
    challenger, production = counts.challenger.scores, counts.production.scores
    gate = Gate(
        name=f"{policy.metric}_gain",
        verdict=Verdict.INCONCLUSIVE,
        measured=None,
        bound=Bound.AT_LEAST,
        limit=0,
        unit=policy.unit,
        sample_size=challenger.n + production.n,
    )
    if min(challenger.n, production.n) < policy.min_samples:
        return gate.model_copy(update={"detail": f"Fewer than {policy.min_samples} a side: nothing is known yet."})
    found = _gain(policy, challenger, production)
    if found is None:
        return gate.model_copy(update={"detail": "No value differs from another: nothing is known yet."})
    low, high = interval(found, alpha=policy.alpha, planned_information=policy.planned_information)
    return measured(gate, found.estimate, low, high)


def ab_outcome(policy: AbPolicy, gates: Sequence[Gate], *, days: float) -> TrialResult:
    """What the gates of this look say.

    Args:
        policy: Of the test.
        gates: Of `ab_gates`.
        days: Since the test began.
    """
    *splits, found = gates
    wrong = [gate for gate in splits if gate.verdict is Verdict.FAILED]
    if wrong:
        reason = f"{wrong[0].sentence()} The comparison is void; find out where entities are lost, then begin anew."
        return TrialResult(outcome=Outcome.INVALID, reason=reason, gates=tuple(gates))
    outcome, reason = decided(policy, found, min_effect=policy.min_effect, days=days)
    return TrialResult(outcome=outcome, reason=reason, gates=tuple(gates))


def measured(gate: Gate, estimate: float, low: float, high: float) -> Gate:
    """The gate with its number, passed or failed where the whole interval is on one side of its limit."""
    verdict = Verdict.INCONCLUSIVE
    if low > gate.limit:
        verdict = Verdict.PASSED
    elif high < gate.limit:
        verdict = Verdict.FAILED
    return gate.model_copy(update={"verdict": verdict, "measured": estimate, "low": low, "high": high})


def decided(policy: TrialLength, gate: Gate, *, min_effect: float, days: float) -> tuple[Outcome, str]:
    """The outcome and its reason by the interval of one gate, whose limit is where both sides are equal."""
    if gate.high is None:
        if days < policy.max_days:
            return Outcome.CONTINUE, gate.sentence()
        return Outcome.INVALID, f"Nothing could be measured in {days:.3g} days; {gate.sentence()}"
    is_small = gate.high < gate.limit + min_effect
    says = (
        (gate.verdict is Verdict.FAILED, Outcome.LOST, "The challenger is worse"),
        (days < policy.min_days, Outcome.CONTINUE, f"Not before {policy.min_days:g} days"),
        (gate.verdict is Verdict.PASSED, Outcome.WON, "The challenger is better"),
        (is_small, Outcome.NO_DIFFERENCE, f"The challenger is not better by the minimum effect of {min_effect:g}"),
        (days >= policy.max_days, Outcome.NO_DIFFERENCE, f"Not decided in {days:.3g} days, so production stays"),
        (True, Outcome.CONTINUE, "Not decided"),
    )
    outcome, reason = next((outcome, reason) for applies, outcome, reason in says if applies)
    return outcome, f"{reason}; {gate.figures()}."


def _gain(policy: AbPolicy, challenger: Scores, production: Scores) -> Difference | None:
    sides = [Sample(n=one.n, mean=one.mean, variance=one.variance) for one in (challenger, production)]
    return difference(*sides) if policy.better is Better.HIGHER else difference(*reversed(sides))


def _split(policy: AbPolicy, name: str, challenger: int, production: int) -> Gate:
    n = challenger + production
    gate = Gate(
        name=name,
        verdict=Verdict.INCONCLUSIVE,
        measured=None,
        bound=Bound.AT_LEAST,
        limit=policy.split_alpha,
        unit="always-valid p-value",
        sample_size=n,
    )
    if n < 2 * policy.min_samples:
        return gate.model_copy(
            update={"detail": f"Fewer than {2 * policy.min_samples} entities: nothing is known yet."}
        )
    share = policy.weight / 100
    p = always_valid_p((challenger, production), (share, 1 - share), concentration=SPLIT_CONCENTRATION)
    detail = f"The challenger has {challenger / n:.2%} of {n} entities, by the plan {share:.2%}."
    verdict = Verdict.FAILED if p < policy.split_alpha else Verdict.PASSED
    return gate.model_copy(update={"verdict": verdict, "measured": p, "detail": detail})
