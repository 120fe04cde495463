"""`feed` stands for the source system: it publishes a month and moves the home's clock on, never back."""

from datetime import timedelta
from pathlib import Path

import pytest

from assets_tests.data.landing_world import month
from boucle.errors import ConfigurationError
from boucle_adapters.clock import HomeClock
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.landing import feed, landed_files

SPEC = catalogue.spec_of("repurchase")
JANUARY, FEBRUARY = "1997-01", "1997-02"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Settings(home=tmp_path))


def stands_at_the_end_of(home: Home, period: str) -> bool:
    """Whether the clock stands there; it goes on as seconds pass."""
    return timedelta(0) <= home.clock(SPEC.name).now() - month(period).end < MINUTE


def test_each_landed_month_moves_the_clock_to_its_end(home: Home):
    for period in (JANUARY, FEBRUARY):
        assert feed(home, SPEC)["period"] == period
        assert stands_at_the_end_of(home, period)


def test_an_earlier_month_that_lands_again_leaves_the_clock(home: Home):
    feed(home, SPEC)
    feed(home, SPEC)
    feed(home, SPEC, JANUARY)
    assert stands_at_the_end_of(home, FEBRUARY)


def test_an_earlier_month_leaves_the_clock_once_the_whole_history_has_landed(home: Home, monkeypatch):
    monkeypatch.setattr(SPEC.history, "published_periods", lambda: (JANUARY, FEBRUARY))
    feed(home, SPEC)
    feed(home, SPEC)
    feed(home, SPEC, JANUARY)
    assert stands_at_the_end_of(home, FEBRUARY)


def test_killed_between_file_and_clock_feeding_the_month_again_moves_the_clock(home: Home, monkeypatch):
    feed(home, SPEC)
    with monkeypatch.context() as killed:
        killed.setattr(HomeClock, "set", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            feed(home, SPEC)
    assert set(landed_files(home, SPEC)) == {JANUARY, FEBRUARY}
    assert stands_at_the_end_of(home, JANUARY)
    feed(home, SPEC, FEBRUARY)
    assert stands_at_the_end_of(home, FEBRUARY)


def test_a_month_cannot_land_before_an_earlier_one(home: Home):
    with pytest.raises(ConfigurationError, match="1997-02 cannot land before 1997-01"):
        feed(home, SPEC, FEBRUARY)
    assert landed_files(home, SPEC) == {}
    assert not home.clock(SPEC.name).is_simulated
