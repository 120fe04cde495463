"""What became of the predictions: outcomes joined with what was answered."""

from dataclasses import dataclass
from datetime import timedelta

import dagster as dg
import pandas as pd

from boucle.contracts.windows import Period
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.prediction_log import (
    joined_up,
    naive,
    no_predictions,
    served_between,
    snapshot_file,
    snapshots_of,
)
from boucle_platform.model_loop.steps.store import GROUND_TRUTH, write_rows


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


def join_outcomes(home: Home, spec: LoopSpec, period: Period) -> Joined:
    """Join predictions with the outcome of (entity, moment of the features), once both are there.

    That is the period in which the outcome became known, or the one of the prediction where somebody asked later. A
    request may ask as of any moment; the answer is about the horizon that begins with the feature row it was made of.
    Where the caller gave the features, nobody knows of when they are.
    """
    start, end, horizon = naive(period.start), naive(period.end), timedelta(days=spec.horizon_days)
    predictions = served_between(home, spec, start - horizon, end).dropna(subset="features_as_of")
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
    file = write_rows(snapshot_file(home, spec, GROUND_TRUTH, period.key), known)
    return Joined(
        rows=len(known),
        positives=int(known["label"].sum()),
        due=int(is_due.sum()) - (len(rows) - len(known)),
        void=len(rows) - len(known),
        file=str(file),
    )


def outcomes(home: Home, spec: LoopSpec, period: str = "*") -> pd.DataFrame:
    """Predictions with their outcome, of one period or of all."""
    none = no_predictions().assign(label=pd.Series(dtype="int64"))
    return joined_up([none, *snapshots_of(home, spec, GROUND_TRUTH, period)])


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
