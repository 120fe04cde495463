"""A simulated model for `monitoring.py`: twenty features as real ones are, calibrated scores, labels, and real shifts.

Features share causes (the first eight), are skewed (three), categories of six (two), a seldom set flag, a count, mostly
zero (one), or missing in a tenth of the rows (one). The first one has a quarter of the importance.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from boucle.contracts.facts import LiveFacts
from boucle.contracts.ids import ModelName, ModelVersion, PeriodKey
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.profile import ReferenceProfile
from boucle.features.profiles import profile_columns, profile_like
from boucle.policy.monitoring import MonitoringPolicy, drift_gates
from boucle.policy.retraining import RetrainingPolicy, TriggerDecision, TriggerFacts, budget_used, decide_trigger
from boucle.stats.calibration import build_calibration
from boucle.training.evaluate import Holdout, reference_profile

Floats = np.ndarray[Any, np.dtype[np.float64]]
Codes = np.ndarray[Any, np.dtype[np.intp]]
COLUMNS = 20
NAMES = tuple(f"feature_{place}" for place in range(COLUMNS))
CORRELATED, SKEWED, CATEGORIES, FLAG, COUNT, ZEROS, NULLS = range(8), range(8, 11), (11, 12), 13, 14, 15, 16
CODES = tuple(float(code) for code in range(6))
IMPORTANCE = dict(zip(NAMES, [0.25, *np.linspace(0.075, 0.004, COLUMNS - 1).round(4)], strict=True))
COEFFICIENTS = np.sqrt(np.array(list(IMPORTANCE.values()))) * 0.9
REFERENCE_ROWS = 10_000
MODEL, PRODUCTION = ModelName("simulated"), ModelVersion(1)
START = datetime(2024, 1, 1, tzinfo=UTC)
FROZEN = 4


@dataclass(frozen=True, kw_only=True)
class Shift:
    """What became of the world: the first feature moved by so many standard deviations, positives so many times as
    many, and whether a feature of little importance stands still."""

    name: str
    deviations: float = 0.0
    base_rate: float = 1.0
    is_frozen: bool = False


CALM = Shift(name="none")
SHIFTS = (
    Shift(name="an important feature by 0.5 SD", deviations=0.5),
    Shift(name="base rate x 1.5, labels mature", base_rate=1.5),
    Shift(name="a feature frozen", is_frozen=True),
)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What was asked, [rows, features], answered, and became true."""

    features: Floats
    scores: Floats
    labels: Floats
    entities: Codes

    @property
    def columns(self) -> dict[str, Floats]:
        """By feature."""
        return {name: self.features[:, place] for place, name in enumerate(NAMES)}

    def frame(self) -> pd.DataFrame:
        """Features and scores as a table."""
        return pd.DataFrame(self.columns).assign(proba=self.scores)


def draw(rng: np.random.Generator, n: int, shift: Shift = CALM, *, asked: int = 1) -> Rows:
    """So many rows, each entity `asked` times; scores are the true probabilities, unless the base rate moved."""
    if asked > 1:
        once = draw(rng, n // asked, shift)
        again = np.tile(once.entities, asked)
        return Rows(
            features=np.asfortranarray(once.features[again]),
            scores=once.scores[again],
            labels=once.labels[again],
            entities=again,
        )
    x = np.asfortranarray(rng.normal(size=(n, COLUMNS)))
    x[:, 0] += shift.deviations / math.sqrt(0.64)
    x[:, CORRELATED] = 0.6 * rng.normal(size=(n, 1)) + 0.8 * x[:, CORRELATED]
    logits = x @ COEFFICIENTS - 2.6
    x[:, SKEWED] = np.exp(x[:, SKEWED])
    for place in CATEGORIES:
        x[:, place] = np.clip(np.floor(2 * np.abs(x[:, place])), 0, 5)
    x[:, FLAG] = x[:, FLAG] > 1.6
    x[:, COUNT] = rng.poisson(2, n)
    x[:, ZEROS] = np.maximum(x[:, ZEROS], 0)
    x[rng.random(n) < 0.1, NULLS] = np.nan
    if shift.is_frozen:
        x[:, FROZEN] = 0.3
    scores = 1 / (1 + np.exp(-logits))
    labels = (rng.random(n) < np.minimum(1, scores * shift.base_rate)).astype(np.float64)
    return Rows(features=x, scores=scores, labels=labels, entities=np.arange(n))


def reference_of(rows: Rows) -> ReferenceProfile:
    """The reference as training makes it of its holdout."""
    holdout = Holdout(features=rows.features, feature_names=NAMES, labels=rows.labels, entities=rows.entities)
    return reference_profile(
        holdout,
        rows.scores,
        model=MODEL,
        version=PRODUCTION,
        window=(START, START + timedelta(days=28)),
        importance=IMPORTANCE,
        categories={NAMES[place]: CODES for place in CATEGORIES},
    )


def facts_of(reference: ReferenceProfile, rows: Rows) -> LiveFacts:
    """The window's facts, from profiles made of its rows as monitoring makes them."""
    return LiveFacts(
        reference=reference,
        predictions=len(rows.scores),
        scores=profile_like(rows.scores, reference.score_column, entities=rows.entities),
        features=profile_columns(rows.columns, reference.columns, entities=rows.entities),
        outcomes=build_calibration(rows.labels, rows.scores, rows.entities, reference.scores.edges),
    )


def report_of(policy: MonitoringPolicy, facts: LiveFacts, number: int) -> DriftReport:
    """The drift report of a day, with all gates and new mature labels."""
    start = START + timedelta(days=number)
    return DriftReport(
        model=MODEL,
        period=PeriodKey(f"{start:%Y-%m-%d}"),
        window_start=start,
        window_end=start + timedelta(days=1),
        production_version=PRODUCTION,
        predictions=facts.predictions,
        labelled=facts.outcomes.rows if facts.outcomes else 0,
        gates=drift_gates(policy, facts),
        feature_psi={},
        newest_mature_as_of=start,
        mature_periods=100,
        trained_up_to=START - timedelta(days=1),
        created_at=start + timedelta(days=1),
    )


def decide(policy: RetrainingPolicy, reports: Sequence[DriftReport]) -> TriggerDecision:
    """What the trigger says after the newest of these windows, had none before it led to a training."""
    facts = TriggerFacts(
        report=reports[-1],
        production=PRODUCTION,
        trained_up_to=START - timedelta(days=1),
        budget=budget_used(policy, (), {}, at=reports[-1].window_end),
        recent=tuple(reports[:-1]),
    )
    return decide_trigger(policy, facts)


def failed_gates(report: DriftReport) -> Mapping[str, float | None]:
    """Gates that failed, with what they measured."""
    return {gate.name: gate.measured for gate in report.gates if gate.verdict == "failed"}
