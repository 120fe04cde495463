"""What a retraining may gain, and what one did gain, in nats a row on labels that are mature."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from boucle.contracts.bundle import CONTRACT_FILE, MODEL_FILE, BundleContract
from boucle.contracts.data import TrainingManifest
from boucle.contracts.facts import Interval
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.trigger import Gain
from boucle.contracts.windows import next_period
from boucle.errors import BundleError, NotEnoughDataError
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import outcomes, truth_files
from boucle_platform.model_loop.steps.performance_rows import entities_of
from boucle_platform.model_loop.steps.store import LEARNT, read_document, version_dir


def expected_gain(home: Home, spec: LoopSpec, report: DriftReport) -> Gain | None:
    """What recalibrating the judged version would have gained on the mature labels of the window; None: too few.

    A lower bound of what a retraining may gain: it mends the calibration at least, and may rank better as well.
    """
    from boucle.stats.recalibration import recalibration_gain

    if report.production_version is None:
        return None
    rows = _window(home, spec, report)
    rows = rows[rows["model_version"] == report.production_version]
    policy = spec.monitoring
    if len(rows) < policy.min_labels or rows["label"].sum() < policy.min_positives:
        return None
    labels, scores = (rows[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
    try:
        return _gain(recalibration_gain(labels, scores, entities_of(rows), level=policy.confidence))
    except NotEnoughDataError:
        return None


def realised_gain(home: Home, spec: LoopSpec, version: ModelVersion, before: ModelVersion) -> Gain | None:
    """Loss of `before` - loss of `version` on requests that neither learnt from, whoever answered them.

    Both versions score the features of the prediction log again. Rows count whose features are of the watermark of
    the version's training or later, whose labels are mature, and which a version answered that reads these features in
    this order; None where there are fewer than two entities, or the two versions do not read the same features.
    """
    from boucle.stats.intervals import clustered_interval
    from boucle.stats.metrics import log_loss_rows
    from boucle.training.parity import onnx_model

    judged = [home.evidence.newest(spec.name, one) for one in (version, before)]
    if None in judged:
        return None
    bundles = [home.bundles.fetch(one.bundle_digest) for one in judged if one is not None]
    contracts = [BundleContract.model_validate_json((b / CONTRACT_FILE).read_bytes()) for b in bundles]
    if contracts[0].feature_names != contracts[1].feature_names:
        return None
    watermark = read_document(version_dir(home, spec, version) / LEARNT, TrainingManifest).watermark
    rows = _since(home, spec, pd.Timestamp(watermark.replace(tzinfo=None)))
    rows = with_features(home, spec, rows, contracts[0].feature_names)
    entities, level = entities_of(rows), spec.monitoring.confidence
    if len(np.unique(entities)) < 2:
        return None
    features, labels = np.vstack(rows["features"].to_list()).astype(np.float64), rows["label"].to_numpy(np.float64)
    losses = [log_loss_rows(labels, onnx_model((b / MODEL_FILE).read_bytes())(features)) for b in bundles]
    return _gain(clustered_interval(losses[1] - losses[0], entities, level=level))


def with_features(home: Home, spec: LoopSpec, rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows that were answered by versions which read these features in this order; others hold other columns."""

    def reads_them(version: ModelVersion) -> bool:
        judged = home.evidence.newest(spec.name, version)
        if judged is None:
            return False
        try:
            bundle = home.bundles.fetch(judged.bundle_digest)
        except BundleError:
            return False
        contract = BundleContract.model_validate_json((bundle / CONTRACT_FILE).read_bytes())
        return tuple(contract.feature_names) == tuple(names)

    asked = rows["model_version"].dropna().unique()
    return rows[rows["model_version"].isin([one for one in asked if reads_them(ModelVersion(int(one)))])]


def known_outcomes(home: Home, spec: LoopSpec) -> str:
    """What names all that is known of outcomes: the newest file of each window; empty when there is none."""
    names = " ".join(file.name for file in truth_files(home, spec))
    return hashlib.sha256(names.encode()).hexdigest()[:16] if names else ""


def _window(home: Home, spec: LoopSpec, report: DriftReport) -> pd.DataFrame:
    """Outcomes that became known in the window of a report."""
    period = spec.asking(report.window_start + timedelta(microseconds=1))
    parts = []
    while period.end <= report.window_end:
        parts.append(outcomes(home, spec, period.key))
        period = next_period(period, spec.cadence)
    return _together(parts) if parts else outcomes(home, spec, report.period)


def _since(home: Home, spec: LoopSpec, moment: pd.Timestamp) -> pd.DataFrame:
    """Known outcomes of requests about this moment or later, each once."""
    names = sorted(file.name.partition(".")[0] for file in truth_files(home, spec))
    ends = {name: spec.period(name).end.replace(tzinfo=None) for name in names if spec.is_period(name)}
    parts = [outcomes(home, spec, name) for name, end in ends.items() if end > moment]
    rows = _together(parts) if parts else outcomes(home, spec, "none")
    return rows[rows["features_as_of"] >= moment].drop_duplicates("prediction_id", keep="last")


def _together(parts: list[pd.DataFrame]) -> pd.DataFrame:
    rows = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    # What a tester asked of a version of his choice is nobody's traffic.
    return rows[~rows["pinned"].astype(bool)].dropna(subset="label")


def _gain(interval: Interval) -> Gain:
    return Gain(nats=interval.estimate, rows=interval.sample_size, low=interval.low, high=interval.high)
