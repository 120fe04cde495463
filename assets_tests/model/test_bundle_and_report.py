"""What goes out with a candidate: bundle, reference profile, report."""

import hashlib
from datetime import UTC, datetime
from functools import partial

import numpy as np
import pytest

from assets_tests.judging import MODEL, day
from assets_tests.shop import CONTRACT, NAMES, TRIALS, answers, fitted, scores_of, shop
from boucle.contracts.bundle import BundleContract, BundleManifest, WarmUp
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.facts import SlicesFacts
from boucle.contracts.ids import ModelVersion
from boucle.contracts.profile import ReferenceProfile
from boucle.contracts.verdict import GateMode
from boucle.errors import NotEnoughDataError
from boucle.policy.evaluation import evaluate_gates
from boucle.policy.limits import PromotionPolicy
from boucle.training.bundle import bundle_digest, bundle_files
from boucle.training.evaluate import Contracts, evaluate, permutation_importance, reference_profile
from boucle.training.fit import predict
from boucle.training.parity import onnx_model
from boucle.training.report import ReportCurves, markdown_summary, render_report, report_curves

MADE = Candidate.model_validate(
    {
        "model": MODEL,
        "version": 2,
        "created": True,
        "mlflow_run_id": "mlflow-1",
        "bundle_digest": "a" * 64,
        "data_digest": "b" * 64,
        "seed": 7,
        "git_commit": "0123456789ab",
        "environment_digest": "e" * 64,
        "fit_cpu_seconds": 1.0,
        "gates": (),
    }
)
ENTITIES = [str(key) for key in np.asarray(shop().holdout.entities)]


def files() -> dict[str, bytes]:
    return bundle_files(fitted(), CONTRACT, rows=shop().holdout.features, entities=ENTITIES)


def report(*, candidate=None, detail: str = "") -> str:
    evidence, curves, slices = evaluated(candidate=candidate, detail=detail)
    return render_report(evidence, curves, slices, MADE)


def evaluated(*, candidate=None, detail: str = "") -> tuple[Evidence, ReportCurves, SlicesFacts]:
    holdout = shop().holdout
    scores = scores_of(
        answers(fitted()) if candidate is None else candidate, production=np.clip(answers(fitted()) - 0.05, 0, 1)
    )
    policy = PromotionPolicy()
    contracts = Contracts(candidate=CONTRACT, declared=CONTRACT, served=None)
    facts = evaluate(holdout, scores, contracts, TRIALS, seed=7, slicing=policy.slicing)
    gates = evaluate_gates(policy, facts)
    evidence = Evidence.model_validate(
        {
            "model": MODEL,
            "version": 2,
            "production_version": 1,
            "bundle_digest": "a" * 64,
            "data_digest": "b" * 64,
            "holdout_rows": facts.rows,
            "holdout_positive_rate": facts.positives / facts.rows,
            "candidate": facts.candidate,
            "production": facts.production,
            "baseline": facts.baseline,
            "gates": (gates[0].model_copy(update={"detail": detail}), *gates[1:]),
            "run_id": "run-1",
            "created_at": datetime(1997, 6, 1, tzinfo=UTC),
        }
    )
    curves = report_curves(
        holdout,
        scores,
        answer=lambda rows: predict(fitted(), rows),
        importance={"recency": 0.7, "freq": 0.3},
        seed=7,
    )
    return evidence, curves, facts.slices


