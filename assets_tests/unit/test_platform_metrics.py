"""What the exporter says of a home: what is on record, and never a zero for what nobody could read."""

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from assets_tests.bundles import MODEL, promote
from assets_tests.judging import drift_report, gate, trigger
from assets_tests.scenarios import digest_of, version
from assets_tests.watched_home import DOCUMENTS, NOON, begin_trial, decided, exposed, held_by_budget, put_document
from boucle.contracts.decision import DecisionKind
from boucle.contracts.performance import Estimate, Metric, PerformanceReport
from boucle.contracts.trigger import BudgetUse, TriggerOutcome
from boucle.contracts.verdict import Bound, Verdict
from boucle_adapters.clock import HomeClock
from boucle_adapters.exposition import ReadAtScrape
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.platform_metrics import PlatformSources
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore

Values = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, state_url="", replica_timeout_seconds=60)


@pytest.fixture
def state(settings: Settings) -> Iterator[SqlStateStore]:
    store = SqlStateStore.create(settings.state_store_url)
    promote(store, version=1, digest=digest_of(1))
    yield store
    store.close()


def scraped(settings: Settings) -> Values:
    families = text_string_to_metric_families(exposed(settings))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(values: Values, name: str, **labels: str) -> float | None:
    return values.get((name, frozenset(labels.items())))


def test_promotions_are_counted_by_what_became_of_versions_zeros_too(settings, state):
    promote(state, version=2, digest=digest_of(2))
    state.record(decided(DecisionKind.REJECT, production=2, about=3), expected_production=version(2))
    found = scraped(settings)
    counts = {o: value(found, "boucle_promotions_total", model=MODEL, outcome=o) for o in ("promoted", "rejected")}
    assert counts == {"promoted": 2, "rejected": 1}
    assert value(found, "boucle_promotions_total", model=MODEL, outcome="rolled_back") == 0
    assert value(found, "boucle_production_version", model=MODEL) == 2


def test_only_what_followed_a_rollback_is_the_duration_of_a_rollback(settings, state):
    state.record(decided(DecisionKind.SERVED, seconds=7.0), expected_production=version(1))
    promote(state, version=2, digest=digest_of(2))
    back = decided(DecisionKind.ROLLBACK).model_copy(update={"from_version": version(2)})
    state.record(back, expected_production=version(2))
    state.record(decided(DecisionKind.SERVED, seconds=0.3), expected_production=version(1))
    found = scraped(settings)
    assert value(found, "boucle_rollback_duration_seconds_count", model=MODEL) == 1
    assert value(found, "boucle_rollback_duration_seconds_sum", model=MODEL) == 0.3
    bucket = "boucle_rollback_duration_seconds_bucket"
    assert value(found, bucket, model=MODEL, le="0.2") == 0
    assert value(found, bucket, model=MODEL, le="0.5") == 1


def test_an_unanswered_request_grows_older_by_the_models_clock_until_it_is_answered(settings, state):
    HomeClock(settings.clock_file(MODEL)).set(NOON + timedelta(hours=2))
    state.record(decided(DecisionKind.REQUEST, about=2), expected_production=version(1))
    waiting = value(scraped(settings), "boucle_approval_open_seconds", model=MODEL, version="2")
    assert waiting == pytest.approx(7_200, abs=60)
    state.record(decided(DecisionKind.APPROVE, about=2, seconds=7_200.0), expected_production=version(1))
    found = scraped(settings)
    assert value(found, "boucle_approval_open_seconds", model=MODEL, version="2") is None
    assert value(found, "boucle_approval_wait_seconds_sum", model=MODEL) == 7_200


def test_triggers_are_counted_fired_and_suppressed(settings, state):
    said = (
        ("1997-08", TriggerOutcome.SUPPRESSED),
        ("1997-09", TriggerOutcome.SUPPRESSED),
        ("1997-10", TriggerOutcome.FIRED),
    )
    for period, outcome in said:
        state.record_trigger(trigger(period, outcome, production=1), NOON)
    found = scraped(settings)
    assert value(found, "boucle_retraining_triggers_total", model=MODEL, fired="true") == 1
    assert value(found, "boucle_retraining_triggers_total", model=MODEL, fired="false") == 2


def test_replicas_that_serve_an_older_plan_are_behind(settings, state):
    for name, revision in (("one", 1), ("two", 0)):
        state.heartbeat(name, {MODEL: revision}, "")
    found = scraped(settings)
    assert value(found, "boucle_replicas_live", model=MODEL) == 2
    assert value(found, "boucle_replicas_behind", model=MODEL) == 1


