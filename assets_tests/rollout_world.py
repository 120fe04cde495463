"""A small home whose logs hold a rollout, written record by record as serving writes them."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from assets_tests.records import prediction
from boucle.contracts.feedback import FeedbackFields
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.shadow import ShadowFields
from boucle.contracts.traffic_plan import Arm, Role, Strategy, TrafficPlan
from boucle_adapters.log_tables import RolloutLogs
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments

MODEL = ModelName("repurchase")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIGESTS = {1: Digest("1" * 64), 2: Digest("2" * 64)}
PRODUCTION, CHALLENGER = ModelVersion(1), ModelVersion(2)
SHADOW, FIRST, SECOND = 1, 2, 3
"""Revisions of the plans below."""


def plan(revision: int, phase: Phase, *, step: int = 0, weight: float = 0.0, began_at: datetime = NOON) -> TrafficPlan:
    at = NOON + timedelta(hours=revision - 1)
    rollout = Rollout(
        model=MODEL,
        challenger=CHALLENGER,
        production=PRODUCTION,
        phase=phase,
        step=step,
        weight=weight,
        began_at=began_at,
        phase_began_at=at,
    )
    arms = ((PRODUCTION, 100 - weight, Role.PRODUCTION), (CHALLENGER, weight, Role.CHALLENGER))
    return TrafficPlan(
        model=MODEL,
        revision=revision,
        decision_id=revision,
        created_at=at,
        created_by="test",
        reason="a rollout",
        strategy=Strategy.CANARY,
        rollout=rollout,
        shadow_share=100,
        arms=tuple(Arm(version=v, bundle_digest=DIGESTS[v], weight=share, role=role) for v, share, role in arms),
    )


PLANS = (
    plan(SHADOW, Phase.SHADOW),
    plan(FIRST, Phase.CANARY, weight=10),
    plan(SECOND, Phase.CANARY, step=1, weight=50),
)


@dataclass
class RolloutWorld:
    """The logs of one home, written as serving writes them. Answers are a second apart, an hour a revision."""

    root: Path
    answers: int = 0
    heard: int = 0
    logs: RolloutLogs = field(init=False)

    def __post_init__(self) -> None:
        self.logs = RolloutLogs(
            predictions=SegmentLog(self.root / "predictions"),
            shadows=ShadowSegments(self.root / "shadows"),
            feedback=FeedbackSegments(self.root / "feedback"),
        )

    def answer(self, entity: str | None, proba: float = 0.5, *, revision: int = FIRST, **changes: Any) -> str:
        """An answer of production, unless `changes` say otherwise; returns its id."""
        self.answers += 1
        at = NOON + timedelta(hours=revision - 1, seconds=self.answers)
        named = {"prediction_id": f"p{self.answers}", "entity_key": entity, "proba": proba, "plan_revision": revision}
        record = prediction(self.answers, **{**named, "at": at, "model": MODEL, "latency_ms": 1.0, **changes})
        self.logs.predictions.append(record)
        return record["prediction_id"]

    def challenged(self, entity: str | None, proba: float = 0.5, **changes: Any) -> str:
        """An answer of the challenger; with `fallback` one of production in its place."""
        answered = "production" if changes.get("fallback") else "challenger"
        version = PRODUCTION if changes.get("fallback") else CHALLENGER
        roles = {"assigned_role": "challenger", "answering_role": answered, "model_version": version}
        return self.answer(entity, proba, **{**roles, **changes})

    def shadow(self, of: str, proba: float | None, *, revision: int = SHADOW, **changes: Any) -> None:
        """The other arm's score of an answer, by default the challenger's."""
        record = ShadowFields(
            schema_version=1,
            prediction_id=of,
            at=NOON + timedelta(hours=revision - 1),
            model=MODEL,
            model_version=CHALLENGER,
            bundle_digest=DIGESTS[2],
            plan_revision=revision,
            proba=proba,
            error=None if proba is not None else "failed",
            latency_ms=0.2,
            replica="one",
        )
        self.logs.shadows.append(ShadowFields(**{**record, **changes}))  # type: ignore[typeddict-item]

    def hear(self, of: str, outcome: float | None = None, *, reward: float | None = None, **changes: Any) -> None:
        """What became of an answer; each message is received an hour after the one before."""
        self.heard += 1
        record = FeedbackFields(
            schema_version=1,
            prediction_id=of,
            outcome=outcome,
            reward=reward,
            at=NOON,
            received_at=NOON + timedelta(hours=self.heard),
            model=None,
            replica="one",
        )
        self.logs.feedback.append(FeedbackFields(**{**record, **changes}))  # type: ignore[typeddict-item]
