"""What happened to the answers: predictions collected, joined with outcomes, measured, compared with the reference."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport, WindowPerformance
from boucle.contracts.prediction import PredictionRecord
from boucle.contracts.verdict import Verdict, overall
from boucle.contracts.windows import Period
from boucle.stats.metrics import log_loss
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.store import data_dir, write_rows, write_text

PREDICTIONS, GROUND_TRUTH = "predictions", "ground_truth"


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Predictions of one period."""

    rows: int
    file: str
    by_version: list[dict[str, Any]]
    gaps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Outcomes that became known in one period, and how many predictions had to get theirs in it."""

    rows: int
    positives: int
    due: int
    file: str

    @property
    def coverage(self) -> float | None:
        """Share of the due predictions that have their outcome; None when none was due."""
        return self.rows / self.due if self.due else None


def collect_predictions(home: Home, spec: LoopSpec, period: Period) -> Collected:
    """Write the period's served predictions as an immutable snapshot."""
    rows = _frame(list(home.log.read(spec.name, period.start, period.end)))
    file = write_rows(_file(home, spec, PREDICTIONS, period.key), rows)
    counts = rows["model_version"].value_counts().sort_index()
    return Collected(
        rows=len(rows),
        file=str(file),
        by_version=[{"version": int(str(version)), "predictions": int(n)} for version, n in counts.items()],
        gaps=tuple(home.log.segment_gaps(spec.name)),
    )


def join_outcomes(home: Home, spec: LoopSpec, period: Period) -> Joined:
    """Join predictions with the outcome of (entity, moment of the features), where that became known in the period.

    A request may ask as of any moment; the answer is about the horizon that begins with the feature row it was made of.
    """
    predictions = _all(home, spec, PREDICTIONS)
    labels = home.warehouse.query(
        f"select {spec.entity} as entity_key, as_of as features_as_of, label, known_at from {spec.labels} "  # noqa: S608 - our own names
        "where known_at > ? and known_at <= ?",
        [_naive(period.start), _naive(period.end)],
    )
    labels["features_as_of"] = labels["features_as_of"].astype("datetime64[us]")
    rows = predictions.merge(labels, on=["entity_key", "features_as_of"], how="inner", validate="many_to_one")
    file = write_rows(_file(home, spec, GROUND_TRUTH, period.key), rows)
    return Joined(
        rows=len(rows),
        positives=int(rows["label"].sum()),
        due=_due(predictions, spec, period),
        file=str(file),
    )


def outcomes(home: Home, spec: LoopSpec, period: str = "*") -> pd.DataFrame:
    """Predictions with their outcome, of one period or of all."""
    return _all(home, spec, GROUND_TRUTH, period)


def predictions_of(home: Home, spec: LoopSpec, period: Period) -> pd.DataFrame:
    """The predictions that were served in the period."""
    return _all(home, spec, PREDICTIONS, period.key)


def live_performance(home: Home, spec: LoopSpec, period: Period) -> tuple[WindowPerformance, ...]:
    """Realised performance of each version on the outcomes of the period; no outcome, no row."""
    rows = outcomes(home, spec, period.key)
    measured = tuple(
        _performance(ModelVersion(int(str(v))), group) for v, group in rows.groupby("model_version", sort=True)
    )
    content = json.dumps([item.model_dump(mode="json") for item in measured], indent=1)
    write_text(data_dir(home, spec) / "performance" / f"{period.key}.json", content)
    return measured


def performance_history(home: Home, spec: LoopSpec) -> list[tuple[str, float]]:
    """Log loss of all versions together, by period in which the outcomes became known."""
    history = []
    for file in sorted((data_dir(home, spec) / "performance").glob("*.json")):
        found = [WindowPerformance.model_validate(item) for item in json.loads(file.read_text())]
        total = sum(item.predictions for item in found)
        if total:
            history.append((file.stem, sum(item.log_loss * item.predictions for item in found) / total))
    return history


def drift(home: Home, spec: LoopSpec, period: Period) -> tuple[DriftReport, Path | None]:
    """The drift report of the period, and Evidently's page where there was something to compare."""
    return measure_drift(home, spec, period, predictions_of(home, spec, period), outcomes(home, spec, period.key))


def drift_check(report: DriftReport) -> dg.AssetCheckResult:
    """Drift warns: it asks for retraining, it blocks nothing."""
    verdict = overall(report.gates)
    sentences = "; ".join(gate.sentence() for gate in report.gates)
    return dg.AssetCheckResult(
        check_name="drift_within_limits",
        passed=verdict is Verdict.PASSED,
        severity=dg.AssetCheckSeverity.WARN,
        description=sentences or "nothing to compare: no version is in production",
        metadata={"verdict": verdict.value},
    )


def coverage_check(joined: Joined) -> dg.AssetCheckResult:
    """Missing outcomes warn: what is measured on the rest may be measured on the wrong ones."""
    described = f"{joined.rows} of {joined.due} due predictions have their outcome"
    return dg.AssetCheckResult(
        check_name="coverage_complete",
        passed=joined.due > 0 and joined.rows == joined.due,
        severity=dg.AssetCheckSeverity.WARN,
        description=described if joined.due else "no prediction was due in the period: nothing is known",
        metadata={"due": joined.due, "coverage": joined.coverage},
    )


def _performance(version: ModelVersion, rows: pd.DataFrame) -> WindowPerformance:
    labels, scores = (rows[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
    return WindowPerformance(
        version=version,
        predictions=len(rows),
        positives=int(labels.sum()),
        mean_score=float(scores.mean()),
        positive_rate=float(labels.mean()),
        log_loss=log_loss(labels, scores),
    )


def _frame(records: list[PredictionRecord]) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "prediction_id": pd.Series([r.prediction_id for r in records], dtype="str"),
            "at": pd.Series([_naive(r.at) for r in records], dtype="datetime64[us]"),
            "entity_key": pd.Series([r.entity_key for r in records], dtype="str"),
            "as_of": pd.Series([_naive(r.as_of) for r in records], dtype="datetime64[us]"),
            "features_as_of": pd.Series([_naive(r.features_as_of) for r in records], dtype="datetime64[us]"),
            "model_version": pd.Series([r.model_version for r in records], dtype="int64"),
            "bundle_digest": pd.Series([r.bundle_digest for r in records], dtype="str"),
            "proba": pd.Series([r.proba for r in records], dtype="float64"),
            "features": pd.Series(
                [[np.nan if value is None else value for value in r.features] for r in records], dtype="object"
            ),
        }
    )
    return rows.sort_values(["at", "prediction_id"], ignore_index=True)


def _due(predictions: pd.DataFrame, spec: LoopSpec, period: Period) -> int:
    """Predictions whose outcome had to become known in the period."""
    known = predictions["features_as_of"] + timedelta(days=spec.horizon_days)
    return int(((known > _naive(period.start)) & (known <= _naive(period.end))).sum())


def _all(home: Home, spec: LoopSpec, kind: str, period: str = "*") -> pd.DataFrame:
    files = sorted((data_dir(home, spec) / kind).glob(f"{period}.parquet"))
    frames = [frame for frame in (pd.read_parquet(file) for file in files) if len(frame)]
    if frames:
        return pd.concat(frames, ignore_index=True)
    return _frame([]) if kind == PREDICTIONS else _frame([]).assign(label=pd.Series(dtype="int64"))


def _file(home: Home, spec: LoopSpec, kind: str, period: str) -> Path:
    return data_dir(home, spec) / kind / f"{period}.parquet"


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
