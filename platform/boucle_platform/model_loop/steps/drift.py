"""Drift of one window against the reference of the production version; Evidently draws the page that people look at."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.contracts.facts import LiveFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.monitoring import DriftReport
from boucle.contracts.profile import ReferenceProfile
from boucle.contracts.windows import Period
from boucle.features.profiles import build_histogram, profile_columns
from boucle.policy.monitoring import drift_gates, feature_psi
from boucle.stats.live import measure_outcomes
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import data_dir, read_reference, trained_up_to, version_dir, write_text

MAX_PAGE_ROWS = 2_000
MAX_PAGE_FEATURES = 4
"""Evidently takes a sixth of a second a column; the drift of all features is in the metadata."""


def measure_drift(
    home: Home, spec: LoopSpec, period: Period, predictions: pd.DataFrame, outcomes: pd.DataFrame, *, draw: bool
) -> tuple[DriftReport, Path | None]:
    """Judge what the production version answered in the window. Without a version or answers there is no verdict.

    Args:
        home: Where snapshots and the reference lie.
        spec: The model.
        period: The window, named by its last period.
        predictions: What was answered in it.
        outcomes: Answers whose outcome became known in it.
        draw: Whether to render Evidently's page; it takes a second.
    """
    production = home.state.production(spec.name)
    if production is None:
        return _report(home, spec, period, None, predictions=0, labelled=0), None
    seen = predictions[predictions["model_version"] == production]
    judged = outcomes[outcomes["model_version"] == production]
    reference = read_reference(home, spec, production)
    facts = _facts(spec, reference, seen, judged)
    drifted = feature_psi(facts)
    report = _report(
        home, spec, period, production, predictions=len(seen), labelled=len(judged), facts=facts, drifted=drifted
    )
    return report, _page(home, spec, period, reference, seen) if draw and len(seen) else None


def _facts(spec: LoopSpec, reference: ReferenceProfile, seen: pd.DataFrame, judged: pd.DataFrame) -> LiveFacts:
    matrix = _matrix(seen, len(reference.features))
    names = list(reference.features)
    labels, scores = (judged[name].to_numpy(dtype=np.float64) for name in ("label", "proba"))
    known = measure_outcomes(
        labels,
        scores,
        judged["entity_key"].to_numpy(),
        seed=spec.training.seed,
        level=spec.monitoring.confidence,
    )
    return LiveFacts(
        reference=reference,
        predictions=len(seen),
        positives=known.positives,
        scores=build_histogram(seen["proba"].to_numpy(dtype=np.float64), reference.scores.edges),
        features=profile_columns({name: matrix[:, column] for column, name in enumerate(names)}, reference.features),
        calibration=known.calibration,
        log_loss=known.log_loss,
    )


def _report(
    home: Home,
    spec: LoopSpec,
    period: Period,
    production: ModelVersion | None,
    *,
    predictions: int,
    labelled: int,
    facts: LiveFacts | None = None,
    drifted: dict[str, float] | None = None,
) -> DriftReport:
    mature = _mature(home, spec, period)
    return DriftReport(
        model=spec.name,
        period=period.key,
        window_start=period.start,
        window_end=period.end,
        production_version=production,
        predictions=predictions,
        labelled=labelled,
        gates=() if facts is None else drift_gates(spec.monitoring, facts),
        feature_psi=drifted or {},
        newest_mature_as_of=mature[-1] if mature else None,
        mature_periods=len(mature),
        trained_up_to=trained_up_to(home, spec),
        created_at=home.clock(spec.name).now(),
    )


def _mature(home: Home, spec: LoopSpec, period: Period) -> list[datetime]:
    """The as_of of every snapshot whose labels are known at the end of the period."""
    store, horizon = SnapshotStore(home.settings.home_dir), timedelta(days=spec.horizon_days)
    moments = [spec.period(key).end for key in store.periods(spec.name)]
    return [moment for moment in moments if moment + horizon <= period.end]


def _page(home: Home, spec: LoopSpec, period: Period, profile: ReferenceProfile, seen: pd.DataFrame) -> Path:
    """Evidently's page on bounded samples: the scores and the production version's features that matter most.

    The decision is ours, from all rows and features; this is for looking, and drawing one column costs 0.15 s.
    """
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    reference = pd.read_parquet(version_dir(home, spec, profile.version) / "reference_sample.parquet")
    names = list(profile.features)
    sample = seen.sample(min(MAX_PAGE_ROWS, len(seen)), random_state=spec.training.seed)
    current = pd.DataFrame(_matrix(sample, len(names)), columns=names).assign(proba=sample["proba"].to_numpy())
    shown = sorted(names, key=lambda name: -profile.importance[name])[:MAX_PAGE_FEATURES]
    columns = [name for name in ("proba", *shown) if reference[name].notna().any() and current[name].notna().any()]
    with np.errstate(all="ignore"):
        snapshot = Report([DataDriftPreset()]).run(
            Dataset.from_pandas(current[columns]), Dataset.from_pandas(reference[columns].astype(np.float64))
        )
    return write_text(data_dir(home, spec) / "drift" / f"{period.key}.html", snapshot.get_html_str(as_iframe=False))


def _matrix(rows: pd.DataFrame, columns: int) -> NDArray[np.float64]:
    if rows.empty:
        return np.empty((0, columns))
    return np.vstack(rows["features"].to_list()).astype(np.float64)
