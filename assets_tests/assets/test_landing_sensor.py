"""When the landing sensor requests a period: what has landed against what the event log says is loaded."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from boucle.contracts.ids import Digest, PeriodKey
from boucle.features.arrivals import landing_stamp
from boucle_adapters.home import Home
from boucle_adapters.landing_zone import checksum_file, landing_file, publish
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import automation, catalogue
from boucle_platform.model_loop.automation import LANDING_TAG, landing_sensor
from boucle_platform.model_loop.component import partitions_of
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.loaded import STAMP, loaded_periods
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.landing import landed_files
from boucle_platform.resources.home import HomeResource

SPEC = catalogue.spec_of("repurchase")
APRIL, MAY, JUNE = (PeriodKey(key) for key in ("1997-04", "1997-05", "1997-06"))
DATA = [key_of(SPEC, name) for name in ("raw_orders", "validated_features", "online_features")]
SUCCESS, FAILURE, STARTED = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED


@dg.op
def nothing() -> None: ...


@dg.job(name="repurchase_period")
def PERIOD() -> None:  # noqa: N802 - a job is a value
    nothing()


@dg.asset(key=key_of(SPEC, "raw_orders"))
def raw() -> None: ...


@dg.asset(key=key_of(SPEC, "landing"))
def landing() -> None: ...


class World:
    """A home, an instance, and the sensor."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = Settings(home=path), instance
        self.cursor: str | None = None

    def file(self, period: PeriodKey) -> Path:
        return landing_file(self.settings.landing_dir, SPEC.name, "orders", period)

    def land(self, period: PeriodKey, content: str = "as it was") -> None:
        """Publish a file."""
        publish(pd.DataFrame({"content": [content]}), self.file(period))

    def materialise(self, asset: str, period: PeriodKey, **metadata: str) -> None:
        """What a run of any kind leaves in the event log."""
        self.instance.report_runless_asset_event(
            dg.AssetMaterialization(asset_key=key_of(SPEC, asset), partition=period, metadata=metadata)
        )

    def load(self, period: PeriodKey, before: str = "") -> str:
        """Materialise the raw asset from what has landed; return the stamp."""
        stamp = landing_stamp(before, landed_files(Home(self.settings), SPEC)[period])
        self.materialise("raw_orders", period, **{STAMP: stamp})
        return stamp

    def finish(self, period: PeriodKey, before: str = "") -> str:
        """Everything that the period job materialises."""
        stamp = self.load(period, before)
        self.materialise("online_features", period)
        self.materialise("drift_report", period)
        return stamp

    def tick(self, spec: LoopSpec = SPEC) -> dg.RunRequest | dg.SkipReason:
        """Evaluate the sensor as the daemon does, with the cursor that the tick before left."""
        with dg.build_sensor_context(
            instance=self.instance,
            sensor_name="repurchase_landing",
            resources={"home": HomeResource.of(self.settings)},
            cursor=self.cursor,
        ) as context:
            answer = landing_sensor(spec, DATA, partitions_of(spec))(context)
        if isinstance(answer, dg.SkipReason):
            return answer
        self.cursor = answer.cursor or self.cursor
        return answer.skip_reason or answer.run_requests[0]

    def request(self, spec: LoopSpec = SPEC) -> dg.RunRequest:
        """What one tick requests."""
        request = self.tick(spec)
        assert isinstance(request, dg.RunRequest), request.skip_message
        return request

    def skipped(self) -> str:
        """Why one tick requests nothing."""
        answer = self.tick()
        assert isinstance(answer, dg.SkipReason), answer
        return answer.skip_message

    def run(self, status: dg.DagsterRunStatus, request: dg.RunRequest) -> str:
        """The run of a request, in some status."""
        tags = {**request.tags, **({"dagster/partition": request.partition_key} if request.partition_key else {})}
        return self.instance.create_run_for_job(PERIOD, tags=tags, status=status).run_id


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield World(tmp_path / "home", instance)


def test_without_a_file_nothing_is_requested(world: World):
    assert "0 periods" in world.skipped()


def test_the_oldest_landed_period_is_requested_with_its_content_in_the_key(world: World):
    world.land(MAY)
    world.land(APRIL)
    request = world.request()
    assert (request.partition_key, request.asset_selection) == (APRIL, None)
    assert request.run_key == f"repurchase/1997-04/{request.tags[LANDING_TAG]}"


@pytest.mark.parametrize("name", ["1997-04 (copy)", "1998-07", "notes"])
def test_a_file_that_is_no_period_of_the_model_is_named_and_holds_nothing_up(world: World, name: str):
    world.land(PeriodKey(name))
    assert f"no period of 'repurchase' that is over: {name}.csv" in world.skipped()
    world.land(APRIL)
    assert world.request().partition_key == APRIL


