"""A home in which everything has happened that the exporter tells of: decisions, a trial with shadows, drift."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest

from assets_tests.bundles import MODEL, promote
from assets_tests.judging import drift_report, gate, trigger
from assets_tests.rollout_world import RolloutWorld, plan
from assets_tests.scenarios import digest_of, version
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.document import Document
from boucle.contracts.performance import PerformanceReport
from boucle.contracts.rollout import Phase
from boucle.contracts.traffic_plan import NewPlan, Strategy
from boucle.contracts.trigger import BudgetUse, Trigger, TriggerOutcome, TriggerRule
from boucle.contracts.verdict import Verdict
from boucle_adapters.clock import HomeClock
from boucle_adapters.exposition import ReadAtScrape
from boucle_adapters.log_tables import RolloutLogs
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.platform_metrics import PlatformSources
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

DOCUMENTS = Path(__file__).parent / "contract" / "documents"
NOON = datetime(1997, 11, 1, 12, tzinfo=UTC)


def exposed(settings: Settings) -> str:
    """What the exporter of a home answers."""
    registry = CollectorRegistry()
    registry.register(ReadAtScrape(PlatformSources(settings=settings)))
    return generate_latest(registry).decode()


def decided(kind: DecisionKind, *, production: int = 1, about: int | None = None, **more: object) -> NewDecision:
    """A decision of a person that moves nothing."""
    return NewDecision(
        kind=kind,
        model=MODEL,
        at=NOON,
        actor="user:ada",
        reason="because",
        from_version=version(production),
        to_version=version(production),
        subject_version=version(about) if about else None,
        **more,  # type: ignore[arg-type]
    )


def put_document(settings: Settings, asset: str, period: str, document: Document) -> None:
    """A document as the runs of a period leave it."""
    folder = settings.data_dir / "documents" / MODEL / asset
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{period}.json").write_text(document.model_dump_json())


def held_by_budget() -> Trigger:
    """A look that found reason to train again, and no budget left."""
    spent = BudgetUse(month="1997-08", runs=4, max_runs=4, cpu_minutes=9.0, max_cpu_minutes=60.0)
    held = trigger("1997-08", TriggerOutcome.SUPPRESSED, production=1)
    return held.model_copy(update={"rule": TriggerRule.BUDGET, "budget": spent})


def begin_trial(state: SqlStateStore, settings: Settings) -> None:
    """Version 2 shadows version 1: four requests, on one of which they disagree."""
    trial = plan(1, Phase.SHADOW)
    begun = NewPlan(strategy=Strategy.SHADOW, arms=trial.arms, rollout=trial.rollout, shadow_share=100)
    _, published = state.record_with_plan(
        decided(DecisionKind.ROLLOUT, about=2), expected_production=version(1), plan=begun
    )
    world = RolloutWorld(settings.home)
    world.logs = RolloutLogs(
        predictions=SegmentLog(settings.log_dir),
        shadows=ShadowSegments(settings.shadow_dir),
        feedback=FeedbackSegments(settings.feedback_dir),
    )
    for entity, ours, theirs in (("1", 0.4, 0.6), ("2", 0.4, 0.3), ("3", 0.7, 0.9), ("4", 0.1, 0.2)):
        answered = world.answer(entity, ours, revision=published.revision)
        world.shadow(answered, theirs, revision=published.revision)


def watched_home(settings: Settings) -> None:
    """Everything has happened once."""
    state = SqlStateStore.create(settings.state_store_url)
    promote(state, version=1, digest=digest_of(1))
    state.record(decided(DecisionKind.REQUEST, about=2), expected_production=version(1))
    state.record_trigger(held_by_budget(), NOON)
    begin_trial(state, settings)
    state.close()
    performance = DOCUMENTS / "PerformanceReport.json"
    MonitoringFiles(settings.data_dir).write(PerformanceReport.model_validate_json(performance.read_text()))
    report = drift_report(feature_psi={"recency": 0.3}, gates=(gate("score_drift", Verdict.FAILED),))
    put_document(settings, "drift_report", report.period, report)
    HomeClock(settings.clock_file(MODEL)).set(report.window_end + timedelta(days=3))
