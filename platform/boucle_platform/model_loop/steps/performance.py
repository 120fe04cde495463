"""How the live versions did, by period, on the predictions whose outcome became known in it."""

import json

import numpy as np
import pandas as pd

from boucle.contracts.ids import ModelVersion
from boucle.contracts.performance import WindowPerformance
from boucle.contracts.windows import Period
from boucle.stats.metrics import log_loss
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import outcomes
from boucle_platform.model_loop.steps.store import data_dir, write_text


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
