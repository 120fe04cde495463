"""Mergeable profiles: what a distribution looked like, in a few kilobytes."""

from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion


class Histogram(Document):
    """Counts of one column on fixed edges.

    `counts` has `len(edges) + 1` entries: below the first edge, the half-open bins `[edge, next)`, and from the last
    edge up. Two histograms on the same edges merge by adding counts. `nulls` counts missing values.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    nulls: int

    @property
    def total(self) -> int:
        """Values seen, missing ones included."""
        return sum(self.counts) + self.nulls


class ReferenceProfile(Document):
    """How features and scores of one version looked on its holdout: the reference window of its drift reports.

    `importance` (share of the summed permutation importance, at least 0) weighs the features' drift.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    window_start: AwareDatetime
    window_end: AwareDatetime
    rows: int
    features: dict[str, Histogram]
    scores: Histogram
    mean_score: float
    positive_rate: float
    log_loss: float
    importance: dict[str, float]
