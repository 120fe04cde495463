"""What may come in from another environment: what the code here declares, and what answers here as it did there."""

from typing import Any

import numpy as np
import pytest

from assets_tests.judging import scored, training_manifest
from boucle.contracts.archive import ArchiveManifest
from boucle.contracts.bundle import MODEL_FILE, BundleContract, OutputSpec, RecordedRequest, WarmUp
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.errors import ArchiveError, NotEnoughDataError
from boucle.ports import RegisteredVersion
from boucle_adapters.home import Home
from boucle_adapters.model_archive import ModelArchive
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.training import contract_of
from boucle_platform.transfer import export_version, require_recorded_answers, spec_for

SPEC = catalogue.spec_of("repurchase")
DECLARED = contract_of(SPEC)
VERSION, ZERO = ModelVersion(4), Digest("0" * 64)


def evidence(model: str) -> Evidence:
    """What staging measured."""
    facts: dict[str, Any] = {
        **dict.fromkeys(("bundle_digest", "data_digest"), ZERO),
        **dict.fromkeys(("candidate", "baseline"), scored()),
        **dict.fromkeys(("production_version", "production")),
        "model": model,
        "version": VERSION,
        "holdout_rows": 1,
        "holdout_positive_rate": 0.1,
        "gates": (),
        "run_id": "",
        "created_at": training_manifest().watermark,
    }
    return Evidence(**facts)


def archive(
    contract: BundleContract = DECLARED,
    *,
    model: str = SPEC.model,
    horizon_days: int = SPEC.horizon_days,
    expected: float = 0.5,
    onnx: bytes = b"",
) -> ModelArchive:
    """Version 4 of staging, as an archive that was read."""
    manifest: dict[str, Any] = {
        **dict.fromkeys(("bundle_digest", "data_digest", "evidence_digest"), ZERO),
        **dict.fromkeys(("source_digest", "environment_digest"), ""),
        "model": model,
        "version": VERSION,
        "environment": "staging",
        "origin": "version 4 of staging",
        "git_commit": "0123456789ab",
        "seed": 7,
        "files": {},
    }
    row = RecordedRequest(entity_key=EntityKey("4"), features=(1.0,) * len(contract.features), expected=expected)
    return ModelArchive(
        manifest=ArchiveManifest(**manifest),
        training=training_manifest().model_copy(update={"horizon_days": horizon_days}),
        evidence=evidence(model),
        contract=contract,
        warm_up=WarmUp(requests=(row,)),
        bundle={MODEL_FILE: onnx},
    )


def changed(**feature: object) -> BundleContract:
    """The declared contract with another first feature."""
    first, *rest = DECLARED.features
    return DECLARED.model_copy(update={"features": (first.model_copy(update=feature), *rest)})


def test_a_model_that_is_as_the_code_here_declares_may_come_in():
    assert spec_for(archive()).model == "repurchase"
    assert spec_for(archive(changed(description="said in other words"))).model == "repurchase"


def test_a_model_that_the_code_here_does_not_know_is_refused():
    with pytest.raises(
        ArchiveError, match=r"version 4 of 'churn', .* declares .*repurchase.* code of 'churn' here first"
    ):
        spec_for(archive(model="churn"))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (archive(changed(name="shoe_size")), "feature 'shoe_size' is not in the schema"),
        (archive(changed(unit="fortnights")), "has unit 'fortnights', the schema has"),
        (archive(DECLARED.model_copy(update={"entity": "flight"})), "the entity is 'flight'"),
        (
            archive(DECLARED.model_copy(update={"output": OutputSpec(description="returns it")})),
            "the answer is 'returns it', the schema has",
        ),
        (archive(horizon_days=90), f"a label is known after 90 days, here after {SPEC.horizon_days}"),
    ],
    ids=["feature", "unit", "entity", "answer", "horizon"],
)
def test_a_model_that_is_not_as_the_code_here_declares_is_refused_by_what_differs(found: ModelArchive, said: str):
    with pytest.raises(ArchiveError, match=rf"{said}.* made by the code 0123456789ab: .* Nothing was registered\."):
        spec_for(found)


@pytest.mark.parametrize("answer", [0.5 + 1e-6, float("nan")])
def test_a_model_that_answers_otherwise_here_than_where_it_was_made_is_refused(
    answer: float, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boucle.training.parity.onnx_model", lambda _: lambda rows: np.full(len(rows), answer))
    with pytest.raises(ArchiveError, match=r"answers the recorded requests otherwise here"):
        require_recorded_answers(archive(expected=0.5))


def test_a_model_that_answers_here_as_it_did_there_may_come_in(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boucle.training.parity.onnx_model", lambda _: lambda rows: np.full(len(rows), 0.5 + 1e-10))
    require_recorded_answers(archive(expected=0.5))


def test_a_file_that_is_no_model_is_refused():
    with pytest.raises(ArchiveError, match=r"model\.onnx cannot be run here: .* Nothing was registered\."):
        require_recorded_answers(archive(onnx=b"import os"))


@pytest.fixture
def home(tmp_path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home whose registry holds version 4, which nobody evaluated, and version 5, which boucle did not make."""
    opened = Home(Settings(home=tmp_path))
    tags = {4: {"bundle_digest": ZERO, "data_digest": ZERO, "seed": "7"}, 5: {}}

    def version(_model: ModelName, number: ModelVersion) -> RegisteredVersion:
        return RegisteredVersion(version=number, run_id="", tags=tags[number])

    monkeypatch.setattr(opened.registry, "version", version)
    return opened


def test_a_version_without_evidence_does_not_leave(home: Home):
    with pytest.raises(
        NotEnoughDataError, match=r"Version 4 of 'repurchase' was never evaluated here.* Nothing was wr"
    ):
        export_version(home, SPEC, VERSION)


def test_a_version_that_boucle_did_not_make_does_not_leave(home: Home):
    with pytest.raises(ArchiveError, match=r"Version 5 of 'repurchase' has no tag bundle_digest"):
        export_version(home, SPEC, ModelVersion(5))
