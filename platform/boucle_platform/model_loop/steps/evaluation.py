"""Evaluation: candidate, production and baseline on the same mature holdout, as evidence and as a page for people."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boucle.contracts.bundle import CONTRACT_FILE, MODEL_FILE, BundleContract
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.facts import EvaluationFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.policy.promotion import evaluate_gates
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import version_dir, write_document, write_text
from boucle_platform.model_loop.steps.training import HOLDOUT, TRAIN, contract_of, read_rows

LATENCY_REQUESTS = 1_000


@dataclass(frozen=True, kw_only=True)
class Report:
    """Evidence, the calibration curves by name (mean scores, observed rates), and the HTML page."""

    evidence: Evidence
    calibration: dict[str, tuple[list[float], list[float]]]
    file: Path


def evaluate(home: Home, spec: LoopSpec, manifest: TrainingManifest, candidate: Candidate, run_id: str) -> Report:
    """Measure, judge, write the evidence and the page; decides nothing about production."""
    from boucle.stats.metrics import reliability_curve
    from boucle.training.evaluate import baseline_scores
    from boucle.training.evaluate import evaluate as measure
    from boucle.training.fit import feature_matrix, label_vector
    from boucle.training.parity import measure_latency, onnx_model

    rows = read_rows(home, manifest)
    holdout = rows[rows["part"] == HOLDOUT]
    features, labels = feature_matrix(holdout, manifest.feature_names), label_vector(holdout)
    production = home.state.production(spec.name)
    model = (home.bundles.fetch(candidate.bundle_digest) / MODEL_FILE).read_bytes()
    before = _production_bundle(home, spec, production)
    scores = {"candidate": onnx_model(model)(features)}
    if before is not None:
        served = _contract(before)
        # Production answers from the features that its own contract names, wherever they stand in the rows.
        scores["production"] = onnx_model((before / MODEL_FILE).read_bytes())(
            feature_matrix(holdout, served.feature_names)
        )
    facts = measure(
        labels=labels,
        entities=holdout["entity_key"].to_numpy(),
        candidate=scores["candidate"],
        production=scores.get("production"),
        baseline=baseline_scores(label_vector(rows[rows["part"] == TRAIN]), len(labels)),
        latency=measure_latency(model, features[:LATENCY_REQUESTS], timer=time.perf_counter),
        contract=_contract(home.bundles.fetch(candidate.bundle_digest)),
        declared=contract_of(spec),
        served=None if before is None else _contract(before),
        seed=spec.training.seed,
    )
    evidence = _evidence(home, spec, candidate, facts, production, run_id)
    curves = {name: reliability_curve(labels, values) for name, values in scores.items()}
    file = _write(home, spec, evidence, manifest, facts, labels, scores)
    _log(home, candidate, evidence, file)
    return Report(
        evidence=evidence,
        calibration={
            name: ([point.mean_score for point in curve], [point.positive_rate for point in curve])
            for name, curve in curves.items()
        },
        file=file,
    )


def metric_table(evidence: Evidence) -> list[dict[str, Any]]:
    """Candidate, production and baseline as table rows."""
    from boucle.training.evaluate import metric_rows

    return [dict(row) for row in metric_rows(evidence.candidate, evidence.production, evidence.baseline)]


def _evidence(
    home: Home,
    spec: LoopSpec,
    candidate: Candidate,
    facts: EvaluationFacts,
    production: ModelVersion | None,
    run_id: str,
) -> Evidence:
    return Evidence(
        model=spec.name,
        version=candidate.version,
        production_version=production,
        bundle_digest=candidate.bundle_digest,
        data_digest=candidate.data_digest,
        holdout_rows=facts.rows,
        holdout_positive_rate=facts.positives / facts.rows,
        candidate=facts.candidate,
        production=facts.production,
        baseline=facts.baseline,
        gates=evaluate_gates(spec.promotion, facts),
        run_id=run_id,
        created_at=home.clock.now(),
    )


def _production_bundle(home: Home, spec: LoopSpec, production: ModelVersion | None) -> Path | None:
    if production is None:
        return None
    promoted = {
        row.decision.to_version: row.decision.bundle_digest
        for row in home.state.decisions(spec.name)
        if row.decision.bundle_digest and row.decision.to_version
    }
    return home.bundles.fetch(Digest(str(promoted[production])))


def _contract(bundle: Path) -> BundleContract:
    return BundleContract.model_validate_json((bundle / CONTRACT_FILE).read_bytes())


def _write(
    home: Home,
    spec: LoopSpec,
    evidence: Evidence,
    manifest: TrainingManifest,
    facts: EvaluationFacts,
    labels: Any,
    scores: dict[str, Any],
) -> Path:
    from boucle.training.report import render_report

    folder = version_dir(home, spec, evidence.version)
    write_document(folder / "evidence.json", evidence)
    page = render_report(evidence, manifest, facts, labels=labels, scores=scores)
    return write_text(folder / "report.html", page)


def _log(home: Home, candidate: Candidate, evidence: Evidence, file: Path) -> None:
    named = {"candidate": evidence.candidate, "production": evidence.production, "baseline": evidence.baseline}
    metrics = {
        f"{name}_{metric}": value
        for name, found in named.items()
        if found is not None
        for metric, value in found.model_dump().items()
    }
    home.registry.log_run(
        params={},
        metrics=metrics,
        tags={"evidence_digest": evidence.digest(), "verdict": evidence.verdict.value},
        run_id=candidate.mlflow_run_id,
    )
    home.registry.log_file(candidate.mlflow_run_id, file)
