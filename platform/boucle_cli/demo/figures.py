"""Figures of a replay: what was served against what the first model would have said, on the same rows."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.contracts.bundle import MODEL_FILE, ONNX_INPUT, ONNX_OUTPUT
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import Digest
from boucle.stats.metrics import log_loss
from boucle_adapters.home import Home
from boucle_cli.demo.summary import Month
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import outcomes


def months(home: Home, spec: LoopSpec) -> list[Month]:
    """One row per month that was asked about and whose outcomes are known; none when nothing was served."""
    rows = outcomes(home, spec)
    if rows.empty:
        return []
    rows = rows.assign(static=_score(home, first_bundle(home, spec), rows))
    rows["month"] = rows["features_as_of"].dt.strftime("%Y-%m")
    return [_month(str(key), group) for key, group in rows.groupby("month", sort=True)]


def first_bundle(home: Home, spec: LoopSpec) -> Digest:
    """The bundle of the first version that was ever promoted."""
    return next(
        row.decision.bundle_digest
        for row in home.state.decisions(spec.name)
        if row.decision.kind is DecisionKind.PROMOTE and row.decision.bundle_digest
    )


def _score(home: Home, digest: Digest, rows: pd.DataFrame) -> NDArray[np.float64]:
    import onnxruntime as ort

    session = ort.InferenceSession(str(home.bundles.fetch(digest) / MODEL_FILE), providers=["CPUExecutionProvider"])
    features = np.vstack(rows["features"].to_list()).astype(np.float64)
    return np.asarray(session.run([ONNX_OUTPUT], {ONNX_INPUT: features})[0], dtype=np.float64)


def _month(key: str, rows: pd.DataFrame) -> Month:
    labels = rows["label"].to_numpy(dtype=np.float64)
    loop, static = (rows[name].to_numpy(dtype=np.float64) for name in ("proba", "static"))
    return Month(
        period=key,
        version=int(rows["model_version"].mode()[0]),
        predictions=len(rows),
        positive_rate=float(labels.mean()),
        mean_loop=float(loop.mean()),
        mean_static=float(static.mean()),
        logloss_loop=log_loss(labels, loop),
        logloss_static=log_loss(labels, static),
    )
