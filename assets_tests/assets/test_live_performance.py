"""Reports of live performance: versions, arms, slices, estimates beside them, and what restatements leave alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets_tests.bundles import promote, put_bundle
from assets_tests.contract.test_documents import example
from assets_tests.judging import day, drift_report, gate, training_manifest
from assets_tests.records import prediction
from boucle.contracts.feedback import FeedbackFields
from boucle.contracts.ids import Digest
from boucle.contracts.measuring import Slicing
from boucle.contracts.performance import Estimate, EstimateError, Measured, Metric, Performance, PerformanceReport
from boucle.contracts.verdict import Verdict
from boucle.contracts.windows import Period
from boucle.errors import NotEnoughDataError
from boucle.features.outcomes import OutcomeSettings
from boucle.stats.performance_history import estimate_accuracy
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.performance_metadata import history_metadata, performance_metadata
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import join_outcomes
from boucle_platform.model_loop.steps.monitoring import drift_check
from boucle_platform.model_loop.steps.performance import live_performance, tolerance_check
from boucle_platform.model_loop.steps.prediction_log import collect_predictions
from boucle_platform.model_loop.steps.store import GROUND_TRUTH, data_dir, version_dir, write_document, write_rows

BASE = catalogue.spec_of("repurchase")
SPEC = BASE.model_copy(
    update={
        "promotion": BASE.promotion.model_copy(update={"slicing": Slicing(by=("orders",))}),
        "monitoring": BASE.monitoring.model_copy(update={"max_calibration_gap": 0.03, "max_log_loss_increase": 0.05}),
    }
)
MAY, JUNE, JULY = (SPEC.period(key) for key in ("1997-05", "1997-06", "1997-07"))
N = 600


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@dataclass
class World:
    """Version 1 answers expit(orders - recency_days) and is right; its holdout is of April."""

    home: Home
    digest: Digest
    asked: int = 0

    def ask(
        self,
        at: datetime,
        *,
        n: int = N,
        concept: float = 0.0,
        slope: float = 1.0,
        labels: bool = True,
        version: int = 1,
        **how: object,
    ) -> None:
        """Answers of a day, each about another customer; `concept` and `slope` say what the same features lead to."""
        rng = np.random.default_rng(self.asked + 1)
        features = rng.normal((0, 1), 1, (n, 2))
        scores = expit(features[:, 0] - features[:, 1])
        outcome = rng.random(n) < expit(slope * (features[:, 0] - features[:, 1]) + concept)
        keys = [str(self.asked + number) for number in range(n)]
        for number in range(n):
            record = prediction(
                self.asked + number,
                at=at,
                entity_key=keys[number],
                as_of=at,
                features_as_of=at,
                features=tuple(features[number].tolist()),
                proba=float(scores[number]),
                bundle_digest=self.digest,
                model_version=version,
                **how,
            )
            self.home.log.append(record)
        if labels:
            self.know(keys, at, outcome)
        self.asked += n

    def know(self, keys: Sequence[str], at: datetime, outcome: np.ndarray) -> None:
        rows = pd.DataFrame({"user_id": keys, "as_of": pd.Timestamp(at.replace(tzinfo=None))})
        rows = rows.assign(label=outcome.astype(int), known_at=rows["as_of"] + pd.Timedelta(days=30))
        with self.home.warehouse.connect() as connection:
            connection.execute(f"insert into {SPEC.labels} select user_id, as_of, label, known_at from rows")

    def report(self, *periods: Period, spec: LoopSpec = SPEC) -> PerformanceReport:
        """Run the steps of these periods; the report of the last one."""
        collect_predictions(self.home, spec, periods)
        join_outcomes(self.home, spec, periods)
        return live_performance(self.home, spec, periods).reports[periods[-1].key]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home = Home(Settings(home=str(tmp_path / "home")))
    made = World(home=home, digest=put_bundle(home.bundles, tmp_path, weights=(1, -1)))
    with home.warehouse.connect() as connection:
        columns = "user_id varchar, as_of timestamp, label integer, known_at timestamp"
        connection.execute(f"create table {SPEC.labels} ({columns})")
    rng = np.random.default_rng(0)
    features = rng.normal((0, 1), 1, (4_000, 2))
    held = pd.DataFrame(features, columns=["orders", "recency_days"]).assign(
        part="holdout",
        entity_key=[str(n) for n in range(4_000)],
        label=(rng.random(4_000) < expit(features[:, 0] - features[:, 1])).astype(int),
    )
    manifest = training_manifest().model_copy(
        update={"feature_names": ("orders", "recency_days"), "file": "holdout.parquet"}
    )
    write_rows(home.settings.home_dir / "holdout.parquet", held)
    for version in (1, 2):
        write_document(version_dir(home, SPEC, version) / "training.json", manifest)
    promote(home.state, version=1, digest=made.digest)
    yield made
    home.log.close()
    home.feedback.close()
    home.state.close()


def whole(report: PerformanceReport) -> Performance:
    return next(row for row in report.realised if row.role is None and row.slice is None)


def measured(row: Performance, metric: Metric) -> Measured:
    found = row.metrics[metric]
    assert found is not None
    return found


def estimate(report: PerformanceReport) -> Estimate:
    return next(row for row in report.estimated if row.slice is None)


def test_a_version_has_a_row_for_itself_for_its_arm_and_for_each_slice_of_its_holdout(world: World):
    world.ask(MAY.start)
    report = world.report(MAY)
    assert [(row.role, row.slice) for row in report.realised][:2] == [(None, None), ("production", None)]
    slices = [row for row in report.realised if row.slice]
    assert len(slices) == 4
    assert sum(row.predictions for row in slices) == N
    assert all(row.slice and row.slice.startswith("orders ") for row in slices)
    found = measured(whole(report), Metric.LOG_LOSS)
    assert found.low < found.estimate < found.high


def test_arms_are_told_apart_and_what_a_fallback_answered_is_of_the_version_that_answered(world: World):
    world.ask(MAY.start, n=200)
    world.ask(MAY.start, n=100, assigned_role="challenger", fallback="failed")
    world.ask(MAY.start, n=150, version=2, assigned_role="challenger", answering_role="challenger")
    rows = [row for row in world.report(MAY).realised if row.slice is None]
    found = [(row.version, row.role, row.predictions, row.fallbacks) for row in rows]
    assert found == [(1, None, 300, 100), (1, "production", 300, 100), (2, None, 150, 0), (2, "challenger", 150, 0)]


def test_too_few_labels_make_no_metric_and_no_zero(world: World):
    world.ask(MAY.start, n=20)
    row = whole(world.report(MAY))
    assert row.predictions == 20
    assert row.positive_rate is None
    assert set(row.metrics.values()) == {None}
    assert "inconclusive: 20 mature labels" in row.note


def test_without_labels_there_is_an_estimate_and_no_realised_row(world: World):
    world.ask(MAY.start, labels=False)
    report = world.report(MAY)
    assert report.realised == ()
    assert report.coverage == 0
    assert estimate(report).metrics[Metric.LOG_LOSS] is not None
    assert estimate(report).confusion is not None
    assert not tolerance_check([report]).passed


def losses(report: PerformanceReport) -> list[EstimateError]:
    return [error for error in report.estimate_errors if error.metric is Metric.LOG_LOSS]


@pytest.mark.parametrize(("concept", "right"), [(0.0, True), (1.2, False)])
def test_an_estimate_of_may_is_held_against_what_was_known_in_june(world: World, concept: float, right: bool):
    """Asked in mid-May, due in mid-June. Where they lead elsewhere now, the estimate was wrong and it shows."""
    world.ask(day("1997-05-15"), concept=concept)
    may = world.report(MAY)
    assert (may.realised, may.estimate_errors) == ((), ())
    world.ask(day("1997-06-15"), labels=False)
    june = world.report(JUNE)
    (error,) = losses(june)
    assert (error.period, error.known, error.estimated) == ("1997-05", N, estimate(may).metrics[Metric.LOG_LOSS])
    assert error.realised == pytest.approx(measured(whole(june), Metric.LOG_LOSS).estimate)
    assert error.covered is right
    assert (abs(error.error) < 0.05) is right
    assert (estimate(june).refused == "") is right


def test_an_error_is_recorded_once_when_the_window_is_mature(world: World):
    world.ask(MAY.start)
    first = world.report(MAY)
    assert {error.metric for error in first.estimate_errors} == set(Metric)
    (loss,) = losses(first)
    assert loss.realised == pytest.approx(measured(whole(first), Metric.LOG_LOSS).estimate)
    assert loss.error == pytest.approx(loss.estimated.estimate - loss.realised)
    assert loss.covered
    world.ask(JUNE.start)
    assert {error.period for error in world.report(JUNE).estimate_errors} == {"1997-06"}


def test_the_error_of_one_version_does_not_hide_that_of_another(world: World):
    """Version 1 was asked at the start of May and is mature at its end, version 2 in mid-May."""
    world.ask(MAY.start)
    world.ask(day("1997-05-15"), version=2)
    assert {error.version for error in world.report(MAY).estimate_errors} == {1}
    assert {(error.period, error.version) for error in world.report(JUNE).estimate_errors} == {("1997-05", 2)}


def test_an_error_is_recorded_though_outcomes_take_longer_than_restatements(world: World):
    spec = SPEC.model_copy(update={"outcomes": OutcomeSettings(restate_days=10)})
    world.ask(day("1997-05-31"))
    assert world.report(MAY, spec=spec).estimate_errors == ()
    assert {error.period for error in world.report(JUNE, spec=spec).estimate_errors} == {"1997-05"}


def test_concept_shift_shows_in_the_error_and_then_the_estimate_is_refused(world: World):
    world.ask(MAY.start, concept=1.0)
    may = world.report(MAY)
    assert "does not hold on the newest mature predictions" in estimate(may).refused  # May's outcomes are known already
    assert set(estimate(may).metrics.values()) == {None}
    assert not tolerance_check([may]).passed
    assert {str(gate.verdict) for gate in may.gates} == {"failed"}


def test_a_version_that_stopped_ranking_is_not_estimated_though_its_scores_are_right_on_average(world: World):
    world.ask(MAY.start, slope=0.2, concept=-0.57)
    told = estimate(world.report(MAY))
    assert told.calibration is not None
    assert told.slope is not None
    assert (told.calibration.verdict, told.slope.verdict) == (Verdict.PASSED, Verdict.FAILED)
    assert told.error is not None
    assert f"{told.slope.figures()}; {told.error.figures()}" in told.refused
    assert set(told.metrics.values()) == {None}


def test_answers_about_nobody_who_is_named_are_asked_whether_scores_still_mean_what_they_say(world: World):
    """Callers gave the features and told the outcome by the answer's id: each answer is about somebody of its own."""
    rng = np.random.default_rng(1)
    for number in range(N):
        world.home.log.append(
            prediction(
                number,
                at=MAY.start,
                entity_key=None,
                as_of=day("1997-04-05"),
                features_as_of=None,
                features=(0.0, 0.0),
                proba=float(expit(rng.normal(0, 2))),
                bundle_digest=world.digest,
                model_version=1,
            )
        )
        heard_of(world.home, number, rng.random() < 0.5, at=day("1997-05-06"))
    told = estimate(world.report(MAY))
    assert told.slope is not None
    assert (told.slope.verdict, told.slope.sample_size) == (Verdict.FAILED, N)
    assert told.slope.figures() in told.refused