def test_a_checksum_that_comes_later_than_its_file_changes_nothing(world: World):
    world.land(APRIL)
    whole = world.request().run_key
    checksum_file(world.file(APRIL)).unlink()
    assert world.request().run_key == whole


def test_a_period_that_somebody_materialised_by_hand_counts_as_loaded(world: World):
    world.land(APRIL)
    world.finish(APRIL)
    assert "1 periods" in world.skipped()
    world.land(MAY)
    assert world.request().partition_key == MAY


@pytest.mark.parametrize("made", [(), ("online_features",), ("drift_report",)], ids=["raw", "features", "monitoring"])
def test_a_period_that_is_loaded_only_in_part_is_requested(world: World, made: tuple[str, ...]):
    world.land(APRIL)
    world.load(APRIL)
    for asset in made:
        world.materialise(asset, APRIL)
    assert world.request().partition_key == APRIL


def test_rows_loaded_again_after_the_features_were_made_are_requested(world: World):
    world.land(APRIL)
    world.finish(APRIL)
    world.load(APRIL)
    assert world.request().partition_key == APRIL


def test_while_nothing_lands_and_nothing_is_logged_a_tick_reads_no_history(world: World, monkeypatch):
    world.land(APRIL)
    world.finish(APRIL)
    assert "Everything that has landed is loaded" in world.skipped()

    def read(*_: object) -> None:
        raise AssertionError("the event log was read")

    with monkeypatch.context() as patched:
        patched.setattr(automation, "loaded_periods", read)
        assert "Nothing has landed since all was loaded" in world.skipped()
    world.load(APRIL)
    assert world.request().partition_key == APRIL


@pytest.mark.parametrize("cursor", ["", "rubbish", "0/0/0"])
def test_a_lost_or_foreign_cursor_loses_nothing(world: World, cursor: str):
    world.land(APRIL)
    world.cursor = cursor
    assert world.request().partition_key == APRIL


def test_a_file_rewritten_with_the_same_bytes_is_not_requested_again(world: World):
    world.land(APRIL)
    world.finish(APRIL)
    world.skipped()
    world.land(APRIL)
    assert "Nothing has landed since all was loaded" in world.skipped()


def test_a_failed_period_holds_the_later_ones_back_and_says_what_to_do(world: World):
    world.land(APRIL)
    world.land(MAY)
    failed = world.run(FAILURE, world.request())
    for words in ("1997-04", failed[:8], "Execute it again", "land a corrected file"):
        assert words in world.skipped()


def test_a_corrected_file_of_a_failed_period_is_requested(world: World):
    world.land(APRIL, "broken")
    first = world.request()
    world.run(FAILURE, first)
    world.land(APRIL)
    assert world.request().partition_key == APRIL
    assert world.request().run_key != first.run_key


def test_a_failed_period_that_was_executed_again_from_the_ui_lets_the_later_ones_go_on(world: World):
    world.land(APRIL)
    world.land(MAY)
    request = world.request()
    world.run(FAILURE, request)
    world.run(SUCCESS, request)
    world.finish(APRIL)
    assert world.request().partition_key == MAY


def test_a_run_that_dagster_is_about_to_start_again_is_waited_for(world: World):
    world.land(APRIL)
    request = world.request().with_replaced_attrs(tags={**world.request().tags, "dagster/will_retry": "true"})
    world.run(FAILURE, request)
    assert "about to start it again" in world.skipped()


def test_while_the_period_job_runs_nothing_is_requested(world: World):
    world.land(APRIL)
    assert world.run(STARTED, world.request())[:8] in world.skipped()


@pytest.mark.parametrize(("asset", "waits"), [(raw, True), (landing, False)], ids=["raw rows", "landing"])
def test_while_a_person_materialises_rows_nothing_is_requested(world: World, asset, waits: bool):
    world.land(APRIL)
    job = dg.Definitions(assets=[asset]).resolve_implicit_global_asset_job_def()
    world.instance.create_run_for_job(job, status=STARTED, asset_selection=frozenset(asset.keys))
    assert isinstance(world.tick(), dg.SkipReason) is waits


def test_a_corrected_file_rebuilds_the_data_of_its_period_and_of_every_later_one_but_no_monitoring(world: World):
    before = ""
    for period in (APRIL, MAY, JUNE):
        world.land(period)
        before = world.finish(period, before)
    world.land(MAY, "corrected")
    rebuilt = []
    for _ in range(2):
        request = world.request()
        assert request.asset_selection == DATA
        rebuilt.append(request.partition_key)
        period = PeriodKey(request.partition_key)
        world.load(period, loaded_periods(world.instance, SPEC).stamps[APRIL if period == MAY else MAY])
        world.materialise("online_features", period)
    assert rebuilt == [MAY, JUNE]
    assert "3 periods" in world.skipped()


