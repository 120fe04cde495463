"""Evaluation: candidate, production and baseline on the same mature holdout, as evidence and as a page for people."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from boucle.contracts.bundle import CONTRACT_FILE, MODEL_FILE, BundleContract
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.facts import EvaluationFacts
from boucle.contracts.ids import ModelVersion
from boucle.errors import EvaluationError
from boucle.operations.production import promoted_bundles
from boucle.policy.evaluation import evaluate_gates
from boucle_adapters.home import Home
from boucle_adapters.serving_trial import try_bundle
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.store import (
    JUDGED,
    LEARNT,
    read_document,
    read_reference,
    version_dir,
    write_document,
    write_text,
)
from boucle_platform.model_loop.steps.training import (
    HOLDOUT,
    TRAIN,
    contract_of,
    holdout_of,
    read_rows,
    write_reference,
)

if TYPE_CHECKING:
    from boucle.stats.metrics import Vector
    from boucle.training.evaluate import Holdout, Scores, Trials
    from boucle.training.parity import Answer
    from boucle.training.report import ReportCurves

LATENCY_REQUESTS = 1_000
LEARNT_ROWS = 20_000
"""Training rows that the candidate scores again: ten bins of them are exact enough."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Evidence, the calibration curves by name (mean scores, observed rates), and the HTML page."""

    evidence: Evidence
    calibration: dict[str, tuple[list[float], list[float]]]
    file: Path


def evaluate(home: Home, spec: LoopSpec, manifest: TrainingManifest, candidate: Candidate, run_id: str) -> Report:
    """Measure, judge, write the evidence and the page; decides nothing about production."""
    from boucle.training.evaluate import Contracts
    from boucle.training.evaluate import evaluate as measure
    from boucle.training.parity import onnx_model
    from boucle.training.report import markdown_summary, render_report, report_curves

    production = home.state.production(spec.name)
    require_fair_comparison(home, spec, manifest, candidate, production)
    rows = read_rows(home, manifest)
    judged = rows[rows["part"] == HOLDOUT]
    holdout = holdout_of(judged, manifest)
    bundle, before = home.bundles.fetch(candidate.bundle_digest), _production_bundle(home, spec, production)
    scores = _scores(rows, holdout, bundle, before, seed=spec.training.seed)
    served = None if before is None else _contract(before)
    facts = measure(
        holdout,
        scores,
        Contracts(candidate=_contract(bundle), declared=contract_of(spec), served=served),
        _trials(spec, manifest, candidate, bundle, holdout, scores),
        seed=spec.training.seed,
        level=spec.promotion.confidence,
        slicing=spec.promotion.slicing,
        costs=spec.promotion.costs,
    )
    evidence = _evidence(home, spec, manifest, candidate, facts, production, run_id)
    answer = onnx_model((bundle / MODEL_FILE).read_bytes())
    if candidate.imported_from and candidate.version != production:
        _write_reference_of_here(home, spec, candidate.version, answer, judged, manifest)
    importance = read_reference(home, spec, candidate.version).importance
    curves = report_curves(holdout, scores, answer=answer, importance=importance, seed=spec.training.seed)
    # By digest: what a decision refers to is there for ever, whatever is evaluated later.
    write_document(home.evidence.file(evidence, ".json"), evidence)
    write_text(home.evidence.file(evidence, ".md"), markdown_summary(evidence, facts.slices))
    page = render_report(evidence, curves, facts.slices, candidate)
    file = write_text(home.evidence.file(evidence), page)
    _log(home, candidate, evidence, file)
    return Report(evidence=evidence, calibration=_calibration(curves), file=file)


def require_fair_comparison(
    home: Home, spec: LoopSpec, manifest: TrainingManifest, candidate: Candidate, production: ModelVersion | None
) -> None:
    """The candidate learnt from this training set or was imported, and neither it nor production from the holdout.

    Raises:
        EvaluationError: It is not so.
        NotEnoughDataError: What production learnt from is not on record.
    """
    if not candidate.imported_from and candidate.data_digest != manifest.content_digest:
        raise EvaluationError(
            f"Version {candidate.version} of '{spec.model}' learnt from the rows {candidate.data_digest[:12]}, the "
            f"training set holds {manifest.content_digest[:12]}. Materialise candidate_model again; nothing was "
            "measured."
        )
    learnt = {candidate.version: _learnt_from(home, spec, manifest, candidate)}
    if production is not None:
        learnt[production] = read_document(version_dir(home, spec, production) / LEARNT, TrainingManifest)
    for version, training in learnt.items():
        if seen := sorted(set(training.train_as_of) & set(manifest.holdout_as_of)):
            raise EvaluationError(
                f"Version {version} of '{spec.model}' learnt from {seen[0]:%Y-%m-%d}, which the holdout would judge it "
                "on. Land further periods and materialise training_set again. Nothing was measured."
            )


