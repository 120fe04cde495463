"""A candidate's bundle in a real serving process: what holds is no violation, and what does not is named."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
import pytest

from assets_tests.shop import CONTRACT, fitted, shop
from boucle.contracts.bundle import BundleContract
from boucle.contracts.ids import Digest, ModelVersion
from boucle.training.bundle import bundle_files
from boucle_adapters import serving_trial
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.serving_trial import try_bundle

pytestmark = pytest.mark.integration

AS_OF = datetime(1997, 6, 1, tzinfo=UTC)
ENTITIES = [str(key) for key in np.asarray(shop().holdout.entities)]


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, Digest]:
    """A bundle of the shop as the bundle store holds it."""
    return put(tmp_path)


def put(folder: Path, contract: BundleContract = CONTRACT) -> tuple[Path, Digest]:
    source = folder / "made"
    source.mkdir()
    for name, content in bundle_files(fitted(), contract, rows=shop().holdout.features, entities=ENTITIES).items():
        (source / name).write_bytes(content)
    store = DirectoryBundleStore(folder / "bundles")
    digest = store.put(source, contract.model)
    return store.fetch(digest), digest


def test_the_recorded_requests_are_answered_as_the_estimator_does(stored):
    bundle, digest = stored
    found = try_bundle(bundle, digest=digest, version=ModelVersion(3), as_of=AS_OF)
    assert found.violations == ()
    assert found.timed == 310  # 31 of 32 recorded requests, ten times; of one entity there are no features
    assert found.p99_ms > 0
    assert not any("boucle-trial-" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True))


def test_a_bundle_that_is_not_what_its_digest_says_is_not_loaded(stored, monkeypatch):
    bundle, _ = stored
    monkeypatch.setattr(serving_trial, "START_TIMEOUT_SECONDS", 8)
    found = try_bundle(bundle, digest=Digest("f" * 64), version=ModelVersion(3), as_of=AS_OF)
    assert [words for words in found.violations if "not ready within 8 s" in words and "f" * 12 in words]
    assert (found.timed, found.p99_ms) == (0, None)


def test_a_key_that_requests_may_not_send_is_a_violation(tmp_path: Path):
    """The recorded entities are `u4000`; the contract promises callers keys of digits."""
    digits = CONTRACT.model_copy(update={"key": CONTRACT.key.model_copy(update={"pattern": "^[0-9]+$"})})
    bundle, digest = put(tmp_path, digits)
    found = try_bundle(bundle, digest=digest, version=ModelVersion(3), as_of=AS_OF)
    assert any("got status 422" in words for words in found.violations)


def test_an_answer_other_than_the_estimator_s_is_named(stored, monkeypatch):
    bundle, digest = stored
    asked = serving_trial._Trial._recorded
    monkeypatch.setattr(
        serving_trial._Trial,
        "_recorded",
        lambda trial, connection, request: asked(
            trial, connection, request.model_copy(update={"expected": request.expected + 1e-6})
        ),
    )
    found = try_bundle(bundle, digest=digest, version=ModelVersion(3), as_of=AS_OF)
    assert len(found.violations) == 31
    assert "the estimator says" in found.violations[0]


def test_a_serving_app_that_does_not_start_is_a_violation_with_its_last_words(stored, monkeypatch):
    bundle, digest = stored
    monkeypatch.setattr(serving_trial.sys, "executable", "/bin/false")
    found = try_bundle(bundle, digest=digest, version=ModelVersion(3), as_of=AS_OF)
    assert found == replace(found, violations=("the serving app did not start: it said nothing",), requests=1, timed=0)
