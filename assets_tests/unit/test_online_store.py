"""Look-ups by (entity, as_of), against the slow and obvious way; snapshots that cannot be read."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets_tests.bundles import FEATURES, NOVEMBER, OCTOBER, flip_last_byte, publish_users
from boucle.contracts.ids import Digest, EntityKey
from boucle.contracts.online import CURRENT_FILE
from boucle.errors import AsOfError, DataContractError, FeatureLookupError, UnknownEntityError
from boucle_adapters.online_store import BeyondWatermarkError, OnlineStore, publish_snapshot

DAY = timedelta(days=1)
START = datetime(1997, 1, 1, tzinfo=UTC)
WATERMARK_DAY = 30
MAX_AGE_DAYS = 10
entities = st.sampled_from(["a", "b", "ab", "aa", "é", "z" * 30])
tables = st.dictionaries(st.tuples(entities, st.integers(0, WATERMARK_DAY)), st.floats(-5, 5), min_size=1, max_size=30)


def store_of(directory: Path) -> OnlineStore:
    store = OnlineStore(directory)
    store.refresh()
    return store


def by_hand(table: dict[tuple[str, int], float], entity: str, day: int) -> object:
    """The answer, or the class of the error, written as the contract reads."""
    if day > WATERMARK_DAY:
        return BeyondWatermarkError
    days = [row_day for name, row_day in table if name == entity]
    if not days:
        return UnknownEntityError
    known = [row_day for row_day in days if day - MAX_AGE_DAYS < row_day <= day]
    return (table[entity, max(known)], START + max(known) * DAY) if known else AsOfError


@given(table=tables, entity=entities, day=st.integers(-2, WATERMARK_DAY + 2))
def test_a_look_up_equals_the_slow_and_obvious_way(
    tmp_path_factory: pytest.TempPathFactory, table: dict[tuple[str, int], float], entity: str, day: int
):
    directory = tmp_path_factory.mktemp("online") / "repurchase"
    publish_snapshot(
        directory,
        entity_keys=[name for name, _ in table],
        as_of=[START + row_day * DAY for _, row_day in table],
        features=np.array(list(table.values())).reshape(-1, 1),
        feature_names=["value"],
        watermark=START + WATERMARK_DAY * DAY,
        source_digests=[],
    )
    try:
        row = store_of(directory).look_up(EntityKey(entity), START + day * DAY, max_age_days=MAX_AGE_DAYS)
        found: object = (row.values[0], row.as_of)
    except FeatureLookupError as error:
        found = type(error)
    assert found == by_hand(table, entity, day)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    publish_users(tmp_path / "repurchase")
    return tmp_path / "repurchase"


def test_the_newest_row_up_to_as_of_answers_and_says_what_it_is_of(users: Path):
    row = store_of(users).look_up(EntityKey("4"), OCTOBER + 30 * DAY, max_age_days=45)
    assert (list(row.values), row.as_of) == ([1.0, 10.0], OCTOBER)


def test_a_row_counts_at_its_own_moment(users: Path):
    assert store_of(users).look_up(EntityKey("4"), NOVEMBER, max_age_days=45).as_of == NOVEMBER


def test_a_row_as_old_as_the_limit_is_too_old(users: Path):
    store = store_of(users)
    with pytest.raises(AsOfError, match=r"are 30 days old .* younger than 30 days"):
        store.look_up(EntityKey("4"), OCTOBER + 30 * DAY, max_age_days=30)


def test_before_the_first_row_names_the_moment_of_the_first_row(users: Path):
    with pytest.raises(AsOfError, match="first row is of 1997-11-01"):
        store_of(users).look_up(EntityKey("7"), OCTOBER, max_age_days=45)


def test_beyond_the_watermark_names_the_watermark_and_what_to_do(users: Path):
    with pytest.raises(BeyondWatermarkError, match=r"after the watermark 1997-11-01.*online_features"):
        store_of(users).look_up(EntityKey("4"), NOVEMBER + timedelta(microseconds=1), max_age_days=45)


@pytest.mark.parametrize("key", ["5", "", "44", "4\0", "4" * 500])
def test_a_key_that_is_nobodys_is_unknown(users: Path, key: str):
    with pytest.raises(UnknownEntityError, match="not among the 2 entities"):
        store_of(users).look_up(EntityKey(key), NOVEMBER, max_age_days=45)


def test_a_new_snapshot_is_followed_and_the_old_files_go_once_two_newer_ones_are_there(users: Path):
    store = store_of(users)
    first = store.snapshot.digest
    for days in (1, 2):
        publish_users(users, watermark=NOVEMBER + days * DAY)
    assert store.refresh()
    assert store.snapshot.manifest.watermark == NOVEMBER + 2 * DAY
    assert not (users / first).exists()
    assert len([entry for entry in users.iterdir() if entry.is_dir()]) == 2


def test_a_reader_of_removed_files_still_answers(users: Path):
    store = store_of(users)
    for days in (1, 2):
        publish_users(users, watermark=NOVEMBER + days * DAY)
    assert store.look_up(EntityKey("4"), NOVEMBER, max_age_days=45).as_of == NOVEMBER


@pytest.mark.parametrize("name", ["entity_keys.npy", "as_of.npy", "features.npy", "manifest.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "removed"])
def test_a_damaged_snapshot_leaves_the_old_one_in_force(users: Path, name: str, damage: str):
    store = store_of(users)
    publish_users(users, watermark=NOVEMBER + DAY)
    file = users / (users / CURRENT_FILE).read_text() / name
    if damage == "changed":
        flip_last_byte(file)
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    else:
        file.unlink()
    assert not store.refresh()
    assert store.snapshot.manifest.watermark == NOVEMBER
    assert "the one before stays in force" in (store.problem or "")


def test_publishing_again_mends_a_damaged_snapshot(users: Path):
    flip_last_byte(users / (users / CURRENT_FILE).read_text() / "features.npy")
    store = store_of(users)
    assert store.problem
    publish_users(users)
    assert store.refresh()
    assert store.problem is None


def test_before_the_first_snapshot_the_error_says_what_to_materialise(tmp_path: Path):
    with pytest.raises(FeatureLookupError, match="Materialise `online_features`"):
        store_of(tmp_path / "nothing").look_up(EntityKey("4"), NOVEMBER, max_age_days=45)


@pytest.mark.parametrize(
    ("entity_keys", "as_of", "features", "says"),
    [
        ([], [], np.empty((0, 2)), "no row"),
        (["4", "4"], [OCTOBER, OCTOBER], np.ones((2, 2)), "'4' has two rows of 1997-10-01"),
        (["4"], [NOVEMBER + DAY], np.ones((1, 2)), "after the watermark"),
        (["4"], [OCTOBER], np.ones((1, 3)), "shape"),
        (["4", "7"], [OCTOBER], np.ones((1, 2)), "do not fit"),
    ],
)
def test_rows_that_make_no_snapshot_are_refused_and_the_one_in_force_stays(
    users: Path, entity_keys: list[str], as_of: list[datetime], features: np.ndarray, says: str
):
    before = (users / CURRENT_FILE).read_text()
    with pytest.raises(DataContractError, match=says):
        publish_snapshot(
            users,
            entity_keys=entity_keys,
            as_of=as_of,
            features=features,
            feature_names=FEATURES,
            watermark=NOVEMBER,
            source_digests=[Digest("0" * 64)],
        )
    assert (users / CURRENT_FILE).read_text() == before


def test_moments_may_be_given_as_numpy_dates(tmp_path: Path):
    publish_snapshot(
        tmp_path / "repurchase",
        entity_keys=["4"],
        as_of=np.array(["1997-10-01"], dtype="datetime64[D]"),
        features=np.array([[np.nan, 2.0]]),
        feature_names=FEATURES,
        watermark=NOVEMBER,
        source_digests=[],
    )
    assert store_of(tmp_path / "repurchase").look_up(EntityKey("4"), OCTOBER, max_age_days=1).as_of == OCTOBER
