"""The rows of a performance report: a version as a whole, by the arm in which it answered, by slice."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.contracts.ids import ModelVersion
from boucle.contracts.performance import Metric, Performance, PerformanceReference
from boucle.stats.performance import realised_metrics
from boucle_platform.model_loop.spec import LoopSpec


def answered_by(rows: pd.DataFrame) -> Iterator[tuple[ModelVersion, pd.DataFrame]]:
    """Rows by the version that answered, lowest first. A fallback is of the version that answered in the end."""
    for version, own in rows.groupby("model_version", sort=True):
        yield ModelVersion(int(str(version))), own


def realised_rows(
    spec: LoopSpec, version: ModelVersion, rows: pd.DataFrame, reference: PerformanceReference | None
) -> list[Performance]:
    """The whole version, then its arms, then its slices."""
    found = [whole_row(spec, version, rows)]
    for role, own in rows.groupby("answering_role", sort=True):
        found.append(whole_row(spec, version, own).model_copy(update={"role": str(role)}))
    for name, own in sliced(rows, reference):
        found.append(whole_row(spec, version, own).model_copy(update={"slice": name}))
    return found


def whole_row(spec: LoopSpec, version: ModelVersion, rows: pd.DataFrame) -> Performance:
    """One row of what was realised; without enough labels it says so and holds no metric."""
    labels, scores = (rows[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
    positives, least = int(labels.sum()), spec.performance.min_positives
    few = len(rows) < spec.performance.min_labels or min(positives, len(rows) - positives) < least
    metrics = (
        dict.fromkeys(Metric)
        if few
        else realised_metrics(labels, scores, entities_of(rows), level=spec.monitoring.confidence)
    )
    asked = f"asked are {spec.performance.min_labels} labels, {least} of either kind"
    return Performance(
        version=version,
        predictions=len(rows),
        entities=int(pd.Series(entities_of(rows)).nunique()),
        positives=positives,
        fallbacks=int(rows["is_fallback"].sum()),
        mean_score=float(scores.mean()),
        positive_rate=None if few else float(labels.mean()),
        metrics=metrics,
        note=f"inconclusive: {len(rows)} mature labels, {positives} positive; {asked}" if few else "",
    )


def sliced(rows: pd.DataFrame, reference: PerformanceReference | None) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of each slice that has any, by the bins of the version's holdout."""
    from boucle.training.slices import cut

    if reference is None or rows.empty:
        return
    features = np.vstack(rows["features"].to_list()).astype(np.float64)
    names = list(reference.feature_names)
    for bins in reference.slices:
        for name, mask in cut(bins, features[:, names.index(bins.feature)]):
            if mask.any():
                yield name, rows[mask]


def entities_of(rows: pd.DataFrame) -> NDArray[np.intp]:
    """Whom each row is about, numbered from 0 without a gap; a row about nobody that is named is one of its own."""
    numbers, known = pd.factorize(rows["entity_key"])
    nobody = numbers < 0
    numbers[nobody] = len(known) + np.arange(nobody.sum())
    return numbers