def test_the_manifest_holds_the_digest_of_every_other_file():
    made = files()
    manifest = BundleManifest.model_validate_json(made.pop("manifest.json"))
    assert manifest.files == {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    assert bundle_digest(files()) == manifest.digest()


def test_the_same_model_makes_the_same_bundle():
    assert files() == files()


def test_the_contract_in_the_bundle_is_the_one_that_was_given():
    assert BundleContract.model_validate_json(files()["contract.json"]) == CONTRACT


def test_the_recorded_requests_are_answered_by_the_model_in_the_bundle():
    made = files()
    warm_up = WarmUp.model_validate_json(made["warmup.json"])
    rows = np.array([[np.nan if value is None else value for value in r.features] for r in warm_up.requests])
    expected = [request.expected for request in warm_up.requests]
    assert onnx_model(made["model.onnx"])(rows) == pytest.approx(expected, abs=warm_up.tolerance)
    assert len(rows) == 32
    assert np.isnan(rows).any(axis=1).sum() == 16


@pytest.mark.parametrize("complete", [True, False])
def test_rows_that_all_miss_something_or_nothing_are_recorded_as_well(complete: bool):
    features = shop().holdout.features
    chosen = features[np.isnan(features).any(axis=1) != complete][:40]
    made = bundle_files(fitted(), CONTRACT, rows=chosen, entities=ENTITIES[:40])
    assert len(WarmUp.model_validate_json(made["warmup.json"]).requests) == 32


def test_a_bundle_without_recorded_requests_is_not_made():
    with pytest.raises(NotEnoughDataError, match="at least one holdout row"):
        bundle_files(fitted(), CONTRACT, rows=shop().holdout.features[:0], entities=[])


def test_importance_is_a_share_and_noise_has_little_of_it():
    found = permutation_importance(partial(predict, fitted()), shop().holdout, seed=7)
    assert sum(found.values()) == pytest.approx(1)
    assert min(found, key=lambda name: found[name]) == "noise"
    assert max(found, key=lambda name: found[name]) in {"recency", "freq"}
    assert found == permutation_importance(partial(predict, fitted()), shop().holdout, seed=7)


def test_the_reference_profile_counts_every_row_of_the_holdout_with_missing_values_apart():
    holdout = shop().holdout
    profile = reference_profile(
        holdout,
        answers(fitted()),
        model=MODEL,
        version=ModelVersion(2),
        window=(day("1997-04-01"), day("1997-05-01")),
        importance=dict.fromkeys(NAMES, 0.25),
    )
    assert {histogram.total for histogram in (*profile.features.values(), profile.scores)} == {len(holdout.labels)}
    assert profile.features["usd"].nulls == np.isnan(holdout.features[:, 2]).sum()
    assert profile.positive_rate == holdout.labels.mean()
    assert profile.outcomes.rows == len(holdout.labels)
    assert profile.columns["usd"].details.moments.mean == pytest.approx(np.nanmean(holdout.features[:, 2]))
    assert ReferenceProfile.model_validate_json(profile.model_dump_json()) == profile


def test_the_report_shows_metrics_gates_plots_and_digests_and_loads_nothing():
    html = report()
    assert html.count("<svg") == 7  # calibration, scores, ROC, precision and recall, importance, two effects
    said = (
        "production (version 1)",
        "no_regression",
        "a" * 64,
        "All 15 blocking gates passed",
        "Slices, worst first",
        "e" * 64,
    )
    for words in said:
        assert words in html
    assert "<script" not in html
    assert "src=" not in html
    assert "<link" not in html


def test_the_same_evaluation_gives_the_same_report():
    assert report() == report()


def test_the_summary_says_the_verdict_the_metrics_and_every_gate_in_markdown():
    evidence, _, slices = evaluated()
    text = markdown_summary(evidence, slices)
    assert text.startswith("### repurchase, version 2: passed\n\nCompared with production, version 1.")
    assert "Worst slice: " in text
    assert all(f"| {gate.name} | passed | (measured " in text for gate in evidence.gates)


def test_a_gate_that_did_not_pass_is_bold_and_a_loose_one_says_what_it_is():
    evidence, _, slices = evaluated(candidate=np.full(len(shop().holdout.labels), 0.25))
    loose = evidence.gates[0].model_copy(update={"mode": GateMode.WARN})
    text = markdown_summary(evidence.model_copy(update={"gates": (loose, *evidence.gates[1:])}), slices)
    assert "| quality_floor | **failed** (warn) |" in text
    assert "| output_sanity | **failed** |" in text


def test_an_effect_follows_the_model_over_the_range_of_the_feature():
    _, curves, _ = evaluated()
    assert list(curves.effects) == ["recency", "freq"]
    grid, scores = curves.effects["recency"]
    assert 0 <= grid[0] < grid[-1] <= 200
    assert scores[0] > scores[-1]  # who bought lately buys again


def test_what_a_gate_says_cannot_become_markup():
    assert "&lt;script&gt;" in report(detail="<script>alert(1)</script>")


def test_a_candidate_with_useless_scores_still_gets_its_report():
    html = report(candidate=np.full(len(shop().holdout.labels), np.nan))
    assert "Not passed: quality_floor" in html
    assert "Production stays as it is" in html
