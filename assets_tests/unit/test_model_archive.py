"""An archive of a version: the same bytes every time, and nothing that was changed on the way is read."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets_tests.bundles import MODEL, write_bundle
from assets_tests.judging import scored, training_manifest
from boucle.contracts.archive import ARCHIVE_DIGEST_FILE, ARCHIVE_FILE, ArchiveManifest
from boucle.contracts.bundle import BundleManifest
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest, ModelVersion
from boucle.errors import ArchiveError
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.model_archive import ModelArchive, pack, unpack

TRAINING = training_manifest()
Files = dict[str, bytes]


def bundle(folder: Path) -> Path:
    store = DirectoryBundleStore(folder / "store")
    return store.fetch(store.put(write_bundle(folder / "source", weights=(0.5, -0.1)), MODEL))


def evidence(digest: Digest) -> Evidence:
    return Evidence(
        model=MODEL,
        version=ModelVersion(4),
        production_version=None,
        bundle_digest=digest,
        data_digest=TRAINING.content_digest,
        holdout_rows=10_000,
        holdout_positive_rate=0.08,
        candidate=scored(),
        production=None,
        baseline=scored(0.28),
        gates=(),
        run_id="a run of there",
        created_at=TRAINING.watermark,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What an archive of version 4 holds beside its own manifest."""
    made = bundle(tmp_path_factory.mktemp("archive"))
    found = {f"bundle/{file.name}": file.read_bytes() for file in made.iterdir()}
    of = evidence(Digest(made.name))
    return {**found, "training.json": TRAINING.canonical(), "evidence.json": of.canonical()}


def manifest(files: Files) -> ArchiveManifest:
    digest = BundleManifest.model_validate_json(files["bundle/manifest.json"]).digest()
    return ArchiveManifest(
        model=MODEL,
        version=ModelVersion(4),
        environment="staging",
        origin="version 4 of staging",
        bundle_digest=digest,
        data_digest=TRAINING.content_digest,
        evidence_digest=evidence(digest).digest(),
        git_commit="0123456789ab",
        source_digest="5" * 64,
        environment_digest="e" * 64,
        seed=7,
        files={},
    )


@pytest.fixture(scope="module")
def archive(files: Files) -> bytes:
    return pack(manifest(files), files)


def tar_of(members: list[tuple[str, bytes]], *, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A tar file with these members, the last one of this kind."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for place, (name, content) in enumerate(members, start=1):
            member = tarfile.TarInfo(name)
            member.type = kind if place == len(members) else tarfile.REGTYPE
            member.size, member.linkname = len(content), "/etc/passwd" if kind != tarfile.REGTYPE else ""
            tar.addfile(member, io.BytesIO(content))
    return target.getvalue()


def members_of(archive: bytes) -> list[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return [(member.name, tar.extractfile(member).read()) for member in tar]


def said_otherwise(archive: bytes, **changes: object) -> bytes:
    """The archive with other values in its manifest, and a digest that fits them."""
    members = dict(members_of(archive))
    said = json.dumps({**json.loads(members[ARCHIVE_FILE]), **changes}, sort_keys=True, separators=(",", ":")).encode()
    digest = f"{hashlib.sha256(said).hexdigest()}\n".encode()
    return tar_of(sorted({**members, ARCHIVE_FILE: said, ARCHIVE_DIGEST_FILE: digest}.items()))


def test_what_was_packed_is_read_again_as_values(archive: bytes, files: Files):
    found = unpack(archive)
    assert isinstance(found, ModelArchive)
    assert (found.manifest.version, found.manifest.origin) == (4, "version 4 of staging")
    assert (found.training, found.evidence.run_id) == (TRAINING, "a run of there")
    assert {f"bundle/{name}": content for name, content in found.bundle.items()}.items() <= files.items()
    assert found.contract.feature_names == ("orders", "recency_days")


def test_the_same_version_gives_the_same_bytes_in_whichever_order_its_files_come(archive: bytes, files: Files):
    assert pack(manifest(files), dict(reversed(files.items()))) == archive
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in tar} == {(0, 0, "", 0o644)}


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_one_changed_byte_anywhere_is_refused(archive: bytes, data: st.DataObject):
    place = data.draw(st.integers(0, len(archive) - 1), label="place")
    bit = data.draw(st.integers(0, 7), label="bit")
    damaged = bytearray(archive)
    damaged[place] ^= 1 << bit
    with pytest.raises(ArchiveError, match=r"Nothing was registered\.$"):
        unpack(bytes(damaged))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_one_changed_byte_of_any_member_is_refused(archive: bytes, data: st.DataObject):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        member = data.draw(st.sampled_from(tar.getmembers()), label="member")
    damaged = bytearray(archive)
    damaged[member.offset_data + data.draw(st.integers(0, member.size - 1), label="place")] ^= 1
    with pytest.raises(ArchiveError, match=r"SHA-256"):
        unpack(bytes(damaged))


def test_one_changed_byte_of_the_digest_itself_is_refused(archive: bytes):
    members = dict(members_of(archive))
    digest = members[ARCHIVE_DIGEST_FILE]
    for place in range(len(digest)):
        changed = bytes([*digest[:place], digest[place] ^ 1, *digest[place + 1 :]])
        with pytest.raises(ArchiveError, match=r"archive\.json has SHA-256"):
            unpack(tar_of(sorted({**members, ARCHIVE_DIGEST_FILE: changed}.items())))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_an_archive_that_is_cut_off_anywhere_is_refused(archive: bytes, data: st.DataObject):
    with pytest.raises(ArchiveError):
        unpack(archive[: data.draw(st.integers(0, len(archive) - 1), label="bytes")])


def test_bytes_after_the_end_are_refused(archive: bytes):
    with pytest.raises(ArchiveError, match="other bytes between or after its files"):
        unpack(archive + bytes(512))


def test_something_else_is_no_archive():
    with pytest.raises(ArchiveError, match=r"This is no archive of `boucle export`, or it is cut off"):
        unpack(b"PK\x03\x04 a zip file" * 100)


def test_a_member_that_is_missing_is_named(archive: bytes):
    for name, _ in members_of(archive):
        with pytest.raises(ArchiveError, match=rf"lacks {name}"):
            unpack(tar_of([member for member in members_of(archive) if member[0] != name]))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../../etc/cron.d/boucle", "which no archive of a version has"),
        ("/etc/passwd", "which no archive of a version has"),
        ("bundle/../../state.db", "which no archive of a version has"),
        ("bundle/deeper/model.onnx", "which no archive of a version has"),
        ("bundle/more.json", "of which archive.json says nothing"),
        ("training.json", "twice"),
    ],
)
def test_a_member_that_does_not_belong_there_is_named(archive: bytes, name: str, said: str):
    with pytest.raises(ArchiveError, match=rf"{name}.* {said}"):
        unpack(tar_of([*members_of(archive), (name, b"{}")]))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_is_refused(archive: bytes, kind: bytes):
    kept = [member for member in members_of(archive) if member[0] != "training.json"]
    with pytest.raises(ArchiveError, match=r"'training\.json', which no archive of a version has"):
        unpack(tar_of([*kept, ("training.json", b"")], kind=kind))


