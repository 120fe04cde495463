"""The files of a release bundle, as bytes: what serving loads, and with which it proves that it loaded it right."""

import hashlib
from collections.abc import Sequence

import numpy as np

from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    WARMUP_FILE,
    BundleContract,
    BundleManifest,
    RecordedRequest,
    WarmUp,
)
from boucle.contracts.ids import Digest, EntityKey
from boucle.errors import NotEnoughDataError
from boucle.training.export import export_onnx
from boucle.training.fit import Classifier, Matrix, predict

WARMUP_REQUESTS = 32


def bundle_files(
    estimator: Classifier, contract: BundleContract, *, rows: Matrix, entities: Sequence[str]
) -> dict[str, bytes]:
    """File name to content. The same estimator, contract and rows give the same bytes.

    Args:
        estimator: Fitted on the contract's features, in their order.
        contract: What a request needs and an answer is.
        rows: Holdout rows to record requests from, spread evenly; half of them miss a value, as far as there are such.
        entities: The entity key of each row.

    Raises:
        ExportError: The estimator cannot be exported exactly.
        NotEnoughDataError: There is no row to record.
    """
    warm_up = record_requests(estimator, rows, entities)
    files = {
        MODEL_FILE: export_onnx(estimator, feature_count=len(contract.features)),
        CONTRACT_FILE: contract.canonical(),
        WARMUP_FILE: warm_up.canonical(),
    }
    manifest = BundleManifest(
        model=contract.model,
        files={name: Digest(hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())},
    )
    return {**files, MANIFEST_FILE: manifest.canonical()}


def bundle_digest(files: dict[str, bytes]) -> Digest:
    """The bundle's digest: that of its manifest."""
    return BundleManifest.model_validate_json(files[MANIFEST_FILE]).digest()


def record_requests(estimator: Classifier, rows: Matrix, entities: Sequence[str]) -> WarmUp:
    """Up to `WARMUP_REQUESTS` of the rows, with the answers that the estimator gives."""
    if len(rows) == 0:
        raise NotEnoughDataError("A bundle needs at least one holdout row to record a request from.")
    chosen = _spread(rows)
    expected = predict(estimator, rows[chosen])
    return WarmUp(
        requests=tuple(
            RecordedRequest(
                entity_key=EntityKey(str(entities[place])),
                features=tuple(None if np.isnan(value) else float(value) for value in rows[place]),
                expected=float(answer),
            )
            for place, answer in zip(chosen, expected, strict=True)
        )
    )


def _spread(rows: Matrix) -> list[int]:
    """Places of the recorded rows, evenly over the rows with and the rows without a missing value."""
    incomplete = np.isnan(rows).any(axis=1)
    with_missing, complete = np.flatnonzero(incomplete), np.flatnonzero(~incomplete)
    from_missing = min(len(with_missing), max(WARMUP_REQUESTS // 2, WARMUP_REQUESTS - len(complete)))
    from_complete = min(len(complete), WARMUP_REQUESTS - from_missing)
    chosen = [
        places[np.linspace(0, len(places) - 1, count).astype(int)]
        for places, count in ((with_missing, from_missing), (complete, from_complete))
        if count
    ]
    return sorted({int(place) for place in np.concatenate(chosen)})
