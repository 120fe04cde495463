"""The evidence for or against a candidate: what the gates measured, on which rows, for which bundle."""

from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.verdict import Gate, Verdict, overall


class ModelMetrics(Document):
    """How one set of scores did on the holdout. Log loss in nats; calibration_error = mean score - positive rate."""

    log_loss: float
    auc: float
    brier: float
    calibration_error: float
    mean_score: float


class Evidence(Document):
    """One evaluation report as a value. Its digest is what a decision refers to.

    `gates` are all that a promotion asks: those of the training set, of the candidate, and of the evaluation itself.
    `policy_digest` is of what they were measured by; evidence from before it was recorded has none.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    production_version: ModelVersion | None
    bundle_digest: Digest
    data_digest: Digest
    holdout_rows: int
    holdout_positive_rate: float
    candidate: ModelMetrics
    production: ModelMetrics | None
    baseline: ModelMetrics
    gates: tuple[Gate, ...]
    policy_digest: Digest | None = Field(default=None, exclude_if=lambda digest: digest is None)
    run_id: str
    created_at: AwareDatetime

    @property
    def verdict(self) -> Verdict:
        """Over all gates."""
        return overall(self.gates)


class Candidate(Document):
    """A registered version that was not judged yet: what it was made from, what it cost, how exact its export is.

    `created` is False when the registry held this very bundle already (a retraining that changed nothing).
    `imported_from` says what it is where it was imported from (`version 4 of staging`): its data, code, packages, cost
    and gates are of there.
    """

    schema_version: Literal[1] = 1
    model: ModelName
    version: ModelVersion
    created: bool
    mlflow_run_id: str
    bundle_digest: Digest
    data_digest: Digest
    seed: int
    git_commit: str
    environment_digest: str
    fit_cpu_seconds: float | None
    gates: tuple[Gate, ...]
    imported_from: str = Field(default="", exclude_if=lambda origin: not origin)