def test_a_broken_chain_is_told_apart_from_a_store_that_is_away(settings, state):
    assert value(scraped(settings), "boucle_ledger_intact") == 1
    with state._engine.begin() as connection:
        connection.exec_driver_sql("update decision set document = replace(document, 'better', 'worse')")
    found = scraped(settings)
    assert value(found, "boucle_ledger_intact") == 0
    assert value(found, "boucle_exporter_up", source="ledger", model="") == 1


def test_a_store_that_is_away_has_no_figures_and_says_so(settings):
    (settings.data_dir / MODEL / "versions").mkdir(parents=True)
    found = scraped(settings)
    assert value(found, "boucle_exporter_up", source="ledger", model="") == 0
    assert value(found, "boucle_exporter_up", source="state_store", model=MODEL) == 0
    assert {name for name, _ in found} == {"boucle_exporter_up"}


def test_a_store_that_comes_back_is_read_by_the_next_scrape(settings):
    registry = CollectorRegistry()
    registry.register(ReadAtScrape(PlatformSources(settings=settings)))
    assert b"boucle_production_version" not in generate_latest(registry)
    store = SqlStateStore.create(settings.state_store_url)
    promote(store, version=4, digest=digest_of(4))
    assert b'boucle_production_version{model="repurchase"} 4.0' in generate_latest(registry)
    store.close()


def test_a_trial_that_is_open_says_how_often_it_disagrees(settings, state):
    begin_trial(state, settings)
    found = scraped(settings)
    assert value(found, "boucle_shadow_disagreement_ratio", model=MODEL, version="2") == 0.25
    assert value(found, "boucle_shadow_pairs", model=MODEL, version="2") == 4


def test_the_newest_drift_report_says_what_drifted_how_far_and_how_old_it_is(settings, state):
    passed = drift_report(period="1997-07")
    failed = gate("score_drift", Verdict.FAILED)
    newest = drift_report(feature_psi={"recency": 0.3}, gates=(failed, gate("log_loss_drift", Verdict.INCONCLUSIVE)))
    for report in (passed, newest):
        put_document(settings, "drift_report", report.period, report)
    HomeClock(settings.clock_file(MODEL)).set(newest.window_end + timedelta(days=3))
    found = scraped(settings)
    assert value(found, "boucle_drift_score", model=MODEL, feature="recency") == 0.3
    verdicts = {
        v: value(found, "boucle_drift_gate_verdict", model=MODEL, gate="score_drift", verdict=v) for v in Verdict
    }
    assert verdicts == {"passed": 0, "failed": 1, "inconclusive": 0}
    assert value(found, "boucle_drift_gate_limit", model=MODEL, gate="score_drift") == failed.limit
    assert value(found, "boucle_drift_report_age_seconds", model=MODEL) == pytest.approx(3 * 86_400, abs=60)
    assert value(found, "boucle_drift_report_period_seconds", model=MODEL) == 31 * 86_400


def test_a_report_is_due_each_day_where_a_window_of_28_days_ends_each_day(settings, state):
    newest = drift_report(period="1997-08-31")
    newest = newest.model_copy(update={"window_start": newest.window_end - timedelta(days=28)})
    put_document(settings, "drift_report", newest.period, newest)
    assert value(scraped(settings), "boucle_drift_report_period_seconds", model=MODEL) == 86_400


@pytest.mark.parametrize(
    ("bound", "limit", "measured", "used"),
    [
        (Bound.AT_MOST, 0.2, 0.3, 1.5),
        (Bound.AT_LEAST, 0.1, 0.2, 0.5),
        (Bound.AT_LEAST, 0.1, 0.05, 2),
        (Bound.AT_LEAST, 0.1, 0, math.inf),
        (Bound.AT_LEAST, -0.02, -0.03, 1.5),
    ],
)
def test_beyond_its_limit_a_gate_uses_more_than_one_whichever_side_passes(
    settings, state, bound: Bound, limit: float, measured: float, used: float
):
    one = gate("g", Verdict.FAILED).model_copy(update={"bound": bound, "limit": limit, "measured": measured})
    put_document(settings, "drift_report", "1997-08", drift_report(gates=(one,)))
    assert value(scraped(settings), "boucle_drift_gate_used_ratio", model=MODEL, gate="g") == pytest.approx(used)