def metric_table(evidence: Evidence) -> list[dict[str, Any]]:
    """Candidate, production and baseline as table rows."""
    from boucle.training.evaluate import metric_rows

    return [dict(row) for row in metric_rows(evidence.candidate, evidence.production, evidence.baseline)]


def _evidence(
    home: Home,
    spec: LoopSpec,
    manifest: TrainingManifest,
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
        data_digest=manifest.content_digest,
        holdout_rows=facts.rows,
        holdout_positive_rate=facts.positives / facts.rows,
        candidate=facts.candidate,
        production=facts.production,
        baseline=facts.baseline,
        # Of an imported version, the candidate brings those of its training set.
        gates=(
            *(() if candidate.imported_from else manifest.gates),
            *candidate.gates,
            *evaluate_gates(spec.promotion, facts),
        ),
        policy_digest=spec.promotion.measuring_digest(),
        run_id=run_id,
        created_at=home.clock(spec.name).now(),
    )


def _learnt_from(home: Home, spec: LoopSpec, manifest: TrainingManifest, candidate: Candidate) -> TrainingManifest:
    """What the candidate learnt from: this training set, or that of the environment it was imported from."""
    if not candidate.imported_from:
        return manifest
    return read_document(version_dir(home, spec, candidate.version) / LEARNT, TrainingManifest)


def _write_reference_of_here(
    home: Home,
    spec: LoopSpec,
    version: ModelVersion,
    answer: "Answer",
    judged: pd.DataFrame,
    manifest: TrainingManifest,
) -> None:
    """What drift and live performance of an imported version are held against: it came without rows.

    Not for the version in production, which would be compared with something else from one day to the next.
    """
    write_reference(home, spec, version, answer, judged, manifest)
    write_document(version_dir(home, spec, version) / JUDGED, manifest)


def _production_bundle(home: Home, spec: LoopSpec, production: ModelVersion | None) -> Path | None:
    if production is None:
        return None
    return home.bundles.fetch(promoted_bundles(home.state, spec.name)[production])


def _trials(
    spec: LoopSpec,
    manifest: TrainingManifest,
    candidate: Candidate,
    bundle: Path,
    holdout: "Holdout",
    scores: "Scores",
) -> "Trials":
    """Ask the candidate: with values missing and extreme, one row at a time, and over HTTP in the serving app."""
    from boucle.training.evaluate import Trials
    from boucle.training.parity import measure_latency, onnx_model
    from boucle.training.robustness import robustness

    model = (bundle / MODEL_FILE).read_bytes()
    return Trials(
        robustness=robustness(
            onnx_model(model),
            holdout.features,
            holdout.labels,
            _contract(bundle).features,
            baseline_rate=float(scores.baseline[0]),
            seed=spec.training.seed,
        ),
        latency=measure_latency(model, holdout.features[:LATENCY_REQUESTS], timer=time.perf_counter),
        api=try_bundle(
            bundle,
            digest=candidate.bundle_digest,
            version=candidate.version,
            as_of=manifest.holdout_as_of[-1],
        ),
    )


def _contract(bundle: Path) -> BundleContract:
    return BundleContract.model_validate_json((bundle / CONTRACT_FILE).read_bytes())


def _scores(rows: pd.DataFrame, holdout: "Holdout", candidate: Path, production: Path | None, *, seed: int) -> "Scores":
    """What candidate, production and baseline say of the holdout; both models answer as they would be served."""
    from boucle.training.evaluate import Scores, baseline_scores
    from boucle.training.fit import feature_matrix, label_vector
    from boucle.training.parity import onnx_model

    judged, learnt = (rows[rows["part"] == part] for part in (HOLDOUT, TRAIN))

    def answers(bundle: Path, asked: pd.DataFrame) -> "Vector":
        names = _contract(bundle).feature_names
        return onnx_model((bundle / MODEL_FILE).read_bytes())(feature_matrix(asked, names))

    sample = learnt.sample(min(len(learnt), LEARNT_ROWS), random_state=seed)
    return Scores(
        candidate=answers(candidate, judged),
        production=None if production is None else answers(production, judged),
        baseline=baseline_scores(label_vector(learnt), len(holdout.labels)),
        learnt=answers(candidate, sample),
    )


def _calibration(curves: "ReportCurves") -> dict[str, tuple[list[float], list[float]]]:
    return {
        name: ([point.mean_score for point in curve], [point.positive_rate for point in curve])
        for name, curve in curves.reliability.items()
        if name != "baseline"
    }


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
