"""Documents of monitoring: what drifted."""

from typing import Literal

from pydantic import AwareDatetime

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName, ModelVersion, PeriodKey
from boucle.contracts.verdict import Gate


class DriftReport(Document):
    """The current window against the reference of the production version.

    `gates` say whether drift is within limits; `feature_psi` is shown, and enters only through its weighted mean:
    a cohort that ages moves some features every month without harm.
    """

    schema_version: Literal[1] = 1
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
