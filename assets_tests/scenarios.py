"""Named worlds built from plain values, shared by the tests."""

from datetime import UTC, datetime

from boucle.contracts.evidence import Evidence, ModelMetrics
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.operations.actor import Actor
from boucle.policy.evaluation import required_gates
from boucle.policy.limits import GateLimit, GateLimits, PromotionPolicy

MODEL = ModelName("repurchase")
REQUIRED = required_gates(PromotionPolicy())
NOON = datetime(1997, 6, 1, 12, tzinfo=UTC)
SOMEBODY = Actor(name="user:ada", at=NOON, git_commit="abc", dagster_run_id="run-1")


def version(number: int) -> ModelVersion:
    """A version number."""
    return ModelVersion(number)


def digest_of(number: int) -> Digest:
    """A bundle digest that belongs to a version."""
    return Digest(f"{number:064x}")


def gate(name: str, verdict: Verdict) -> Gate:
    """A gate that says this, by the limit that a policy has by default."""
    known = name in GateLimits.model_fields
    asked = GateLimits().of(name) if known else GateLimit(limit=0.3, unit="nats")
    return Gate(
        name=name,
        verdict=verdict,
        measured=0.2,
        bound=Bound.AT_MOST,
        limit=asked.limit,
        unit=asked.unit,
        sample_size=900,
    )


def metrics(log_loss: float) -> ModelMetrics:
    """Metrics of a model with this log loss."""
    return ModelMetrics(log_loss=log_loss, auc=0.8, brier=0.07, calibration_error=0.001, mean_score=0.08)


def evidence(
    candidate: int, *, against: int | None = None, verdict: Verdict = Verdict.PASSED, run_id: str = "run-1"
) -> Evidence:
    """Every gate a promotion asks of version `candidate` against version `against`; `no_regression` says `verdict`."""
    return Evidence(
        model=MODEL,
        version=version(candidate),
        production_version=version(against) if against else None,
        bundle_digest=digest_of(candidate),
        data_digest=digest_of(99),
        holdout_rows=900,
        holdout_positive_rate=0.08,
        candidate=metrics(0.2),
        production=metrics(0.21) if against else None,
        baseline=metrics(0.3),
        gates=tuple(gate(name, verdict if name == "no_regression" else Verdict.PASSED) for name in REQUIRED),
        run_id=run_id,
        created_at=NOON,
    )
