"""What a drift check costs, and how near statistics from profiles are to exact ones: parts of `monitoring.py`."""

import sys
import tempfile
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
from monitoring_world import (  # type: ignore[import-not-found]
    CATEGORIES,
    NAMES,
    NULLS,
    REFERENCE_ROWS,
    Floats,
    Rows,
    Shift,
    draw,
    facts_of,
    reference_of,
)
from scipy import stats
from scipy.spatial.distance import jensenshannon

from boucle.contracts.ids import Digest
from boucle.contracts.monitoring import StatisticName
from boucle.contracts.profile import ColumnProfile, PeriodOutcomes, PeriodProfile, ReferenceProfile
from boucle.contracts.windows import next_period
from boucle.features.profiles import merge_profiles, profile_columns
from boucle.policy.columns import column_drifts, column_statistics
from boucle.policy.monitoring import MonitoringPolicy, drift_gates
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps import profiles
from boucle_platform.model_loop.steps.store import data_dir, write_document

POLICY = MonitoringPolicy()
STATISTICS = tuple(name.value for name in StatisticName if name is not StatisticName.CHI_SQUARE)
AGREEMENT_SHIFTS, PERIODS = (0.0, 0.1, 0.5), 30
Json = dict[str, Any]


def say(text: str) -> None:
    """What is being done, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def evidently_columns(before: Rows, now: Rows) -> int:
    """How many columns Evidently calls drifted."""
    from evidently import Dataset, Report
    from evidently.metrics import DriftedColumnsCount

    with np.errstate(all="ignore"):
        found = Report([DriftedColumnsCount()]).run(_dataset(Dataset, now), _dataset(Dataset, before))
    return int(found.dict()["metrics"][0]["value"]["count"])


def _dataset(kind: Any, rows: Rows) -> Any:
    from evidently import DataDefinition

    named = [NAMES[place] for place in CATEGORIES]
    numbers = [name for name in (*NAMES, "proba") if name not in named]
    return kind.from_pandas(
        rows.frame(), data_definition=DataDefinition(numerical_columns=numbers, categorical_columns=named)
    )


def check_cost(n: int, rng: np.random.Generator) -> Json:
    """Processor seconds of boucle and of Evidently for one window of n rows, one after the other on the same rows.

    The least of five for boucle, whose times are so short that a busy neighbour doubles them; Evidently runs once.
    """
    from evidently import Dataset, Report
    from evidently.presets import DataDriftPreset

    before, now = draw(rng, n), draw(rng, n)
    reference = reference_of(before)
    looks = []
    for _ in range(5):
        started = time.process_time()
        facts = facts_of(reference, now)
        made = time.process_time()
        drift_gates(POLICY, facts)
        column_drifts(POLICY, facts)
        looks.append((made - started, time.process_time() - made))
    say(f"Evidently on {n:,} rows, both sides")
    began, started = time.perf_counter(), time.process_time()
    with np.errstate(all="ignore"):
        Report([DataDriftPreset()]).run(_dataset(Dataset, now), _dataset(Dataset, before))
    evidently = time.process_time() - started
    profile, check = (min(column) for column in zip(*looks, strict=True))
    return {
        "rows": n,
        "boucle_profile_seconds": profile,
        "boucle_check_seconds": check,
        "evidently_seconds": evidently,
        "evidently_wall_seconds": time.perf_counter() - began,
        "ratio_evidently_to_boucle": evidently / (profile + check),
        "ratio_evidently_to_check_alone": evidently / check,
    }


def history_cost(rng: np.random.Generator, *, days: Sequence[int] = (10, 500), looks: int = 9) -> Json:
    """Milliseconds of processor time of a check of seven days, by how many days of the home have profiles."""
    spec = catalogue.spec_of("flight_delay")
    reference = reference_of(draw(rng, REFERENCE_ROWS)).model_copy(update={"model": spec.name})
    facts = facts_of(reference, draw(rng, 2_000))
    times: dict[str, float] = {}
    for count in days:
        with tempfile.TemporaryDirectory(prefix="boucle-bench-") as folder:
            home = Home(Settings(home=folder))
            periods = [spec.period("2013-01-01")]
            while len(periods) < count:
                periods.append(next_period(periods[-1], spec.cadence))
            for period in periods:
                _keep(home, spec, period, reference, facts)
            found = []
            for _ in range(looks):
                # Processor time: what else the machine does is not the check's.
                started = time.process_time()
                seen = profiles.facts_of(home, spec, periods[-7:], reference)
                drift_gates(POLICY, seen)
                column_drifts(POLICY, seen)
                found.append((time.process_time() - started) * 1e3)
            times[str(count)] = median(found)
            home.state.close()
    few, many = (times[str(count)] for count in days)
    return {"milliseconds_by_days": times, "history_ratio": many / few}


def _keep(home: Home, spec: Any, period: Any, reference: ReferenceProfile, facts: Any) -> None:
    """Profiles as the step writes them; of each day the same."""
    named = {
        "model": spec.name,
        "version": reference.version,
        "period": period.key,
        "revision": 1,
        "reference_digest": Digest(reference.digest()),
        "created_at": period.end,
    }
    folder = data_dir(home, spec) / "profiles" / period.key
    answers = PeriodProfile(rows=facts.predictions, features=dict(facts.features), scores=facts.scores, **named)
    write_document(folder / profiles.ANSWERS / "version-1.revision-1.json", answers)
    write_document(
        folder / profiles.OUTCOMES / "version-1.revision-1.json", PeriodOutcomes(known=facts.outcomes, **named)
    )


def agreement(rng: np.random.Generator, *, rows: int) -> Json:
    """The largest difference of each statistic to the exact one, over the features that are numbers."""
    before = draw(rng, rows)
    reference = reference_of(before)
    numbers = [name for place, name in enumerate(NAMES) if place not in (*CATEGORIES, NULLS)]
    by_shift = {}
    for shift in AGREEMENT_SHIFTS:
        now = draw(rng, rows, Shift(name="", deviations=shift))
        parts = [
            profile_columns({name: values[part::PERIODS] for name, values in now.columns.items()}, reference.columns)
            for part in range(PERIODS)
        ]
        merged = merge_profiles(parts)
        found = [
            _apart(reference.columns[name], merged[name], before.columns[name], now.columns[name]) for name in numbers
        ]
        by_shift[f"{shift:g}"] = {name: max(one[name] for one in found) for name in STATISTICS}
    return {"rows": rows, "by_shift": by_shift, "psi": {key: row["psi"] for key, row in by_shift.items()}}


def _apart(reference: ColumnProfile, merged: ColumnProfile, before: Floats, now: Floats) -> dict[str, float]:
    """Of one column; exact index and Jensen-Shannon distance are on the same bins, the others on the raw rows.

    The exact index is the plain one, without what boucle adds to each bin, over the bins that both sides use.
    """
    if reference.categories:
        bins = np.array([*reference.categories.values, np.inf])
    else:
        bins = np.array([-np.inf, *reference.histogram.edges, np.inf])
    counts = np.array([np.histogram(values, bins)[0] for values in (before, now)], dtype=np.float64)
    p, q = (counts / counts.sum(axis=1, keepdims=True))[:, counts.min(axis=0) > 0]
    counts = counts[:, counts.sum(axis=0) > 0]
    exact = {
        "psi": float(np.sum((p - q) * np.log(p / q))),
        "jensen_shannon": float(jensenshannon(*counts, base=2)),
        "kolmogorov_smirnov": float(stats.ks_2samp(before, now, method="asymp").statistic),
        "wasserstein": float(stats.wasserstein_distance(before, now) / before.std()),
    }
    measured = {one.name.value: one.value for one in column_statistics(reference, merged, level=0.99)}
    return {name: abs(measured[name] - exact[name]) for name in STATISTICS}