def heard_of(home: Home, number: int, outcome: bool, *, at: datetime) -> None:
    """A caller says what became of an answer."""
    home.feedback.append(
        FeedbackFields(
            schema_version=1,
            prediction_id=str(number),
            outcome=float(outcome),
            reward=None,
            at=at,
            received_at=at,
            model=None,
            replica="one",
        )
    )


def test_too_few_mature_labels_refuse_no_estimate_though_none_is_positive(world: World):
    """Of 30 answers some 9 positives are expected; of 9 that none came is no interval, and 10 are asked."""
    world.ask(MAY.start, n=30, concept=-10)
    world.ask(day("1997-05-15"), labels=False)
    told = estimate(world.report(MAY))
    found = [gate.verdict for gate in (told.calibration, told.slope, told.error) if gate]
    assert (found, told.refused) == ([Verdict.INCONCLUSIVE] * 3, "")


def test_a_restated_window_is_reported_beside_the_first_report_which_stays(world: World):
    world.ask(MAY.start)
    first = world.report(MAY)
    world.ask(JUNE.start)
    with world.home.warehouse.connect() as connection:
        connection.execute(f"update {SPEC.labels} set label = 1 - label where user_id < '2' and as_of < '1997-06-01'")
    world.report(JUNE)
    told = world.home.monitoring.statements(SPEC.name, "1997-05")
    assert told[0] == first
    assert [(one.restatement, one.outcomes.restatement, one.outcomes.known_at) for one in told] == [
        (0, 0, MAY.end),
        (1, 1, JUNE.end),
    ]
    assert whole(told[1]).metrics != whole(first).metrics
    assert told[1].estimated == first.estimated
    assert [one.restatement for one in world.home.monitoring.newest(SPEC.name)] == [1, 0]


