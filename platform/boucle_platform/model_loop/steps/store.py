"""Where the steps of a model keep what they make: `<home>/data/<model>/...`, each file put in place by rename."""

from datetime import datetime
from pathlib import Path
from typing import TypeVar

import pandas as pd

from boucle.contracts.data import TrainingManifest
from boucle.contracts.document import Document
from boucle.contracts.evidence import Evidence
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.profile import ReferenceProfile
from boucle.errors import NotEnoughDataError
from boucle_adapters.atomic_file import put_in_place, replace_bytes
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec

D = TypeVar("D", bound=Document)

REFERENCE = "reference.json"
LEARNT, JUDGED = "training.json", "judged.json"
"""What a version learnt from; of an imported one also the training set of this home whose holdout judged it."""
PREDICTIONS, GROUND_TRUTH = "predictions", "ground_truth"
"""Directories of a model's served predictions and of their outcomes, a file a period."""


def data_dir(home: Home, spec: LoopSpec) -> Path:
    """The model's directory."""
    return home.settings.data_dir / spec.model


def version_dir(home: Home, spec: LoopSpec, version: ModelVersion) -> Path:
    """What belongs to one version: reference profile, evidence, reports."""
    return data_dir(home, spec) / "versions" / str(version)


def document_file(home: Home, spec: LoopSpec, asset: str, partition: str = "") -> Path:
    """Where `DocumentIOManager` keeps an asset's document."""
    base = home.settings.data_dir / "documents" / spec.model / asset
    return base / f"{partition}.json" if partition else base.with_suffix(".json")


def write_text(file: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    replace_bytes(file, text.encode())
    return file


def write_rows(file: Path, rows: pd.DataFrame) -> Path:
    """Write rows as Parquet, whole or not at all."""
    with put_in_place(file) as draft:
        rows.to_parquet(draft, index=False)
    return file


def write_document(file: Path, document: Document) -> Path:
    """Write a document as readable JSON."""
    return write_text(file, document.model_dump_json(indent=1))


def read_document(file: Path, kind: type[D]) -> D:
    """Read a document. Raises NotEnoughDataError when it was not written yet."""
    if not file.exists():
        raise NotEnoughDataError(f"There is no {kind.__name__} at {file} yet: materialise the asset that writes it.")
    return kind.model_validate_json(file.read_text(encoding="utf-8"))


def read_drift_report(home: Home, spec: LoopSpec, period: str) -> DriftReport:
    """The drift report of one period."""
    return read_document(document_file(home, spec, "drift_report", period), DriftReport)


def drift_reports(home: Home, spec: LoopSpec, *, last: int) -> list[DriftReport]:
    """The reports of the last so many periods that have one, oldest first, without those that cannot be read."""
    files = sorted(document_file(home, spec, "drift_report", "any").parent.glob("*.json"))
    reports = (home.monitoring.drift(spec.name, file.stem) for file in files[-last:])
    return [report for report in reports if report is not None]


def holdout_manifest(home: Home, spec: LoopSpec, version: ModelVersion) -> TrainingManifest:
    """The training set of this home that holds the holdout on which the version was judged."""
    folder = version_dir(home, spec, version)
    return read_document(folder / (JUDGED if (folder / JUDGED).exists() else LEARNT), TrainingManifest)


def newest_evidence(home: Home, spec: LoopSpec) -> Evidence | None:
    """What the newest evaluation report measured; None before the first one."""
    file = document_file(home, spec, "evaluation_report")
    return read_document(file, Evidence) if file.exists() else None


def trained_up_to(home: Home, spec: LoopSpec) -> datetime | None:
    """The newest as_of that the last training run looked at, promoted or not."""
    versions = sorted((data_dir(home, spec) / "versions").glob(f"*/{LEARNT}"), key=lambda f: int(f.parent.name))
    if not versions:
        return None
    return read_document(versions[-1], TrainingManifest).holdout_as_of[-1]


def read_reference(home: Home, spec: LoopSpec, version: ModelVersion) -> ReferenceProfile:
    """How features and scores of a version looked on its holdout."""
    return read_document(version_dir(home, spec, version) / REFERENCE, ReferenceProfile)


def has_reference(home: Home, spec: LoopSpec, version: ModelVersion) -> bool:
    """Whether a reference of the version was written: only versions that this loop trained have one."""
    return (version_dir(home, spec, version) / REFERENCE).exists()
