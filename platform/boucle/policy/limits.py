"""The gates of a promotion as `defs.yaml` declares them: each with its limit, the limit's unit, and what it blocks."""

import hashlib
import math

from pydantic import BaseModel, ConfigDict, Field, model_validator

from boucle.contracts.document import canonical_json
from boucle.contracts.ids import Digest
from boucle.contracts.measuring import CostMatrix, Slicing
from boucle.contracts.verdict import GateMode
from boucle.policy.approval import ApprovalPolicy, PromotionMode
from boucle.policy.risk import Asked, RiskFacts, RiskPolicy, asked_of


class GateLimit(BaseModel):
    """One gate. The limit itself passes."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    limit: float
    unit: str
    mode: GateMode = GateMode.BLOCK


class GateLimits(BaseModel):
    """Every gate that measures a model, with its default; the order is that of a report."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    within_compute_budget: GateLimit = Field(
        default=GateLimit(limit=120, unit="CPU seconds"), description="processor time of the fit"
    )
    quality_floor: GateLimit = Field(
        default=GateLimit(limit=0.98, unit="ratio"),
        description="log loss over that of the base rate; 1 is knowing nothing of the entity",
    )
    brier_floor: GateLimit = Field(
        default=GateLimit(limit=0.995, unit="ratio"), description="Brier score over that of the base rate"
    )
    auc_floor: GateLimit = Field(
        default=GateLimit(limit=0.6, unit="ratio"), description="share of pairs ranked right; 0.5 is chance"
    )
    no_regression: GateLimit = Field(
        default=GateLimit(limit=0.0, unit="nats"),
        description="log loss below the reference, at the lower end of the interval; 0: surely not worse",
    )
    expected_cost: GateLimit = Field(
        default=GateLimit(limit=0.0, unit="cost a row"),
        description="cost below the reference, at the lower end of the interval; asked where `costs` are declared",
    )
    slices: GateLimit = Field(
        default=GateLimit(limit=-0.02, unit="nats"),
        description="log loss below the reference in the worst slice; below 0: how much worse a slice may become",
    )
    signature: GateLimit = Field(default=GateLimit(limit=0, unit="differences"), description="from what is declared")
    output_sanity: GateLimit = Field(
        default=GateLimit(limit=0, unit="useless scores"), description="no number, outside [0, 1], or all the same"
    )
    mean_score_plausible: GateLimit = Field(
        default=GateLimit(limit=2.0, unit="ratio"),
        description="mean score over positive rate or its inverse; beyond it, units are mixed up",
    )
    score_shift: GateLimit = Field(
        default=GateLimit(limit=0.1, unit="probability"),
        description="mean distance of the scores from production's on the same rows; another season moves them by .02",
    )
    calibration: GateLimit = Field(
        default=GateLimit(limit=0.03, unit="probability"),
        description="|mean score - positive rate|; demand alone moves it by .02 in a month",
    )
    robustness: GateLimit = Field(
        default=GateLimit(limit=0, unit="useless scores"), description="on rows with missing and extreme values"
    )
    missing_feature: GateLimit = Field(
        default=GateLimit(limit=1.05, unit="ratio"),
        description="log loss over that of the base rate, with the feature missing whose loss costs most",
    )
    latency: GateLimit = Field(
        default=GateLimit(limit=5.0, unit="ms"),
        description="a single row, 99th percentile; trees take 0.02, and machines are shared",
    )
    api_invariants: GateLimit = Field(
        default=GateLimit(limit=0, unit="violations"), description="of the serving app with the candidate's bundle"
    )
    api_latency: GateLimit = Field(
        default=GateLimit(limit=100.0, unit="ms"),
        description="a request over HTTP, 99th percentile; 2 to 5 on an idle machine",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> "GateLimits":
        for name, field in type(self).model_fields.items():
            declared, unit = self.of(name), field.default.unit
            low, high = _RANGES.get(name, (-math.inf, math.inf))
            if declared.unit != unit:
                raise ValueError(f"gate '{name}' is measured in {unit}, not in {declared.unit}")
            if not low <= declared.limit <= high:
                raise ValueError(f"the limit of gate '{name}' must lie in [{low:g}, {high:g}] {unit}")
        return self

    def of(self, name: str) -> GateLimit:
        """The gate of this name."""
        found: GateLimit = getattr(self, name)
        return found


_RANGES = {
    "within_compute_budget": (0, math.inf),
    "quality_floor": (0, math.inf),
    "brier_floor": (0, math.inf),
    "auc_floor": (0, 1),
    "signature": (0, math.inf),
    "output_sanity": (0, math.inf),
    "mean_score_plausible": (1, math.inf),
    "score_shift": (0, 1),
    "calibration": (0, 1),
    "robustness": (0, math.inf),
    "missing_feature": (0, math.inf),
    "latency": (0, math.inf),
    "api_invariants": (0, math.inf),
    "api_latency": (0, math.inf),
}
"""Between what a limit makes sense, where not everywhere."""


class PromotionPolicy(BaseModel):
    """What a promotion asks: who must agree, how many rows, and the limit of each gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: PromotionMode = PromotionMode.AUTOMATIC
    approval: ApprovalPolicy = ApprovalPolicy()
    min_rows: int = Field(
        default=2_000, ge=2, description="holdout rows; with fewer, differences of .005 nats drown in noise"
    )
    min_positives: int = Field(default=100, ge=1, description="positive holdout labels; the log loss hangs on them")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="coverage of the intervals, ratio")
    costs: CostMatrix | None = Field(default=None, description="what wrong answers cost; without it no cost is judged")
    slicing: Slicing = Slicing()
    risk: RiskPolicy = Field(default=RiskPolicy(), description="the table of `mode: risk_based`")
    gates: GateLimits = GateLimits()

    def measuring_digest(self) -> Digest:
        """Of what gates are measured and judged by; who must agree is not part of it."""
        people = {"mode", "approval", "risk"}
        plain = self.model_dump(mode="json", exclude=people)
        return Digest(hashlib.sha256(canonical_json(plain)).hexdigest())

    def asked(self, facts: RiskFacts) -> Asked:
        """What a promotion at this risk asks for."""
        return asked_of(self.mode, self.approval, self.risk, facts)
