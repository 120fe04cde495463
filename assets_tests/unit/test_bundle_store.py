"""Bundles by digest: what does not fit its digest is not handed out."""

from pathlib import Path

import pytest

from assets_tests.bundles import MODEL, flip_last_byte, replace_in_json, write_bundle
from boucle.contracts.bundle import CONTRACT_FILE, MANIFEST_FILE, MODEL_FILE, WARMUP_FILE
from boucle.contracts.ids import Digest, ModelName
from boucle.errors import BundleError
from boucle_adapters.bundle_store import DirectoryBundleStore


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "source", weights=[0.1, -0.2])


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBundleStore:
    return DirectoryBundleStore(tmp_path / "bundles")


def test_a_stored_bundle_comes_back_byte_for_byte(store: DirectoryBundleStore, source: Path):
    fetched = store.fetch(store.put(source, MODEL))
    for name in (MODEL_FILE, CONTRACT_FILE, WARMUP_FILE):
        assert (fetched / name).read_bytes() == (source / name).read_bytes()


def test_storing_the_same_files_twice_is_one_bundle(store: DirectoryBundleStore, source: Path, tmp_path: Path):
    assert store.put(source, MODEL) == store.put(source, MODEL)
    assert len(list((tmp_path / "bundles").iterdir())) == 1


@pytest.mark.parametrize("name", [MODEL_FILE, CONTRACT_FILE, WARMUP_FILE])
def test_one_changed_byte_is_refused_and_the_error_names_file_and_both_digests(
    store: DirectoryBundleStore, source: Path, name: str
):
    digest = store.put(source, MODEL)
    flip_last_byte(store.fetch(digest) / name)
    with pytest.raises(
        BundleError, match=rf"{name} has SHA-256 [0-9a-f]{{64}}, expected [0-9a-f]{{64}}.*candidate_model"
    ):
        store.fetch(digest)


def test_a_changed_manifest_is_refused(store: DirectoryBundleStore, source: Path):
    digest = store.put(source, MODEL)
    replace_in_json(store.fetch(digest) / MANIFEST_FILE, model="another")
    with pytest.raises(BundleError, match=f"manifest.json has digest .* expected {digest}"):
        store.fetch(digest)


@pytest.mark.parametrize("name", [MODEL_FILE, MANIFEST_FILE])
def test_a_missing_file_is_named(store: DirectoryBundleStore, source: Path, name: str):
    digest = store.put(source, MODEL)
    (store.fetch(digest) / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read"):
        store.fetch(digest)


def test_storing_again_mends_a_damaged_copy(store: DirectoryBundleStore, source: Path):
    digest = store.put(source, MODEL)
    flip_last_byte(store.fetch(digest) / MODEL_FILE)
    assert store.put(source, MODEL) == digest
    assert store.fetch(digest).name == digest


def test_a_manifest_that_does_not_fit_its_files_is_not_stored(
    store: DirectoryBundleStore, source: Path, tmp_path: Path
):
    fetched = store.fetch(store.put(source, MODEL))
    (source / MANIFEST_FILE).write_bytes((fetched / MANIFEST_FILE).read_bytes())
    flip_last_byte(source / MODEL_FILE)
    with pytest.raises(BundleError, match=MODEL_FILE):
        store.put(source, MODEL)
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_a_manifest_of_another_model_is_not_stored(store: DirectoryBundleStore, source: Path):
    fetched = store.fetch(store.put(source, ModelName("another")))
    with pytest.raises(BundleError, match="is of model 'another'"):
        store.put(fetched, MODEL)


def test_a_folder_without_a_model_is_no_bundle(store: DirectoryBundleStore, source: Path):
    (source / MODEL_FILE).unlink()
    with pytest.raises(BundleError, match=r"lacks model\.onnx"):
        store.put(source, MODEL)


@pytest.mark.parametrize("digest", ["", "../../etc", "0" * 64])
def test_an_unknown_digest_is_refused(store: DirectoryBundleStore, digest: str):
    with pytest.raises(BundleError):
        store.fetch(Digest(digest))
