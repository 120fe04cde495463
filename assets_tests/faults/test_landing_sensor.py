"""The landing sensor over the real loop: ticked as `boucle demo` does, then as a daemon that knows nothing."""

from collections.abc import Iterator

import dagster as dg
import pytest

from assets_tests.faults.loop_home import LOADED, PERIOD, SPEC, LoopHome, opened
from boucle_adapters.landing_zone import landing_file, publish
from boucle_platform.model_loop.steps.store import document_file
from boucle_platform.resources.home import HomeResource

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
JANUARY, FEBRUARY = LOADED[:2]
SENSOR = "repurchase_landing"


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopHome]:
    """January and February, each landed and then loaded as the sensor requested it."""
    with opened(tmp_path_factory.mktemp("sensor") / "home") as loop:
        for period in (JANUARY, FEBRUARY):
            loop.land(period)
            assert requested_and_run(loop) == [period]
        yield loop


def requested_and_run(loop: LoopHome) -> list[str]:
    """Periods of the runs that one tick requested; they have to end well."""
    with loop.runner.tick(SENSOR) as requests:
        for request in requests:
            outcome = loop.runner.run_requested(PERIOD, request)
            assert outcome.succeeded, outcome.error
    return [request.partition_key for request in requests]


def seen_by_a_daemon(loop: LoopHome) -> dg.SkipReason | None:
    """Why an evaluation with an empty cursor requests nothing."""
    with dg.build_sensor_context(
        instance=loop.runner.instance,
        sensor_name=SENSOR,
        resources={"home": HomeResource.of(loop.runner.settings)},
        definitions=loop.runner.definitions,
    ) as context:
        return loop.runner.definitions.resolve_sensor_def(SENSOR).evaluate_tick(context).skip_message


def test_a_daemon_requests_nothing_of_a_history_that_was_replayed(loop: LoopHome):
    assert "Everything that has landed is loaded (2 periods)" in seen_by_a_daemon(loop)


def test_runs_of_a_tick_carry_what_the_daemon_looks_for(loop: LoopHome):
    runs = loop.runner.instance.get_runs(dg.RunsFilter(tags={"dagster/sensor_name": SENSOR}))
    keys = [run.tags["dagster/run_key"] for run in runs]
    assert [key.rsplit("/", 1)[0] for key in keys] == ["repurchase/1997-02", "repurchase/1997-01"]


def test_a_corrected_january_rebuilds_both_months_and_leaves_their_drift_reports(loop: LoopHome):
    reports = {month: document_file(loop.home, SPEC, "drift_report", month) for month in (JANUARY, FEBRUARY)}
    before = {month: file.stat().st_mtime_ns for month, file in reports.items()}
    as_it_was = {month: loop.period_result(month) for month in reports}
    rows = SPEC.history.export_period("orders", JANUARY)
    publish(rows.iloc[:-5], landing_file(loop.runner.settings.landing_dir, SPEC.name, "orders", JANUARY))
    assert [requested_and_run(loop) for _ in range(3)] == [[JANUARY], [FEBRUARY], []]
    assert {month: file.stat().st_mtime_ns for month, file in reports.items()} == before
    for month in reports:
        result = loop.period_result(month)
        assert result["features"] != as_it_was[month]["features"]
        assert result["drift"] == as_it_was[month]["drift"]
