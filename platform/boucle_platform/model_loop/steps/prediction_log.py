"""The predictions that were served, by period: read once from the log, kept as immutable snapshots."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boucle.contracts.ids import PeriodKey
from boucle.contracts.prediction import PredictionRecord
from boucle.contracts.windows import Period
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import PREDICTIONS, data_dir, write_rows


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Predictions of one period."""

    rows: int
    file: str
    by_version: list[dict[str, Any]]
    gaps: tuple[str, ...]


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


def predictions_of(home: Home, spec: LoopSpec, period: Period) -> pd.DataFrame:
    """The predictions that were served in the period."""
    return read_rows(_file(home, spec, period))


def served_between(home: Home, spec: LoopSpec, start: datetime, end: datetime) -> pd.DataFrame:
    """Predictions of the periods that overlap `[start, end)`."""
    keys = (file.stem for file in sorted((data_dir(home, spec) / PREDICTIONS).glob("*.parquet")))
    periods = (spec.period(key) for key in keys if spec.is_period(key))
    overlapping = [period for period in periods if naive(period.end) > start and naive(period.start) < end]
    return joined_up([predictions_of(home, spec, period) for period in overlapping] or [no_predictions()])


def no_predictions() -> pd.DataFrame:
    """A table without rows, with the columns of predictions."""
    return _frame([])


def read_rows(file: Path) -> pd.DataFrame:
    """The rows of one snapshot, none where there is no such file. Nobody changes what is returned."""
    return _rows_of(file, file.stat().st_mtime_ns) if file.exists() else no_predictions()


def joined_up(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows of at least one table; empty ones only lend their columns."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def naive(moment: datetime) -> datetime:
    """The moment as tables hold it: in UTC, and not saying so."""
    return moment.replace(tzinfo=None)


def _collected(home: Home, spec: LoopSpec, period: Period, served: pd.DataFrame, gaps: tuple[str, ...]) -> Collected:
    at = served["at"]
    rows = served[(at >= naive(period.start)) & (at < naive(period.end))].reset_index(drop=True)
    file = write_rows(_file(home, spec, period), rows)
    counts = rows["model_version"].value_counts().sort_index()
    return Collected(
        rows=len(rows),
        file=str(file),
        by_version=[{"version": int(str(version)), "predictions": int(n)} for version, n in counts.items()],
        gaps=gaps,
    )


def _frame(records: list[PredictionRecord]) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "prediction_id": pd.Series([r.prediction_id for r in records], dtype="str"),
            "at": pd.Series([naive(r.at) for r in records], dtype="datetime64[us]"),
            "entity_key": pd.Series([r.entity_key for r in records], dtype="str"),
            "as_of": pd.Series([naive(r.as_of) for r in records], dtype="datetime64[us]"),
            "features_as_of": pd.Series(
                [naive(r.features_as_of) if r.features_as_of else None for r in records], dtype="datetime64[us]"
            ),
            "assigned_role": pd.Series([r.assigned_role for r in records], dtype="str"),
            "answering_role": pd.Series([r.answering_role for r in records], dtype="str"),
            "is_fallback": pd.Series([r.fallback is not None for r in records], dtype="bool"),
            "pinned": pd.Series([r.pinned for r in records], dtype="bool"),
            "model_version": pd.Series([r.model_version for r in records], dtype="int64"),
            "bundle_digest": pd.Series([r.bundle_digest for r in records], dtype="str"),
            "proba": pd.Series([r.proba for r in records], dtype="float64"),
            "features": pd.Series(
                [[np.nan if value is None else value for value in r.features] for r in records], dtype="object"
            ),
        }
    )
    return rows.sort_values(["at", "prediction_id"], ignore_index=True)


@lru_cache(maxsize=128)
def _rows_of(file: Path, modified_ns: int) -> pd.DataFrame:  # noqa: ARG001 - names the content
    # Windows of a row of periods overlap: each file would be read once a period. Nobody changes what is returned.
    rows = pd.read_parquet(file)
    # Snapshots of the first release do not say who answered: there was one arm.
    return (
        rows
        if "pinned" in rows
        else rows.assign(assigned_role="production", answering_role="production", is_fallback=False, pinned=False)
    )


def _file(home: Home, spec: LoopSpec, period: Period) -> Path:
    return data_dir(home, spec) / PREDICTIONS / f"{period.key}.parquet"
