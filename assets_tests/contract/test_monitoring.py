"""GET /models/{model}/monitoring: what the platform wrote, and nothing that it did not."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_documents import example
from assets_tests.contract.test_http import WEIGHTS_1, World
from boucle.contracts.performance import PerformanceReport
from boucle_adapters.monitoring_files import MonitoringFiles


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def wrote(world: World, **changes: object) -> PerformanceReport:
    report = PerformanceReport.model_validate(example("PerformanceReport")).model_copy(update=changes)
    MonitoringFiles(world.root / "data").write(report)
    return report


def test_before_the_first_report_there_is_no_window_and_no_page(world: World):
    answer = world.http.get(f"/models/{MODEL}/monitoring")
    assert (answer.status_code, answer.json()["windows"]) == (200, [])
    page = world.http.get(f"/models/{MODEL}/monitoring.html")
    assert page.status_code == 404
    assert page.headers["content-type"] == "application/problem+json"
    assert "materialise its drift_report" in page.json()["detail"]


def test_the_newest_report_of_each_window_is_told_oldest_first(world: World):
    first = wrote(world)
    again = wrote(world, restatement=1)
    later = wrote(
        world, period="1997-06", window_start=first.window_end, window_end=first.window_end + timedelta(days=30)
    )
    told = world.http.get(f"/models/{MODEL}/monitoring", params={"slices": True}).json()
    assert [PerformanceReport.model_validate(one["performance"]) for one in told["windows"]] == [again, later]
    assert [one["drift"] for one in told["windows"]] == [None, None]
    assert {one["metric"] for one in told["estimate_accuracy"]} == {error.metric for error in first.estimate_errors}
    last = world.http.get(f"/models/{MODEL}/monitoring", params={"last": 1}).json()
    assert [one["performance"]["period"] for one in last["windows"]] == ["1997-06"]


def test_slices_are_told_if_they_are_asked_for(world: World):
    report = wrote(world)
    assert any(row.slice for row in report.realised)
    told = world.http.get(f"/models/{MODEL}/monitoring").json()["windows"][0]["performance"]
    assert {row["slice"] for row in told["realised"]} == {None}


def test_drift_of_the_same_window_is_told_beside(world: World):
    report = wrote(world)
    file = world.root / "data" / "documents" / MODEL / "drift_report" / f"{report.period}.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(example("DriftReport") | {"period": report.period}))
    told = world.http.get(f"/models/{MODEL}/monitoring").json()["windows"][0]["drift"]
    assert (told["period"], len(told["gates"])) == (report.period, len(example("DriftReport")["gates"]))


def test_a_report_that_cannot_be_read_hides_no_other(world: World):
    wrote(world)
    (world.root / "data" / MODEL / "live_performance" / "1997-07.json").write_text("{")
    assert len(world.http.get(f"/models/{MODEL}/monitoring").json()["windows"]) == 1


def test_the_page_is_answered_as_it_was_drawn_and_may_load_nothing(world: World):
    file = MonitoringFiles(world.root / "data").page(MODEL)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("<!doctype html><title>seen</title>")
    page = world.http.get(f"/models/{MODEL}/monitoring.html")
    assert (page.status_code, page.text) == (200, "<!doctype html><title>seen</title>")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]


@pytest.mark.parametrize("query", [{"last": 0}, {"last": 1001}, {"slices": "perhaps"}])
def test_a_malformed_question_names_the_field(world: World, query: dict):
    answer = world.http.get(f"/models/{MODEL}/monitoring", params=query)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == list(query)


@pytest.mark.parametrize("path", ["monitoring", "monitoring.html"])
def test_a_model_that_is_not_served_has_none(world: World, path: str):
    assert world.http.get(f"/models/churn/{path}").status_code == 404