def test_what_could_not_be_measured_has_no_figure(settings, state):
    unknown = gate("log_loss_drift", Verdict.INCONCLUSIVE).model_copy(update={"measured": None})
    put_document(settings, "drift_report", "1997-08", drift_report(gates=(unknown,)))
    assert value(scraped(settings), "boucle_drift_gate_measured", model=MODEL, gate="log_loss_drift") is None


def test_a_document_that_cannot_be_read_takes_no_other_figure_with_it(settings, state):
    folder = settings.data_dir / "documents" / MODEL / "drift_report"
    folder.mkdir(parents=True)
    (folder / "1997-08.json").write_text("{}")
    found = scraped(settings)
    assert value(found, "boucle_exporter_up", source="drift_report", model=MODEL) == 0
    assert value(found, "boucle_exporter_up", source="state_store", model=MODEL) == 1
    assert value(found, "boucle_production_version", model=MODEL) == 1


def test_a_look_that_was_held_back_is_counted_by_its_rule_with_what_is_left(settings, state):
    HomeClock(settings.clock_file(MODEL)).set(datetime(1997, 8, 31, tzinfo=UTC))
    state.record_trigger(held_by_budget(), NOON)
    found = scraped(settings)
    assert value(found, "boucle_retraining_suppressed_total", model=MODEL, rule="budget") == 1
    assert value(found, "boucle_retraining_suppressed_total", model=MODEL, rule="cool_down") == 0
    assert value(found, "boucle_retraining_budget_left_runs", model=MODEL) == 0


@pytest.mark.parametrize(("fired", "month", "left"), [(False, 8, 2), (True, 8, 1), (True, 9, 4)])
def test_the_budget_that_is_left_counts_the_run_that_fired_and_begins_anew_each_month(
    settings, state, fired: bool, month: int, left: int
):
    HomeClock(settings.clock_file(MODEL)).set(datetime(1997, month, 20, tzinfo=UTC))
    budget = BudgetUse(month="1997-08", runs=2, max_runs=4, cpu_minutes=1.0, max_cpu_minutes=60.0)
    outcome = TriggerOutcome.FIRED if fired else TriggerOutcome.SUPPRESSED
    state.record_trigger(trigger("1997-08", outcome, production=1).model_copy(update={"budget": budget}), NOON)
    assert value(scraped(settings), "boucle_retraining_budget_left_runs", model=MODEL) == left


def test_a_pin_shows_until_it_is_taken_off(settings, state):
    assert value(scraped(settings), "boucle_production_pinned", model=MODEL) == 0
    state.record(decided(DecisionKind.PIN), expected_production=version(1))
    assert value(scraped(settings), "boucle_production_pinned", model=MODEL) == 1
    state.record(decided(DecisionKind.UNPIN), expected_production=version(1))
    assert value(scraped(settings), "boucle_production_pinned", model=MODEL) == 0


def performance(**changes: object) -> PerformanceReport:
    text = (DOCUMENTS / "PerformanceReport.json").read_text()
    return PerformanceReport.model_validate_json(text).model_copy(update=changes)


def test_performance_is_that_of_the_newest_window_as_it_is_known_now(settings, state):
    files = MonitoringFiles(settings.data_dir)
    first = performance()
    known = first.outcomes.model_copy(update={"known": 450, "pending": 150})
    for report in (performance(period="1997-04"), first, performance(restatement=1, outcomes=known)):
        files.write(report)
    found = scraped(settings)
    assert value(found, "boucle_label_coverage_ratio", model=MODEL) == 0.75
    assert value(found, "boucle_labels_pending", model=MODEL) == 150
    whole = first.realised[0].metrics[Metric.LOG_LOSS]
    assert value(found, "boucle_realised_metric", model=MODEL, version="1", metric="log_loss") == whole.estimate


def test_a_window_in_which_nothing_was_due_has_no_coverage_and_a_refused_estimate_no_figure(settings, state):
    nothing = performance().outcomes.model_copy(update={"due": 0, "known": 0, "pending": 0})
    refused = Estimate(
        version=version(1), predictions=9, mean_score=0.1, metrics=dict.fromkeys(Metric), refused="not calibrated"
    )
    report = performance(outcomes=nothing, realised=(), estimated=(refused,))
    MonitoringFiles(settings.data_dir).write(report)
    found = scraped(settings)
    assert value(found, "boucle_exporter_up", source="performance", model=MODEL) == 1
    names = {name for name, _ in found}
    assert names.isdisjoint({"boucle_label_coverage_ratio", "boucle_realised_metric", "boucle_estimated_metric"})
