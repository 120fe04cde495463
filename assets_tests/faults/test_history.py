"""A history is the same however it is built, and a correction changes what is served, not what was learnt from."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from assets_tests.faults.loop_home import LOADED, NEWEST, PERIOD, SPEC, LoopHome, copied, opened
from boucle.contracts.data import SnapshotManifest, TrainingManifest
from boucle.contracts.ids import Digest, PeriodKey
from boucle_adapters.landing_zone import landing_file, publish
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.snapshots import RESTATED, SnapshotStore
from boucle_platform.model_loop.spec import Level
from boucle_platform.model_loop.steps.store import document_file, write_document
from boucle_platform.model_loop.steps.training import assemble

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
MONTHS = (*LOADED, NEWEST)
FEBRUARY, APRIL = PeriodKey("1997-02"), PeriodKey(NEWEST)


def digests(loop: LoopHome) -> dict[str, str]:
    return {manifest.period: manifest.content_digest for manifest in SnapshotStore(loop.path).in_force(SPEC.name)}


def labels(loop: LoopHome) -> pd.DataFrame:
    return loop.home.warehouse.query(f"select * from {SPEC.labels} order by all")


def test_a_backfill_of_four_months_in_one_run_makes_what_four_runs_made(four_months: Path, tmp_path: Path):
    with opened(four_months) as one_by_one:
        expected, known = digests(one_by_one), labels(one_by_one)
        online = OnlineStore(one_by_one.path / "online" / SPEC.model)
        online.refresh()
    with opened(tmp_path / "home") as at_once:
        for month in MONTHS:
            at_once.land(month)
        outcome = at_once.runner.run(PERIOD, partition=MONTHS[0], through=MONTHS[-1])
        assert outcome.succeeded, outcome.error
        assert digests(at_once) == expected
        pd.testing.assert_frame_equal(labels(at_once), known)
        rebuilt = OnlineStore(at_once.path / "online" / SPEC.model)
        rebuilt.refresh()
        assert rebuilt.snapshot.manifest.content_digest == online.snapshot.manifest.content_digest


def test_building_a_range_again_changes_nothing(four_months: Path, copy_of: Callable[[Path], LoopHome]):
    loop = copy_of(four_months)
    before = digests(loop)
    outcome = loop.runner.run(PERIOD, partition=LOADED[1], through=NEWEST)
    assert outcome.succeeded, outcome.error
    assert digests(loop) == before


@dataclass(frozen=True)
class Corrected:
    """Four months; then February's file came again, without its first customers' orders."""

    loop: LoopHome
    before: dict[str, SnapshotManifest]
    learnt_from: TrainingManifest
    online_before: str


@pytest.fixture(scope="module")
def corrected(four_months: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corrected]:
    with opened(copied(four_months, tmp_path_factory.mktemp("corrected") / "home")) as loop:
        store = SnapshotStore(loop.path)
        before = {manifest.period: manifest for manifest in store.in_force(SPEC.name)}
        learnt_from, online = assemble(loop.home, SPEC), (loop.path / "online" / SPEC.model / "CURRENT").read_text()
        rows = SPEC.history.export_period("orders", FEBRUARY)
        publish(rows.iloc[200:], landing_file(loop.runner.settings.landing_dir, SPEC.name, "orders", FEBRUARY))
        for _ in MONTHS:
            with loop.runner.tick("repurchase_landing") as requests:
                for request in requests:
                    outcome = loop.runner.run_requested(PERIOD, request)
                    assert outcome.succeeded, outcome.error
        yield Corrected(loop, before, learnt_from, online)


def test_the_correction_is_a_second_version_and_the_first_one_stays(corrected: Corrected):
    rows, _ = corrected.loop.raw(FEBRUARY)
    assert len(rows) == 2
    assert rows[0] == rows[1] + 200


def test_no_earlier_training_row_changes(corrected: Corrected):
    in_force = {manifest.period: manifest for manifest in SnapshotStore(corrected.loop.path).in_force(SPEC.name)}
    assert in_force == corrected.before


def test_each_later_month_has_a_restated_snapshot_beside_the_one_that_was_learnt_from(corrected: Corrected):
    store = SnapshotStore(corrected.loop.path)
    assert store.current(SPEC.name, PeriodKey(LOADED[0]), pointer=RESTATED) is None
    for month in MONTHS[1:]:
        restated = store.current(SPEC.name, PeriodKey(month), pointer=RESTATED)
        assert restated is not None
        assert restated.content_digest != corrected.before[month].content_digest
        assert len(store.read(corrected.before[month])) == corrected.before[month].rows


def test_requests_are_answered_from_the_restated_rows(corrected: Corrected):
    online = corrected.loop.path / "online" / SPEC.model
    assert (online / "CURRENT").read_text() != corrected.online_before
    store = SnapshotStore(corrected.loop.path)
    restated = store.current(SPEC.name, APRIL, pointer=RESTATED)
    row = store.read(restated).iloc[0]
    served = OnlineStore(online)
    served.refresh()
    found = served.look_up(row["user_id"], SPEC.period(APRIL).end, max_age_days=1)
    assert found.values[:3] == row[["recency", "tenure", "freq"]].tolist()


def test_a_training_manifest_keeps_pointing_at_what_it_used(corrected: Corrected):
    manifest, store = corrected.learnt_from, SnapshotStore(corrected.loop.path)
    for month, digest in manifest.snapshots.items():
        assert store.by_digest(SPEC.name, month, digest).content_digest == digest
    features = corrected.loop.home.settings.home_dir / manifest.file
    assert len(pd.read_parquet(features)) == manifest.train_rows + manifest.holdout_rows


def test_the_next_training_set_holds_the_same_rows_where_no_label_was_corrected(corrected: Corrected):
    again = assemble(corrected.loop.home, SPEC)
    assert again.snapshots == corrected.learnt_from.snapshots
    keep = ["entity_key", "as_of", *again.feature_names]
    rows = [
        pd.read_parquet(corrected.loop.path / manifest.file)[keep].sort_values(keep[:2], ignore_index=True)
        for manifest in (corrected.learnt_from, again)
    ]
    pd.testing.assert_frame_equal(*rows)


def warm_from(corrected: Corrected, manifest: TrainingManifest) -> TrainingManifest:
    """The training set of now, as level 2 assembles it after one with this manifest."""
    write_document(document_file(corrected.loop.home, SPEC, "training_set"), manifest)
    return assemble(corrected.loop.home, SPEC.model_copy(update={"level": Level.STATEFUL}))


def test_a_warm_start_takes_over_periods_and_comes_to_the_same_rows(corrected: Corrected):
    cold = assemble(corrected.loop.home, SPEC.model_copy(update={"level": Level.MANUAL}))
    warm = warm_from(corrected, corrected.learnt_from)
    assert (cold.reused_periods, cold.started_from) == (0, None)
    assert (warm.reused_periods, warm.started_from) == (3, corrected.learnt_from.content_digest)
    assert warm.content_digest == cold.content_digest


def test_a_period_whose_snapshot_was_made_again_is_read_again(corrected: Corrected):
    month = min(corrected.learnt_from.snapshots)
    other = corrected.learnt_from.snapshots | {month: Digest("0" * 64)}
    warm = warm_from(corrected, corrected.learnt_from.model_copy(update={"snapshots": other}))
    assert warm.reused_periods == 2


def test_with_other_features_nothing_is_taken_over(corrected: Corrected):
    fewer = corrected.learnt_from.model_copy(update={"feature_names": corrected.learnt_from.feature_names[1:]})
    assert warm_from(corrected, fewer).reused_periods == 0
