"""What happened to the answers: predictions collected, joined with outcomes, measured, compared with the reference."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from boucle.contracts.ids import ModelVersion, PeriodKey
from boucle.contracts.monitoring import DriftReport, WindowPerformance
from boucle.contracts.prediction import PredictionRecord
from boucle.contracts.verdict import Verdict, overall
from boucle.contracts.windows import Period, previous_period
from boucle.stats.metrics import log_loss
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.drift import measure_drift
from boucle_platform.model_loop.steps.store import GROUND_TRUTH, PREDICTIONS, data_dir, write_rows, write_text


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Predictions of one period."""

    rows: int
    file: str
    by_version: list[dict[str, Any]]
    gaps: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Joined:
    """Outcomes that became known in one period, and how many predictions had to get theirs in it.

    `void` counts predictions of which it became known that there is no outcome (a cancelled flight); they are not due.
    """

    rows: int
    positives: int
    due: int
    void: int
    file: str

    @property
    def coverage(self) -> float | None:
        """Share of the due predictions that have their outcome; None when none was due."""
        return self.rows / self.due if self.due else None


def collect_predictions(home: Home, spec: LoopSpec, periods: Sequence[Period]) -> dict[PeriodKey, Collected]:
    """Write the predictions served in each of a row of periods as an immutable snapshot; the log is read once."""
    served = _frame(list(home.log.read(spec.name, periods[0].start, periods[-1].end)))
    gaps = (
        *(f"{name} is missing" for name in home.log.segment_gaps(spec.name)),
        *(
            f"{name} was changed after it was closed"
            for name in home.log.changed_segments(spec.name, periods[0].start, periods[-1].end)
        ),
    )
    return {period.key: _collected(home, spec, period, served, gaps) for period in periods}


def _collected(home: Home, spec: LoopSpec, period: Period, served: pd.DataFrame, gaps: tuple[str, ...]) -> Collected:
    at = served["at"]
    rows = served[(at >= _naive(period.start)) & (at < _naive(period.end))].reset_index(drop=True)
    file = write_rows(_file(home, spec, PREDICTIONS, period.key), rows)
    counts = rows["model_version"].value_counts().sort_index()
    return Collected(
        rows=len(rows),
        file=str(file),
        by_version=[{"version": int(str(version)), "predictions": int(n)} for version, n in counts.items()],
        gaps=gaps,
    )


def join_outcomes(home: Home, spec: LoopSpec, period: Period) -> Joined:
    """Join predictions with the outcome of (entity, moment of the features), once both are there.

    That is the period in which the outcome became known, or the one of the prediction where somebody asked later. A
    request may ask as of any moment; the answer is about the horizon that begins with the feature row it was made of.
    Where the caller gave the features, nobody knows of when they are.
    """
    start, end, horizon = _naive(period.start), _naive(period.end), timedelta(days=spec.horizon_days)
    predictions = _served_between(home, spec, start - horizon, end).dropna(subset="features_as_of")
    labels = home.warehouse.query(
        f"select {spec.entity} as entity_key, as_of as features_as_of, label, known_at from {spec.labels} "  # noqa: S608 - our own names
        "where as_of >= ? and known_at <= ?",
        [end if predictions.empty else predictions["features_as_of"].min(), end],
    )
    labels["features_as_of"] = labels["features_as_of"].astype("datetime64[us]")
    rows = predictions.merge(labels, on=["entity_key", "features_as_of"], how="inner", validate="many_to_one")
    rows = rows[(rows["known_at"] > start) | (rows["at"] >= start)]
    known = rows.dropna(subset="label").astype({"label": "int64"})
    due = predictions["features_as_of"] + horizon
    is_due = (due <= end) & ((due > start) | (predictions["at"] >= start))
    file = write_rows(_file(home, spec, GROUND_TRUTH, period.key), known)
    return Joined(
        rows=len(known),
        positives=int(known["label"].sum()),
        due=int(is_due.sum()) - (len(rows) - len(known)),
        void=len(rows) - len(known),
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


def drift(home: Home, spec: LoopSpec, period: Period, *, draw: bool = True) -> tuple[DriftReport, Path | None]:
    """The drift report of the window that ends with the period, and Evidently's page where there is one to draw."""
    parts = [period]
    while len(parts) < spec.monitoring.window_periods and not spec.starts(parts[0]):
        parts.insert(0, previous_period(parts[0], spec.cadence))
    window = period.model_copy(update={"start": parts[0].start})
    seen = _joined_up([_all(home, spec, PREDICTIONS, part.key) for part in parts])
    judged = _joined_up([outcomes(home, spec, part.key) for part in parts])
    return measure_drift(home, spec, window, seen, judged, draw=draw)


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
    described += f"; {joined.void} never get one" if joined.void else ""
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
            "features_as_of": pd.Series(
                [_naive(r.features_as_of) if r.features_as_of else None for r in records], dtype="datetime64[us]"
            ),
            "model_version": pd.Series([r.model_version for r in records], dtype="int64"),
            "bundle_digest": pd.Series([r.bundle_digest for r in records], dtype="str"),
            "proba": pd.Series([r.proba for r in records], dtype="float64"),
            "features": pd.Series(
                [[np.nan if value is None else value for value in r.features] for r in records], dtype="object"
            ),
        }
    )
    return rows.sort_values(["at", "prediction_id"], ignore_index=True)


def _served_between(home: Home, spec: LoopSpec, start: datetime, end: datetime) -> pd.DataFrame:
    """Predictions of the periods that overlap `[start, end)`."""
    keys = (file.stem for file in sorted((data_dir(home, spec) / PREDICTIONS).glob("*.parquet")))
    periods = (spec.period(key) for key in keys if spec.is_period(key))
    overlapping = [period for period in periods if _naive(period.end) > start and _naive(period.start) < end]
    return _joined_up([_all(home, spec, PREDICTIONS, period.key) for period in overlapping] or [_frame([])])


def _all(home: Home, spec: LoopSpec, kind: str, period: str = "*") -> pd.DataFrame:
    files = sorted((data_dir(home, spec) / kind).glob(f"{period}.parquet"))
    if files:
        return _joined_up([_rows_of(file, file.stat().st_mtime_ns) for file in files])
    return _frame([]) if kind == PREDICTIONS else _frame([]).assign(label=pd.Series(dtype="int64"))


@lru_cache(maxsize=128)
def _rows_of(file: Path, modified_ns: int) -> pd.DataFrame:  # noqa: ARG001 - names the content
    # Windows of a row of periods overlap: each file would be read once a period. Nobody changes what is returned.
    return pd.read_parquet(file)


def _joined_up(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows of at least one table; empty ones only lend their columns."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def _file(home: Home, spec: LoopSpec, kind: str, period: str) -> Path:
    return data_dir(home, spec) / kind / f"{period}.parquet"


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)