def test_a_period_that_is_run_again_is_reported_once(world: World):
    world.ask(MAY.start)
    assert world.report(MAY) == world.report(MAY)
    assert len(world.home.monitoring.statements(SPEC.name, "1997-05")) == 1


def test_a_window_that_lost_its_outcomes_keeps_its_report_and_is_not_reported_anew(world: World):
    world.ask(MAY.start)
    world.report(MAY)
    world.ask(JUNE.start)
    for file in (data_dir(world.home, SPEC) / GROUND_TRUTH).glob("1997-05*.json"):
        file.unlink()
    assert world.report(JUNE).period == "1997-06"
    assert len(world.home.monitoring.statements(SPEC.name, "1997-05")) == 1
    with pytest.raises(NotEnoughDataError, match=r"1997-05\.json is not there\. Run the period again"):
        live_performance(world.home, SPEC, [MAY])


def test_the_dagster_page_has_tables_and_plots(world: World):
    world.ask(MAY.start)
    world.ask(JUNE.start)
    report = world.report(MAY, JUNE)
    told = performance_metadata(report)
    assert "| 1 | all | 600 |" in told["versions"].value
    plots = history_metadata(world.home.monitoring.newest(SPEC.name))
    assert {"log_loss_plot", "calibration_plot", "coverage_plot", "estimate_accuracy"} == set(plots)
    accuracy = {one.metric: one for one in estimate_accuracy(report.estimate_errors)}
    assert accuracy[Metric.LOG_LOSS].mean_absolute_error < 0.05


def test_of_several_windows_a_check_shows_the_newest_that_failed():
    """A run may load a month of days: the last one must not hide the others."""
    windows = {"1997-05": Verdict.FAILED, "1997-06": Verdict.FAILED, "1997-07": Verdict.PASSED, "1997-08": None}
    reports = [
        drift_report(period=period, gates=(gate("score_drift", verdict),) if verdict else ())
        for period, verdict in windows.items()
    ]
    found = drift_check(reports)
    assert (found.passed, found.metadata["period"].text) == (False, "1997-06")
    assert drift_check(reports[2:3]).passed
    assert drift_check(reports[2:]).metadata["period"].text == "1997-08"
    example_of = PerformanceReport.model_validate(example("PerformanceReport"))
    told = [
        example_of.model_copy(update={"period": period, "gates": (gate("log_loss_within_tolerance", verdict),)})
        for period, verdict in windows.items()
        if verdict
    ]
    assert tolerance_check(told).metadata["period"].text == "1997-06"
