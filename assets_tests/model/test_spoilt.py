"""Bundles that the demo spoils: each passes its warm-up, and is wrong on what callers ask in its own way."""

from pathlib import Path

import numpy as np
import pytest

from assets_tests.bundles import MODEL, put_bundle
from boucle.contracts.ids import Digest
from boucle.errors import ConfigurationError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_cli.demo.spoilt import Fault, Rows, spoilt_bundle
from boucle_serving.bundles import LoadedBundle, load_bundle


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Settings(home=tmp_path))


@pytest.fixture
def sound(home: Home) -> Digest:
    return put_bundle(home.bundles, home.settings.home / "scratch", weights=(0.3, -0.1))


@pytest.fixture
def asked() -> Rows:
    """The orders vary more than the days, and the recorded request has fewer than most."""
    rng = np.random.default_rng(7)
    return np.column_stack([rng.uniform(0.5, 9, 400), rng.uniform(1, 4, 400)])


def loaded(home: Home, digest: Digest) -> LoadedBundle:
    """As serving loads it: verified, and held to its recorded requests."""
    return load_bundle(home.bundles.read(digest), digest)


def scores(home: Home, digest: Digest, rows: Rows) -> Rows:
    return np.array(loaded(home, digest).scores(rows.tolist()))


def test_a_shift_is_half_a_standard_deviation_upwards(home: Home, sound: Digest, asked: Rows):
    right = scores(home, sound, asked)
    wrong = scores(home, spoilt_bundle(home, MODEL, sound, Fault.SHIFTED, asked=asked), asked)
    assert wrong == pytest.approx(np.clip(right + right.std() / 2, 0.001, 0.999))


def test_worse_has_the_same_mean_and_spread_for_the_wrong_ones(home: Home, sound: Digest, asked: Rows):
    right = scores(home, sound, asked)
    wrong = scores(home, spoilt_bundle(home, MODEL, sound, Fault.WORSE, asked=asked), asked)
    assert wrong.mean() == pytest.approx(right.mean(), abs=0.02)
    assert np.corrcoef(right, wrong)[0, 1] < -0.95


def test_constant_answers_everybody_alike(home: Home, sound: Digest, asked: Rows):
    wrong = scores(home, spoilt_bundle(home, MODEL, sound, Fault.CONSTANT, asked=asked), asked)
    assert wrong == pytest.approx(np.full(len(asked), scores(home, sound, asked).mean()))


def test_crashing_fails_for_half_of_what_is_asked_and_answers_the_rest_as_before(
    home: Home, sound: Digest, asked: Rows
):
    crashing = loaded(home, spoilt_bundle(home, MODEL, sound, Fault.CRASHING, asked=asked))
    many = asked[:, 0] > np.median(asked[:, 0])
    assert crashing.scores(asked[~many].tolist()) == pytest.approx(scores(home, sound, asked[~many]))
    for row in asked[many][:20].tolist():
        with pytest.raises(Exception, match="indices element out of data bounds"):
            crashing.scores([row])


def test_slow_answers_as_before(home: Home, sound: Digest, asked: Rows):
    slow = spoilt_bundle(home, MODEL, sound, Fault.SLOW, asked=asked)
    assert slow != sound
    assert scores(home, slow, asked) == pytest.approx(scores(home, sound, asked))


def test_what_would_not_pass_its_warm_up_is_not_made(home: Home, sound: Digest, asked: Rows):
    with pytest.raises(ConfigurationError, match="would not pass its warm-up"):
        spoilt_bundle(home, MODEL, sound, Fault.CRASHING, asked=asked - 9)
