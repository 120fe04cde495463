"""How much a promotion risks, and what that asks for: a table that is data.

The tier is the highest over all terms; a term that nobody measured is of the highest tier. Every term only rises with
its value, and every tier asks for at least as many people and gates as the one below.
"""

from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.policy.approval import ApprovalPolicy, PromotionMode


class Tier(StrEnum):
    """Of a term and of a promotion."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"

    @property
    def rank(self) -> int:
        """0, 1, 2."""
        return tuple(Tier).index(self)


class Steps(BaseModel):
    """From which value on a term is of medium, and from which of high tier; the value itself counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    medium: float
    high: float

    @model_validator(mode="after")
    def _rises(self) -> "Steps":
        if self.medium > self.high:
            raise ValueError(f"medium begins at {self.medium:g}, after high at {self.high:g}")
        return self

    def tier(self, value: float | None) -> Tier:
        """Where a value stands; what nobody measured, or is no number, is high.

        >>> Steps(medium=0.1, high=0.5).tier(0.1)
        <Tier.MEDIUM: 'medium'>
        """
        if value is None or not value < self.high:
            return Tier.HIGH
        return Tier.MEDIUM if value >= self.medium else Tier.LOW


class Demand(BaseModel):
    """What a tier asks for, beyond the gates that block anyway."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: PromotionMode
    four_eyes: bool = Field(default=False, description="whoever asked may not approve")
    loose_gates_block: bool = Field(default=False, description="gates that only warn or are switched off must pass too")

    @property
    def people(self) -> int:
        """How many must agree: nobody, one, or two."""
        return 0 if self.mode is PromotionMode.AUTOMATIC else 1 + self.four_eyes


class RiskPolicy(BaseModel):
    """The table of `mode: risk_based`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    criticality: Tier = Field(default=Tier.MEDIUM, description="what a wrong model does, as its owners declare")
    traffic_share: Steps = Field(
        default=Steps(medium=0.25, high=1.01), description="ratio of requests that the promotion moves at once"
    )
    data_change: Steps = Field(
        default=Steps(medium=0.5, high=0.9), description="ratio of training periods that production did not learn from"
    )
    worst_slice_loss: Steps = Field(
        default=Steps(medium=0.005, high=0.015), description="nats of log loss that the worst slice loses"
    )
    label_age_days: Steps = Field(
        default=Steps(medium=45, high=120), description="days since the newest holdout label became known"
    )
    low: Demand = Demand(mode=PromotionMode.AUTOMATIC)
    medium: Demand = Demand(mode=PromotionMode.SEMI_AUTOMATIC)
    high: Demand = Demand(mode=PromotionMode.SEMI_AUTOMATIC, four_eyes=True, loose_gates_block=True)

    @model_validator(mode="after")
    def _never_asks_less(self) -> "RiskPolicy":
        for below, above in ((self.low, self.medium), (self.medium, self.high)):
            if PromotionMode.RISK_BASED in (below.mode, above.mode):
                raise ValueError("a tier asks for manual, semi_automatic or automatic")
            if above.people < below.people or above.loose_gates_block < below.loose_gates_block:
                raise ValueError("a higher tier must not ask for fewer people or fewer gates than the one below")
        return self

    def demand(self, tier: Tier) -> Demand:
        """What a tier asks for."""
        return {Tier.LOW: self.low, Tier.MEDIUM: self.medium, Tier.HIGH: self.high}[tier]


@dataclass(frozen=True, kw_only=True)
class RiskFacts:
    """What was measured of a promotion; None is what nobody could. Units are those of `RiskPolicy`."""

    traffic_share: float | None = None
    data_change: float | None = None
    worst_slice_loss: float | None = None
    label_age_days: float | None = None


@dataclass(frozen=True, kw_only=True)
class Term:
    """One row of the table: what was measured, and the tier that gives."""

    name: str
    value: float | None
    unit: str
    steps: Steps | None
    tier: Tier

    def figures(self) -> str:
        """`data_change: medium (0.6 ratio; medium from 0.5, high from 0.9)`."""
        if self.steps is None:
            return f"{self.name}: {self.tier} (declared)"
        measured = "nothing measured" if self.value is None else f"{self.value:.3g} {self.unit}"
        return (
            f"{self.name}: {self.tier} ({measured}; medium from {self.steps.medium:g}, high from {self.steps.high:g})"
        )


@dataclass(frozen=True, kw_only=True)
class Risk:
    """The tier of a promotion, and every term in order."""

    tier: Tier
    terms: tuple[Term, ...]

    def sentence(self) -> str:
        """The tier and the terms that make it so."""
        decisive = [term.figures() for term in self.terms if term.tier is self.tier]
        return f"{self.tier} risk ({'; '.join(decisive)})"


_UNITS = {
    "traffic_share": "ratio",
    "data_change": "ratio",
    "worst_slice_loss": "nats",
    "label_age_days": "days",
}


def assess(policy: RiskPolicy, facts: RiskFacts) -> Risk:
    """The tier of a promotion: the highest over its terms."""
    measured = tuple(
        Term(
            name=name,
            value=(value := getattr(facts, name)),
            unit=unit,
            steps=(steps := getattr(policy, name)),
            tier=steps.tier(value),
        )
        for name, unit in _UNITS.items()
    )
    declared = Term(name="criticality", value=None, unit="", steps=None, tier=policy.criticality)
    terms = (declared, *measured)
    return Risk(tier=max((term.tier for term in terms), key=lambda tier: tier.rank), terms=terms)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a promotion asks for now: who moves the alias, who may agree, whether loose gates must pass.

    `risk` says why; it is None where the policy does not go by it.
    """

    mode: PromotionMode
    approval: ApprovalPolicy
    loose_gates_block: bool = False
    risk: Risk | None = None

    @property
    def name(self) -> str:
        """As decisions record it: the mode, and for a policy by risk the tier before it."""
        return f"risk_based, {self.risk.tier}: {self.mode}" if self.risk is not None else self.mode.value


def asked_of(mode: PromotionMode, approval: ApprovalPolicy, table: RiskPolicy, facts: RiskFacts) -> Asked:
    """What the policy asks for at this risk; a declared `four_eyes` is never taken back."""
    if mode is not PromotionMode.RISK_BASED:
        return Asked(mode=mode, approval=approval)
    risk = assess(table, facts)
    demand = table.demand(risk.tier)
    eyes = approval.model_copy(update={"four_eyes": approval.four_eyes or demand.four_eyes})
    return Asked(mode=demand.mode, approval=eyes, loose_gates_block=demand.loose_gates_block, risk=risk)
