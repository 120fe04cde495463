"""Documents of monitoring: what drifted."""

from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion, PeriodKey
from boucle.contracts.verdict import Gate, Verdict


class StatisticName(StrEnum):
    """How far two distributions are apart; `boucle.stats.drift` has the formulas."""

    PSI = "psi"
    JENSEN_SHANNON = "jensen_shannon"
    KOLMOGOROV_SMIRNOV = "kolmogorov_smirnov"
    WASSERSTEIN = "wasserstein"
    CHI_SQUARE = "chi_square"


class DriftStatistic(Document):
    """One statistic of one column: a larger value is more drift, whichever it is.

    `limit` is the largest value to expect of a window without drift; of the Wasserstein distance, which has no such
    law, the usual one. `p_value` is the probability of at least this value without drift, None where no law is known.
    """

    name: StatisticName
    value: float
    unit: str
    direction: Literal["larger is more drift"] = "larger is more drift"
    limit: float
    p_value: float | None
    reference_n: int
    current_n: int

    @property
    def is_beyond(self) -> bool:
        """Whether the value is above its limit."""
        return self.value > self.limit


class ColumnDrift(Document):
    """One column of a window against its reference.

    `verdict` is failed where drift is sure among all columns (chi-square, Holm 1979) and the PSI beyond what chance
    explains is above the policy's limit of a column; it is shown, gates decide. `importance` is that of the production
    version, None of the scores.
    """

    column: str
    importance: float | None
    verdict: Verdict
    statistics: tuple[DriftStatistic, ...]

    def statistic(self, name: StatisticName) -> DriftStatistic | None:
        """The statistic of this name, where the column has it."""
        return next((found for found in self.statistics if found.name is name), None)


class DriftReport(Document):
    """The current window against the reference of the production version.

    `gates` say whether drift is within limits; `feature_psi` is shown, and enters only through its weighted mean:
    a cohort that ages moves some features every month without harm. Since schema version 2 `columns` has every
    statistic of every column, the scores first.
    """

    schema_version: Literal[1, 2] = 2
    model: ModelName
    period: PeriodKey
    window_start: AwareDatetime
    window_end: AwareDatetime
    production_version: ModelVersion | None
    predictions: int
    labelled: int
    gates: tuple[Gate, ...]
    feature_psi: dict[str, float]
    newest_mature_as_of: AwareDatetime | None
    mature_periods: int
    trained_up_to: AwareDatetime | None
    created_at: AwareDatetime
    columns: tuple[ColumnDrift, ...] = ()
