"""Mergeable profiles: what a distribution looked like, in a few kilobytes."""

from functools import cached_property
from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion, PeriodKey


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


class Moments(Document):
    """Of the finite values of a column, at least one: `m2` is the sum of squared distances from the mean."""

    n: int = Field(ge=1)
    mean: float
    m2: float
    minimum: float
    maximum: float

    @property
    def deviation(self) -> float:
        """The standard deviation, in the unit of the column."""
        return float((self.m2 / self.n) ** 0.5)


class Categories(Document):
    """Counts by value, in the order of `values` (ascending); `other` counts values that are none of them.

    `is_ordered`: the values are numbers of which there are few, and not places in a list of names.
    """

    values: tuple[float, ...]
    counts: tuple[int, ...]
    other: int
    is_ordered: bool


class ValueCount(Document):
    """How often one value was seen."""

    value: float
    count: int


class ColumnDetails(Document):
    """What a histogram does not say of a column.

    `sums` are those of the finite values in each bin of the histogram; `infinite` counts the others in the first and
    in the last bin. `frequent` are values that at least a tenth of a period's rows have, ascending; over
    several periods the counts are of those periods in which they were frequent. `design_effect` is how many rows are
    worth one of another entity (`boucle.features.clusters`); an entity that is there in two periods counts as two.
    """

    sums: tuple[float, ...]
    infinite: tuple[int, int]
    moments: Moments | None
    frequent: tuple[ValueCount, ...]
    categories: Categories | None = None
    design_effect: float = 1.0


class ColumnProfile(Document):
    """One column of one window. `details` is None in what earlier releases wrote."""

    histogram: Histogram
    details: ColumnDetails | None = None

    @property
    def categories(self) -> Categories | None:
        """Counts by value, where the column has few."""
        return self.details.categories if self.details else None

    @property
    def total(self) -> int:
        """Values that count, missing ones included; rows of an entity beyond its share are left out."""
        return self.histogram.total

    @property
    def design_effect(self) -> float:
        """How many rows are worth one of another entity; 1 where an earlier release did not ask."""
        return self.details.design_effect if self.details else 1.0

    @property
    def worth(self) -> float:
        """As many rows of different entities would say as much."""
        return self.total / self.design_effect

    @cached_property
    def places(self) -> tuple[float, ...]:
        """What names the bins: the values of a category, else the edges."""
        return self.categories.values if self.categories else self.histogram.edges

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Counts of all bins: by value where there are few, else by edges; the last one holds what is missing."""
        if self.categories:
            return (*self.categories.counts, self.categories.other, self.histogram.nulls)
        return (*self.histogram.counts, self.histogram.nulls)


class ClusterSums(Document):
    """Of one value a row, with S the sum and k the number of an entity's rows: sum of S^2 and of S k over entities.

    Those and the sum of k^2 give the variance of the mean over whole entities, and can be added.
    """

    squares: float
    by_size: float


class CalibrationProfile(Document):
    """What became known of scores: by score bin (as in a histogram, missing scores have none), and for intervals.

    `gap` is of score - label, `loss` of the log loss in nats; `sizes_squared` is the sum over entities of their squared
    number of rows. An entity that is there in two periods counts twice.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    positives: tuple[int, ...]
    score_sums: tuple[float, ...]
    loss_sums: tuple[float, ...]
    entities: int
    sizes_squared: float
    gap: ClusterSums
    loss: ClusterSums

    @property
    def rows(self) -> int:
        """Rows with a known label."""
        return sum(self.counts)


class ReferenceProfile(Document):
    """How features and scores of one version looked on its holdout: the reference window of its drift reports.

    `importance` (share of the summed permutation importance, at least 0) weighs the features' drift. Since schema
    version 2 there are `details` by feature, those of the scores, and `outcomes`.
    """

    schema_version: Literal[1, 2] = 2
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
    details: dict[str, ColumnDetails] = Field(default_factory=dict)
    score_details: ColumnDetails | None = None
    outcomes: CalibrationProfile | None = None

    @cached_property
    def columns(self) -> dict[str, ColumnProfile]:
        """The profile of each feature."""
        return {
            name: ColumnProfile(histogram=histogram, details=self.details.get(name))
            for name, histogram in self.features.items()
        }

    @cached_property
    def score_column(self) -> ColumnProfile:
        """The profile of the scores."""
        return ColumnProfile(histogram=self.scores, details=self.score_details)


class PeriodProfile(Document):
    """What one version was asked and answered in one period, on the bins of its reference.

    Made once when the period arrives. When its rows change later, a profile with the next `revision` is added.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    period: PeriodKey
    revision: int = Field(ge=1)
    reference_digest: Digest
    rows: int
    features: dict[str, ColumnProfile]
    scores: ColumnProfile
    created_at: AwareDatetime


class PeriodOutcomes(Document):
    """What became known in one period of one version's answers, by score; `revision` as for `PeriodProfile`."""

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    period: PeriodKey
    revision: int = Field(ge=1)
    reference_digest: Digest
    known: CalibrationProfile
    created_at: AwareDatetime
