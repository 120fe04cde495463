"""What is published for look-up: every snapshot in force, and only rows that look up as the snapshots say."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from assets_tests.data.landing_world import month
from boucle.contracts.ids import EntityKey
from boucle.contracts.online import OnlineManifest
from boucle.contracts.verdict import Verdict
from boucle.errors import NotEnoughDataError
from boucle_adapters import online_store
from boucle_adapters.home import Home
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.settings import Settings
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.features import FeaturesRefusedError, feature_names, publish_online

SPEC = catalogue.spec_of("repurchase")
MAY, JUNE, JULY = (month(key) for key in ("1997-05", "1997-06", "1997-07"))


class World:
    """A home with validated snapshots; every feature of a row has the row's value."""

    def __init__(self, path: Path) -> None:
        self.home = Home(Settings(home=path))
        self.online = OnlineStore(self.home.settings.online_dir / SPEC.model)

    def validated(self, period, value: float) -> None:
        """Put a snapshot of one customer in force."""
        row = {"user_id": ["00001"], "as_of": pd.to_datetime([period.end.replace(tzinfo=None)])}
        rows = pd.DataFrame(row | {name: [value] for name in feature_names(SPEC)})
        store = SnapshotStore(self.home.settings.home_dir)
        store.write(
            rows, model=SPEC.name, period=period, keys=["user_id", "as_of"], quarantined=0, created_at=period.end
        )

    def publish(self, period) -> OnlineManifest:
        """Publish as the asset of a period does."""
        return publish_online(self.home, SPEC, period)[0]

    def answer(self, period) -> float:
        """The first feature of the customer at the end of a period."""
        self.online.refresh()
        return self.online.look_up(EntityKey("00001"), period.end, max_age_days=31).values[0]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.validated(MAY, 5)
    made.validated(JUNE, 6)
    return made


def test_publishing_an_earlier_period_again_keeps_the_later_one_and_its_watermark(world: World):
    world.publish(JUNE)
    assert world.publish(MAY).watermark == JUNE.end
    assert (world.answer(MAY), world.answer(JUNE)) == (5, 6)


def test_an_earlier_period_that_was_corrected_is_what_is_looked_up(world: World):
    world.publish(JUNE)
    world.validated(MAY, 55)
    world.publish(MAY)
    assert (world.answer(MAY), world.answer(JUNE)) == (55, 6)


def test_rows_are_kept_as_long_as_the_retention_counted_from_the_newest_snapshot(world: World):
    march = month("1997-03")
    world.validated(march, 3)
    assert JUNE.end - march.end < timedelta(days=SPEC.online.retention_days)
    assert world.publish(march).oldest_as_of == march.end
    world.validated(JULY, 7)
    assert JULY.end - march.end > timedelta(days=SPEC.online.retention_days)
    assert world.publish(march).oldest_as_of == MAY.end


def test_a_period_without_a_snapshot_is_not_published(world: World):
    with pytest.raises(NotEnoughDataError, match="for 1997-07: materialise it first"):
        world.publish(JULY)


@pytest.mark.parametrize("first", [True, False], ids=["nothing in force", "June in force"])
def test_rows_that_look_up_differently_are_never_in_force(world: World, monkeypatch, first: bool):
    if not first:
        world.publish(JUNE)
    world.validated(JUNE, 66)
    write = online_store._write_arrays
    monkeypatch.setattr(online_store, "_write_arrays", lambda draft, rows: write(draft, (*rows[:2], rows[2] + 1)))
    with pytest.raises(FeaturesRefusedError, match="measured 2 rows that differ, at most 0") as refused:
        world.publish(JUNE)
    (gate,) = refused.value.gates
    assert (gate.verdict, gate.measured, gate.sample_size) == (Verdict.FAILED, 2, 2)
    folder = world.home.settings.online_dir / SPEC.model
    assert len(list(folder.iterdir())) == (0 if first else 2)
    assert first or world.answer(JUNE) == 6


def test_a_row_that_cannot_be_found_differs(world: World, monkeypatch):
    write = online_store._write_arrays
    monkeypatch.setattr(
        online_store,
        "_write_arrays",
        lambda draft, rows: write(draft, (np.array([b"00002"] * len(rows[0])), *rows[1:])),
    )
    with pytest.raises(FeaturesRefusedError, match="measured 2 rows that differ"):
        world.publish(JUNE)
