"""What the MLflow run of a candidate says: how it ended and what it cost."""

from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from assets_tests.bundles import MODEL
from assets_tests.judging import gate, live
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.verdict import Verdict
from boucle.errors import ExportError
from boucle.operations import promotion
from boucle.training.fit import fit
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.model_assets import mlflow_key, model_assets
from boucle_platform.model_loop.steps import training
from boucle_platform.resources.home import HomeResource

SPEC = catalogue.spec_of("repurchase")
CANDIDATE = key_of(SPEC, "candidate_model")


class Tracking:
    """Stands for the MLflow run of a step: how it was ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []

    def end_run(self, status: str = "FINISHED") -> None:
        """End it."""
        self.ended.append(status)


class Kept(dg.IOManager):
    """Hands the step something for a training set and keeps nothing."""

    def load_input(self, context: dg.InputContext) -> Any:
        """An empty one: the training itself is replaced in these tests."""
        return TrainingManifest.model_construct()

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        """Nothing."""


@pytest.fixture
def materialise(tmp_path: Path):
    def run() -> list[str]:
        (asset,) = [asset for asset in model_assets(SPEC) if asset.key == CANDIDATE]
        tracking = Tracking()
        dg.materialize(
            [asset, dg.AssetSpec(key_of(SPEC, "training_set"))],
            resources={
                "home": HomeResource.of(Settings(home=str(tmp_path))),
                mlflow_key(SPEC): dg.ResourceDefinition.hardcoded_resource(tracking),
                "io_manager": Kept(),
            },
            raise_on_error=False,
        )
        return tracking.ended

    return run


def candidate(verdict: Verdict) -> Candidate:
    return Candidate(
        model=MODEL,
        version=ModelVersion(1),
        created=True,
        mlflow_run_id="",
        bundle_digest=Digest("0" * 64),
        data_digest=Digest("a" * 64),
        seed=7,
        git_commit="",
        environment_digest="",
        fit_cpu_seconds=1.0,
        gates=(gate("bundle_equals_estimator", verdict), gate("within_compute_budget", Verdict.PASSED)),
    )


def test_the_run_of_a_step_that_fails_is_failed(materialise, monkeypatch):
    def broken(*_: object) -> None:
        raise ExportError("cannot be exported")

    monkeypatch.setattr(training, "make_candidate", broken)
    assert materialise() == ["FAILED"]


@pytest.mark.parametrize(("verdict", "status"), [(Verdict.PASSED, "FINISHED"), (Verdict.FAILED, "FAILED")])
def test_the_run_of_a_candidate_ends_as_its_gates_say(materialise, monkeypatch, verdict, status):
    made = training.Made(candidate=candidate(verdict), reference=live().reference)
    monkeypatch.setattr(training, "make_candidate", lambda *_: made)
    monkeypatch.setattr(promotion, "reject", lambda *_, **__: None)
    assert materialise() == [status]


def test_what_fitting_cost_is_logged_with_its_units():
    features = np.random.default_rng(7).normal(size=(200, 2))
    fitted = fit(lambda seed: LogisticRegression(random_state=seed), features, features[:, 0] > 0, seed=7)
    cost = training.cost_of(fitted)
    assert list(cost) == ["fit_cpu_seconds", "fit_wall_seconds", "peak_memory_mib"]
    assert 0 < cost["fit_wall_seconds"] < 60
    assert 0 <= cost["fit_cpu_seconds"] < 60
    assert 50 < cost["peak_memory_mib"] < 20_000