def test_content_that_comes_back_is_requested_under_a_key_of_its_own(world: World):
    world.land(APRIL)
    first = world.request()
    world.run(SUCCESS, first)
    world.finish(APRIL)
    world.land(APRIL, "corrected")
    world.run(SUCCESS, world.request())
    world.finish(APRIL)
    world.land(APRIL)
    again = world.request()
    assert again.tags[LANDING_TAG] == first.tags[LANDING_TAG]
    assert again.run_key != first.run_key


TOGETHER = SPEC.model_copy(update={"periods_per_run": 3})
JULY = PeriodKey("1997-07")


def periods_of(request: dg.RunRequest) -> tuple[str, str]:
    """The first and the last period of a request."""
    if request.partition_key:
        return request.partition_key, request.partition_key
    return request.tags["dagster/asset_partition_range_start"], request.tags["dagster/asset_partition_range_end"]


def test_landed_periods_that_wait_are_requested_together_up_to_the_limit(world: World):
    for period in (APRIL, MAY, JUNE, JULY):
        world.land(period)
    assert periods_of(world.request(TOGETHER)) == (APRIL, JUNE)


def test_a_gap_ends_what_is_requested_together(world: World):
    for period in (APRIL, MAY, JULY):
        world.land(period)
    assert periods_of(world.request(TOGETHER)) == (APRIL, MAY)


def test_periods_that_were_monitored_are_not_requested_together_with_new_ones(world: World):
    world.land(APRIL)
    world.finish(APRIL)
    world.land(APRIL, "corrected")
    world.land(MAY)
    request = world.request(TOGETHER)
    assert (periods_of(request), request.asset_selection) == ((APRIL, APRIL), DATA)


@pytest.mark.parametrize("status", [FAILURE, dg.DagsterRunStatus.CANCELED])
def test_where_a_run_of_several_failed_its_periods_are_requested_one_by_one(world: World, status: dg.DagsterRunStatus):
    for period in (APRIL, MAY, JUNE):
        world.land(period)
    world.run(status, world.request(TOGETHER))
    assert periods_of(world.request(TOGETHER)) == (APRIL, APRIL)
    before = world.finish(APRIL)
    alone = world.request(TOGETHER)
    assert periods_of(alone) == (MAY, MAY)
    failed = world.run(FAILURE, alone)
    assert failed[:8] in world.tick(TOGETHER).skip_message
    world.land(MAY, "corrected")
    assert periods_of(world.request(TOGETHER)) == (MAY, MAY)
    before = world.finish(MAY, before)
    assert periods_of(world.request(TOGETHER)) == (JUNE, JUNE)


TWO_SOURCES = SPEC.model_copy()
vars(TWO_SOURCES)["sources"] = {
    **SPEC.sources,
    "weather": replace(SPEC.source("orders"), name="weather", required=False),
}


def test_a_period_waits_for_the_files_it_requires_and_for_no_other(world: World):
    home = Home(world.settings)
    publish(pd.DataFrame({"content": ["rain"]}), landing_file(world.settings.landing_dir, SPEC.name, "weather", APRIL))
    assert landed_files(home, TWO_SOURCES) == {}
    world.land(APRIL)
    world.land(MAY)
    assert set(landed_files(home, TWO_SOURCES)) == {APRIL, MAY}


def test_a_file_that_comes_later_than_its_period_was_loaded_is_loaded(world: World):
    world.land(APRIL)
    stamp = world.finish(APRIL)
    world.materialise("raw_weather", APRIL, **{STAMP: stamp})
    world.materialise("online_features", APRIL)
    assert isinstance(world.tick(TWO_SOURCES), dg.SkipReason)
    publish(pd.DataFrame({"content": ["rain"]}), landing_file(world.settings.landing_dir, SPEC.name, "weather", APRIL))
    assert periods_of(world.request(TWO_SOURCES)) == (APRIL, APRIL)


def test_a_source_that_somebody_loaded_alone_brings_the_whole_period(world: World):
    world.land(APRIL)
    stamp = world.finish(APRIL)
    world.materialise("raw_weather", APRIL, **{STAMP: stamp})
    world.materialise("online_features", APRIL)
    world.materialise("raw_weather", APRIL, **{STAMP: landing_stamp("", Digest("7" * 64))})
    assert periods_of(world.request(TWO_SOURCES)) == (APRIL, APRIL)
