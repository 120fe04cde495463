"""A refused period shows in the UI as a red gate with its number, a failed step, and nothing materialised."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets_tests.faults.loop_home import NEWEST, PERIOD, RETRAIN, SPEC, LoopHome, copied, opened
from boucle.contracts.ids import PeriodKey
from boucle.features.contract import MAX_MISSING
from boucle_adapters import online_store
from boucle_adapters.landing_zone import landing_file, publish
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.loaded import loaded_periods
from boucle_platform.model_loop.steps.quarantine import quarantined_rows

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
APRIL = SPEC.history.export_period("orders", NEWEST)


@pytest.fixture
def loop(four_months: Path, tmp_path: Path) -> Iterator[LoopHome]:
    with opened(copied(four_months, tmp_path / "home")) as loop:
        yield loop


def refused(loop: LoopHome, asset: str, gate: str) -> dg.AssetCheckEvaluation:
    """The gate of an asset whose run was refused, as the UI reads it."""
    before, materialised = loop.period_result(), newest(loop, asset)
    assert not loop.run(PERIOD, partition=NEWEST, only=(asset,)).succeeded
    assert (loop.period_result(), newest(loop, asset)) == (before, materialised)
    key = dg.AssetCheckKey(key_of(SPEC, asset), gate)
    record = loop.runner.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    evaluation = record.event.dagster_event.asset_check_evaluation_data
    assert not evaluation.passed
    return evaluation


def newest(loop: LoopHome, asset: str) -> int:
    """Place of the newest materialisation of an asset in the event log."""
    wanted = dg.AssetRecordsFilter(asset_key=key_of(SPEC, asset), asset_partitions=[NEWEST])
    return loop.runner.instance.fetch_materializations(wanted, limit=1).records[0].storage_id


def land_again(loop: LoopHome, rows) -> None:
    publish(rows, landing_file(loop.runner.settings.landing_dir, SPEC.name, "orders", PeriodKey(NEWEST)))


def test_too_many_broken_rows_are_a_red_gate_with_their_share(loop: LoopHome):
    amounts = ["-1.00" if number % 10 == 0 else amount for number, amount in enumerate(APRIL["amount_usd"])]
    land_again(loop, APRIL.assign(amount_usd=amounts))
    gate = refused(loop, "raw_orders", "landing_accepted")
    assert gate.metadata["measured"].value == pytest.approx(0.1, abs=0.02)
    assert "at most 0.05 ratio of rows set aside" in gate.description
    shown = quarantined_rows(loop.home, SPEC, NEWEST)
    assert len(shown) == pytest.approx(len(APRIL) / 10, abs=10)
    assert shown["reason"].str.contains("amount_usd: not at least 0").sum() == amounts.count("-1.00")


def test_too_few_rows_are_a_red_gate_with_their_ratio(loop: LoopHome):
    land_again(loop, APRIL.head(30))
    gate = refused(loop, "raw_orders", "landing_accepted")
    assert gate.metadata["measured"].value < 0.02
    assert "at least 0.15 ratio of the median rows of earlier periods" in gate.description


def test_a_file_without_a_column_is_a_red_gate_that_names_it(loop: LoopHome):
    land_again(loop, APRIL.drop(columns="amount_usd"))
    gate = refused(loop, "raw_orders", "landing_accepted")
    assert "measured nothing" in gate.description
    assert "column 'amount_usd' is missing" in gate.description
    assert NEWEST in loaded_periods(loop.runner.instance, SPEC).stamps


@pytest.mark.parametrize(
    ("change", "gate", "measured"),
    [
        ("recency = -1", "contract", "contract: failed (measured 1 ratio of rows set aside"),
        ("event_time = as_of + interval 1 second", "no_feature_from_the_future", "failed (measured 2.357e+04 rows"),
        ("available_at = as_of + interval 1 second", "no_feature_from_the_future", "failed (measured 2.357e+04 rows"),
    ],
    ids=["out of range", "happened later", "known later"],
)
def test_features_that_must_not_be_are_a_red_gate_with_their_number(
    loop: LoopHome, change: str, gate: str, measured: str
):
    with loop.home.warehouse.connect() as connection:
        connection.execute(f"update {SPEC.features} set {change} where as_of = '1997-05-01'")
    key = dg.AssetCheckKey(key_of(SPEC, "validated_features"), gate)
    assert not loop.run(PERIOD, partition=NEWEST, only=("validated_features",)).succeeded
    record = loop.runner.instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    assert measured in record.event.dagster_event.asset_check_evaluation_data.description


def test_labels_whose_keys_are_numbers_end_the_training_with_what_to_do(loop: LoopHome):
    with loop.home.warehouse.connect() as connection:
        connection.execute(f"alter table {SPEC.labels} alter {SPEC.entity} type integer")
    outcome = loop.run(RETRAIN, only=("training_set",))
    assert f"The entity keys in {SPEC.labels}.{SPEC.entity} are int32, for example" in outcome.error


def test_a_feature_that_is_missing_too_often_is_a_red_gate_that_names_it(loop: LoopHome, monkeypatch):
    schema = SPEC.hook("schema").FEATURES
    column = schema.columns["mean_gap"]
    monkeypatch.setattr(column, "metadata", {**column.metadata, MAX_MISSING: 0.1})
    gate = refused(loop, "validated_features", "few_missing_values")
    assert gate.metadata["measured"].value > 0.4
    assert "Of mean_gap." in gate.description


def test_the_quarantine_says_how_many_rows_broke_which_rule(loop: LoopHome):
    land_again(loop, APRIL.assign(cds=["0", "0", *APRIL["cds"].iloc[2:]]))
    assert loop.run(PERIOD, partition=NEWEST, only=("raw_orders", "quarantine")).succeeded
    wanted = dg.AssetRecordsFilter(asset_key=key_of(SPEC, "quarantine"), asset_partitions=[NEWEST])
    record = loop.runner.instance.fetch_materializations(wanted, limit=1).records[0]
    metadata = record.asset_materialization.metadata
    assert metadata["dagster/row_count"].value == 2 + APRIL.duplicated().sum()
    assert "| orders | 1997-04 | 2 | cds: not at least 1 |" in metadata["by_rule"].value


def test_online_rows_that_differ_are_a_red_gate_with_their_number(loop: LoopHome, monkeypatch):
    write = online_store._write_arrays
    monkeypatch.setattr(online_store, "_write_arrays", lambda draft, rows: write(draft, (*rows[:2], rows[2] + 1)))
    gate = refused(loop, "online_features", "online_equals_offline")
    assert gate.metadata["measured"].value == 500
