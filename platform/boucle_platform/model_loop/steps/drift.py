"""Drift of one window against the reference of the production version; Evidently draws the page that people look at."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from boucle.contracts.facts import LiveFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.profile import ReferenceProfile
from boucle.contracts.windows import Period
from boucle.policy.columns import column_drifts, feature_psi
from boucle.policy.monitoring import drift_gates
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.prediction_log import joined_up, predictions_of
from boucle_platform.model_loop.steps.profiles import SCORE, counted, facts_of, matrix_of
from boucle_platform.model_loop.steps.store import data_dir, read_reference, trained_up_to, version_dir, write_text

MAX_PAGE_ROWS, MIN_PAGE_VALUES = 2_000, 2
MAX_PAGE_FEATURES = 4
"""Evidently takes a sixth of a second a column; the drift of all features is in the metadata."""


def measure_drift(
    home: Home, spec: LoopSpec, parts: Sequence[Period], *, draw: bool
) -> tuple[DriftReport, Path | None]:
    """Judge what the production version answered in the window. Without a version or answers there is no verdict.

    Args:
        home: Where profiles and the reference lie.
        spec: The model.
        parts: The periods of the window, oldest first; the last one names it.
        draw: Whether to render Evidently's page, from rows; it takes a second.
    """
    window = parts[-1].model_copy(update={"start": parts[0].start})
    production = home.state.production(spec.name)
    if production is None:
        return _report(home, spec, window, None, None), None
    reference = read_reference(home, spec, production)
    facts = facts_of(home, spec, parts, reference)
    page = _page(home, spec, parts, reference) if draw and facts.predictions else None
    return _report(home, spec, window, production, facts), page


def _report(
    home: Home, spec: LoopSpec, window: Period, production: ModelVersion | None, facts: LiveFacts | None
) -> DriftReport:
    mature = _mature(home, spec, window)
    columns = column_drifts(spec.monitoring, facts) if facts else ()
    return DriftReport(
        model=spec.name,
        period=window.key,
        window_start=window.start,
        window_end=window.end,
        production_version=production,
        predictions=facts.predictions if facts else 0,
        labelled=facts.outcomes.rows if facts and facts.outcomes else 0,
        gates=drift_gates(spec.monitoring, facts) if facts else (),
        feature_psi=feature_psi(columns),
        newest_mature_as_of=mature[-1] if mature else None,
        mature_periods=len(mature),
        trained_up_to=trained_up_to(home, spec),
        created_at=home.clock(spec.name).now(),
        columns=columns,
    )


def _mature(home: Home, spec: LoopSpec, period: Period) -> list[datetime]:
    """The as_of of every snapshot whose labels are known at the end of the period."""
    store, horizon = SnapshotStore(home.settings.home_dir), timedelta(days=spec.horizon_days)
    moments = [spec.period(key).end for key in store.periods(spec.name)]
    return [moment for moment in moments if moment + horizon <= period.end]


def _page(home: Home, spec: LoopSpec, parts: Sequence[Period], profile: ReferenceProfile) -> Path | None:
    """Evidently's page on bounded samples: the scores and the production version's features that matter most.

    The decision is ours, from all rows and features; this is for looking, and drawing one column costs 0.15 s. None
    where no column has the two values on each side that a spread needs.
    """
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    reference = pd.read_parquet(version_dir(home, spec, profile.version) / "reference_sample.parquet")
    current = _sample(home, spec, parts, profile)
    shown = sorted(profile.features, key=lambda name: -profile.importance[name])[:MAX_PAGE_FEATURES]
    columns = [
        name
        for name in (SCORE, *shown)
        if min(reference[name].notna().sum(), current[name].notna().sum()) >= MIN_PAGE_VALUES
    ]
    if not columns:
        return None
    with np.errstate(all="ignore"):
        snapshot = Report([DataDriftPreset()]).run(
            Dataset.from_pandas(current[columns]), Dataset.from_pandas(reference[columns].astype(np.float64))
        )
    file = data_dir(home, spec) / "drift" / f"{parts[-1].key}.html"
    return write_text(file, snapshot.get_html_str(as_iframe=False))


def _sample(home: Home, spec: LoopSpec, parts: Sequence[Period], profile: ReferenceProfile) -> pd.DataFrame:
    """At most so many rows of the newest periods of the window: not all of its files are read to draw a page."""
    found: list[pd.DataFrame] = []
    for part in reversed(parts):
        rows = counted(predictions_of(home, spec, part))
        found.append(rows[rows["model_version"] == profile.version])
        if sum(map(len, found)) >= MAX_PAGE_ROWS:
            break
    seen = joined_up(found)
    seen = seen.sample(min(MAX_PAGE_ROWS, len(seen)), random_state=spec.training.seed)
    names = list(profile.features)
    return pd.DataFrame(matrix_of(seen, names), columns=names).assign(**{SCORE: seen[SCORE].to_numpy()})
