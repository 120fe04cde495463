"""Candidate, production and holdout belong together, or nothing is measured."""

from pathlib import Path
from typing import Any

import pytest

from assets_tests.judging import MODEL, training_manifest
from boucle.contracts.evidence import Candidate
from boucle.contracts.ids import Digest, ModelVersion
from boucle.errors import EvaluationError, NotEnoughDataError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.steps.evaluation import evaluate, require_fair_comparison
from boucle_platform.model_loop.steps.store import version_dir, write_document

SPEC = catalogue.spec_of("repurchase")
ROWS, OTHER_ROWS = Digest("a" * 64), Digest("b" * 64)
PRODUCTION = ModelVersion(1)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(Settings(home=str(tmp_path)))


def candidate(**changes: Any) -> Candidate:
    facts: dict[str, Any] = {
        "model": MODEL,
        "version": ModelVersion(2),
        "created": True,
        "mlflow_run_id": "",
        "bundle_digest": Digest("0" * 64),
        "data_digest": ROWS,
        "seed": 7,
        "git_commit": "",
        "environment_digest": Digest("e" * 64),
        "fit_cpu_seconds": 1.0,
        "gates": (),
    }
    return Candidate(**facts | changes)


def production_learnt_from(home: Home, *train: str) -> None:
    write_document(version_dir(home, SPEC, PRODUCTION) / "training.json", training_manifest(train=train))


def test_a_candidate_of_this_training_set_is_compared_with_a_production_that_never_saw_the_holdout(home: Home):
    production_learnt_from(home, "1997-03-01", "1997-04-01")
    require_fair_comparison(home, SPEC, training_manifest(), candidate(), PRODUCTION)


def test_without_a_production_model_only_the_candidate_has_to_fit(home: Home):
    require_fair_comparison(home, SPEC, training_manifest(), candidate(), None)


def test_a_candidate_of_another_training_set_is_not_judged_on_this_one(home: Home):
    with pytest.raises(
        EvaluationError, match=r"learnt from the rows bbbbbbbbbbbb, .* Materialise candidate_model again"
    ):
        evaluate(home, SPEC, training_manifest(), candidate(data_digest=OTHER_ROWS), "run")


def test_production_is_not_judged_on_what_it_learnt_from(home: Home):
    production_learnt_from(home, "1997-05-01", "1997-06-01")
    with pytest.raises(EvaluationError, match="Version 1 of 'repurchase' learnt from 1997-06-01"):
        require_fair_comparison(home, SPEC, training_manifest(), candidate(), PRODUCTION)


def test_a_candidate_is_not_judged_on_what_it_learnt_from(home: Home):
    mixed = training_manifest(train=("1997-05-01", "1997-06-01"))
    with pytest.raises(EvaluationError, match="Version 2 of 'repurchase' learnt from 1997-06-01"):
        require_fair_comparison(home, SPEC, mixed, candidate(), None)


def test_a_production_of_unknown_training_is_no_comparison(home: Home):
    with pytest.raises(NotEnoughDataError, match="no TrainingManifest"):
        require_fair_comparison(home, SPEC, training_manifest(), candidate(), PRODUCTION)


def imported(home: Home, *train: str) -> Candidate:
    """A candidate that learnt from other rows than this home has, at these moments."""
    made = candidate(data_digest=OTHER_ROWS, imported_from="version 4 of staging")
    write_document(version_dir(home, SPEC, made.version) / "training.json", training_manifest(train=train))
    return made


def test_an_imported_candidate_is_judged_on_a_holdout_of_here_that_it_never_saw(home: Home):
    require_fair_comparison(home, SPEC, training_manifest(), imported(home, "1997-04-01", "1997-05-01"), None)


def test_an_imported_candidate_is_not_judged_on_a_moment_that_it_learnt_from_elsewhere(home: Home):
    with pytest.raises(EvaluationError, match="Version 2 of 'repurchase' learnt from 1997-06-01"):
        require_fair_comparison(home, SPEC, training_manifest(), imported(home, "1997-05-01", "1997-06-01"), None)