def test_another_format_is_named_with_what_to_do(archive: bytes):
    with pytest.raises(ArchiveError, match=r"has format 2, this release reads format 1\. Import it with the release"):
        unpack(said_otherwise(archive, schema_version=2))


def test_a_manifest_that_this_release_does_not_know_is_refused_by_the_field(archive: bytes):
    with pytest.raises(ArchiveError, match=r"archive\.json is not what this release reads: surprise"):
        unpack(said_otherwise(archive, surprise=1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "flight_delay"}, "bundle's model: found repurchase, where flight_delay belongs"),
        ({"version": 5}, "evidence's model and version"),
        ({"bundle_digest": "0" * 64}, "archive's bundle: found"),
        ({"data_digest": "0" * 64}, "training rows"),
        ({"evidence_digest": "0" * 64}, "archive's evidence: found"),
    ],
)
def test_an_archive_put_together_from_two_versions_is_refused(archive: bytes, changes: dict[str, object], said: str):
    with pytest.raises(ArchiveError, match=said):
        unpack(said_otherwise(archive, **changes))


def without_requests(files: Files) -> Files:
    warm_up = json.loads(files["bundle/warmup.json"])
    return rebundled(files, warmup=json.dumps({**warm_up, "requests": []}).encode())


def of_another_width(files: Files) -> Files:
    warm_up = json.loads(files["bundle/warmup.json"])
    short = [{**request, "features": request["features"][:1]} for request in warm_up["requests"]]
    return rebundled(files, warmup=json.dumps({**warm_up, "requests": short}).encode())


def rebundled(files: Files, *, warmup: bytes) -> Files:
    listed = json.loads(files["bundle/manifest.json"])
    listed["files"]["warmup.json"] = hashlib.sha256(warmup).hexdigest()
    made = BundleManifest.model_validate(listed)
    of = evidence(made.digest())
    changed = {"bundle/warmup.json": warmup, "bundle/manifest.json": made.canonical(), "evidence.json": of.canonical()}
    return {**files, **changed}


@pytest.mark.parametrize("spoil", [without_requests, of_another_width])
def test_a_bundle_whose_recorded_requests_cannot_be_asked_is_refused(files: Files, spoil: Callable[[Files], Files]):
    spoilt = spoil(files)
    with pytest.raises(ArchiveError, match="recorded requests' features"):
        unpack(pack(manifest(spoilt), spoilt))
