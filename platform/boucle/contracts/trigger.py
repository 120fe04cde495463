"""Documents of the retraining trigger: what was judged, and what became of it."""

from enum import StrEnum
from typing import Literal

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion, PeriodKey
from boucle.contracts.monitoring import DriftReport


class TriggerOutcome(StrEnum):
    """What became of a retraining trigger."""

    FIRED = "fired"
    SUPPRESSED = "suppressed"


class Trigger(Document):
    """One evaluation of the retraining policy, fired or suppressed, with its reason.

    `production_version` and `report_digest` say what was judged; `run_key` names it, so that one report is judged once.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    period: PeriodKey
    production_version: ModelVersion | None = None
    report_digest: Digest | None = None
    outcome: TriggerOutcome
    reason: str
    run_key: str


def judged_report(report: DriftReport, outcome: TriggerOutcome, reason: str) -> Trigger:
    """The trigger of a report, keyed by what was judged: model, window, production version, digest of the report."""
    digest = report.digest()
    return Trigger(
        model=report.model,
        period=report.period,
        production_version=report.production_version,
        report_digest=digest,
        outcome=outcome,
        reason=reason,
        run_key=f"{report.model}/{report.period}/{report.production_version or 'first'}/{digest}",
    )
