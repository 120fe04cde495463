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
    return joined_up([no_predictions(), *snapshots_of(home, spec, PREDICTIONS, period.key)])


def served_between(home: Home, spec: LoopSpec, start: datetime, end: datetime) -> pd.DataFrame:
    """Predictions of the periods that overlap `[start, end)`."""
    keys = (file.stem for file in sorted((data_dir(home, spec) / PREDICTIONS).glob("*.parquet")))
    periods = (spec.period(key) for key in keys if spec.is_period(key))
    overlapping = [period for period in periods if naive(period.end) > start and naive(period.start) < end]
    return joined_up([predictions_of(home, spec, period) for period in overlapping] or [no_predictions()])


def no_predictions() -> pd.DataFrame:
    """A table without rows, with the columns of predictions."""
    return _frame([])


def snapshots_of(home: Home, spec: LoopSpec, kind: str, period: str = "*") -> list[pd.DataFrame]:
    """The tables of one kind, of one period or of all, oldest first. Nobody changes what is returned."""
    files = sorted((data_dir(home, spec) / kind).glob(f"{period}.parquet"))
    return [_rows_of(file, file.stat().st_mtime_ns) for file in files]


def joined_up(frames: list[pd.DataFrame]) -> pd.DataFrame:
    """All rows of at least one table; empty ones only lend their columns."""
    return pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)


def snapshot_file(home: Home, spec: LoopSpec, kind: str, period: str) -> Path:
    """Where the table of one kind and period lies."""
    return data_dir(home, spec) / kind / f"{period}.parquet"


def naive(moment: datetime) -> datetime:
    """The moment as tables hold it: in UTC, and not saying so."""
    return moment.replace(tzinfo=None)


def _collected(home: Home, spec: LoopSpec, period: Period, served: pd.DataFrame, gaps: tuple[str, ...]) -> Collected:
    at = served["at"]
    rows = served[(at >= naive(period.start)) & (at < naive(period.end))].reset_index(drop=True)
    file = write_rows(snapshot_file(home, spec, PREDICTIONS, period.key), rows)
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
    return pd.read_parquet(file)
