"""The clock of a home: simulated where the home says so, and the same for every process of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from boucle_adapters import clock as clock_module
from boucle_adapters.clock import HomeClock, wall_now

MAY = datetime(1997, 5, 1, tzinfo=UTC)
JUNE = datetime(1997, 6, 1, tzinfo=UTC)


class Wall:
    """A present that moves only when told to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.moment

    def pass_seconds(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def simulated(moment: datetime, *, home: Path) -> HomeClock:
    """A clock that starts at `moment`."""
    clock = HomeClock(home / "clock.json")
    clock.set(moment)
    return clock


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(clock_module, "wall_now", wall)
    return wall


def test_a_home_without_a_clock_lives_in_the_present(tmp_path: Path):
    before = wall_now()
    assert before <= HomeClock(tmp_path / "clock.json").now() <= wall_now()


def test_simulated_time_goes_on_with_real_seconds(tmp_path: Path, wall: Wall):
    clock = simulated(MAY, home=tmp_path)
    assert clock.now() == MAY
    wall.pass_seconds(90)
    assert clock.now() == MAY + timedelta(seconds=90)


def test_a_clock_opened_later_tells_the_same_time(tmp_path: Path, wall: Wall):
    first = simulated(MAY, home=tmp_path)
    wall.pass_seconds(3_600)
    assert HomeClock(tmp_path / "clock.json").now() == first.now() == MAY + timedelta(hours=1)


def test_a_clock_that_is_open_sees_what_another_one_sets(tmp_path: Path, wall: Wall):
    reader = simulated(MAY, home=tmp_path)
    assert reader.now() == MAY
    HomeClock(tmp_path / "clock.json").set(JUNE)
    assert reader.now() == JUNE


def test_a_removed_clock_file_returns_the_home_to_the_present(tmp_path: Path, wall: Wall):
    clock = simulated(MAY, home=tmp_path)
    assert clock.now() == MAY
    (tmp_path / "clock.json").unlink()
    assert clock.now() == wall.moment


def test_setting_the_clock_leaves_no_draft_and_makes_the_home(tmp_path: Path):
    HomeClock(tmp_path / "new" / "clock.json").set(MAY)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["clock.json"]
