"""Snapshots never change under their digest, and the current one is always whole."""

from datetime import timedelta

import pandas as pd
import pytest

from assets_tests.data.landing_world import month
from boucle.contracts.ids import Digest, ModelName, PeriodKey
from boucle.errors import NotEnoughDataError
from boucle_adapters.snapshots import REFUSED, SnapshotStore

MODEL = ModelName("repurchase")
APRIL = month("1997-04")
ROWS = pd.DataFrame(
    {"user_id": ["a", "b"], "as_of": pd.to_datetime(["1997-05-01"] * 2), "recency": [1, 2], "mean_gap": [None, 2.5]}
)


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path)


def write(store, rows=ROWS, *, period=APRIL, quarantined=0, later=timedelta(0)):
    return store.write(
        rows,
        model=MODEL,
        period=period,
        keys=("user_id", "as_of"),
        quarantined=quarantined,
        created_at=period.end + later,
    )


def test_a_snapshot_reads_back_as_it_was_written(store):
    manifest = write(store)
    pd.testing.assert_frame_equal(store.read(manifest), ROWS, check_dtype=False)
    assert store.current(MODEL, APRIL.key) == manifest
    assert manifest.file == f"data/repurchase/validated_features/1997-04/{manifest.content_digest}.parquet"


def test_some_columns_can_be_read_alone(store):
    assert list(store.read(write(store), ["recency"]).columns) == ["recency"]


def test_the_same_content_again_is_the_same_snapshot(store):
    first = write(store)
    written = (store.home / first.file).stat().st_mtime_ns
    assert write(store, ROWS.iloc[::-1], later=timedelta(days=1)) == first
    assert (store.home / first.file).stat().st_mtime_ns == written


def test_other_content_becomes_current_and_the_old_one_stays_readable(store):
    first = write(store)
    second = write(store, ROWS.head(1))
    assert store.current(MODEL, APRIL.key) == second
    assert len(store.read(store.by_digest(MODEL, APRIL.key, first.content_digest))) == 2


def test_going_back_to_earlier_content_makes_it_current_again(store):
    first = write(store)
    write(store, ROWS.head(1))
    assert write(store) == first
    assert store.current(MODEL, APRIL.key) == first


def test_another_count_of_set_aside_rows_is_kept(store):
    write(store)
    write(store, quarantined=3)
    assert store.current(MODEL, APRIL.key).quarantined == 3


def test_a_write_that_fails_leaves_the_current_snapshot(store, monkeypatch):
    first = write(store)

    def torn(self, path, **_):
        path.write_bytes(b"PAR1 half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", torn)
    with pytest.raises(OSError, match="disk full"):
        write(store, ROWS.head(1))
    assert store.current(MODEL, APRIL.key) == first
    names = {file.name for file in (store.home / first.file).parent.iterdir()}
    assert names == {f"{first.content_digest}.parquet", f"{first.content_digest}.json", "CURRENT"}


def test_periods_with_a_snapshot_are_listed_oldest_first(store):
    assert store.periods(MODEL) == ()
    write(store, period=month("1997-05"))
    write(store)
    assert store.periods(MODEL) == ("1997-04", "1997-05")


def test_no_snapshot_is_none_and_an_unknown_digest_an_error(store):
    assert store.current(MODEL, APRIL.key) is None
    with pytest.raises(NotEnoughDataError, match="no whole snapshot 000000000000"):
        store.by_digest(MODEL, APRIL.key, Digest("0" * 64))


def test_a_snapshot_whose_file_is_gone_says_what_to_do(store):
    manifest = write(store)
    (store.home / manifest.file).unlink()
    with pytest.raises(NotEnoughDataError, match="materialise validated_features of 1997-04 again"):
        store.read(manifest)


def test_the_quarantine_of_a_period_is_replaced_as_a_whole(store):
    period = PeriodKey("1997-04")
    rows = pd.DataFrame({"customer_id": ["a", "b"], "reason": ["x", "y"]})
    store.write_quarantine(rows, model=MODEL, source="orders", period=period)
    file = store.write_quarantine(rows.head(1), model=MODEL, source="orders", period=period)
    assert store.read_quarantine(MODEL, "orders", period)["reason"].tolist() == ["x"]
    assert file == store.home / "data/repurchase/quarantine/orders/1997-04.parquet"


def test_the_rows_of_a_refused_file_are_kept_beside_the_quarantine_until_a_good_file_is_loaded(store):
    place = {"model": MODEL, "source": "orders", "period": PeriodKey("1997-04")}
    loaded, refused = pd.DataFrame({"reason": ["x"]}), pd.DataFrame({"reason": ["y", "z"]})
    store.write_quarantine(loaded, **place)
    store.write_refused(refused, **place)
    assert store.read_quarantine(**place)["reason"].tolist() == ["x"]
    assert store.read_quarantine(**place, folder=REFUSED)["reason"].tolist() == ["y", "z"]
    store.write_quarantine(loaded, **place)
    assert store.read_quarantine(**place, folder=REFUSED).empty


def test_a_period_without_quarantine_has_an_empty_one(store):
    assert store.read_quarantine(MODEL, "orders", PeriodKey("1997-04")).empty
