"""What a version's live performance is held against and cut by: learnt from its holdout once, and kept."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.performance import PerformanceReference, Recalibration
from boucle.errors import BundleError, NotEnoughDataError
from boucle.stats.estimation import recalibrate
from boucle.stats.metrics import Vector, log_loss
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import holdout_manifest, read_document, version_dir, write_document
from boucle_platform.model_loop.steps.training import HOLDOUT, holdout_of, read_rows


def reference_of(home: Home, spec: LoopSpec, version: ModelVersion, bundle: Digest) -> PerformanceReference | None:
    """The reference of a version; None where its bundle or the rows of its holdout are not there."""
    file = version_dir(home, spec, version) / "performance_reference.json"
    if file.exists():
        kept = read_document(file, PerformanceReference)
        if kept.sliced_by == spec.promotion.slicing.by:
            return kept
    try:
        made = _learnt(home, spec, version, bundle)
    except (BundleError, NotEnoughDataError):
        return None
    write_document(file, made)
    return made


def _learnt(home: Home, spec: LoopSpec, version: ModelVersion, bundle: Digest) -> PerformanceReference:
    from boucle.training.parity import onnx_model
    from boucle.training.slices import slice_bins

    manifest = holdout_manifest(home, spec, version)
    rows = read_rows(home, manifest)
    held = holdout_of(rows[rows["part"] == HOLDOUT], manifest)
    scores = onnx_model((home.bundles.fetch(bundle) / MODEL_FILE).read_bytes())(held.features)
    names, declared = list(manifest.feature_names), spec.promotion.slicing.by
    return PerformanceReference(
        model=spec.name,
        version=version,
        log_loss=log_loss(held.labels, scores),
        recalibration=_recalibration(held.labels, scores, held.entities),
        feature_names=manifest.feature_names,
        sliced_by=declared,
        slices=tuple(
            slice_bins(held.features[:, names.index(name)], name) for name in declared or names if name in names
        ),
    )


def _recalibration(labels: Vector, scores: Vector, entities: ArrayLike) -> Recalibration | None:
    try:
        return recalibrate(labels, scores, pd.factorize(np.asarray(entities))[0])
    except NotEnoughDataError:
        return None
