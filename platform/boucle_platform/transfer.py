"""A version moves between environments: out as one archive, in as a candidate that this environment judges itself."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import numpy as np

from boucle.contracts.archive import BUNDLE_FOLDER, EVIDENCE_FILE, TRAINING_FILE, ArchiveManifest
from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate, Evidence
from boucle.contracts.ids import Digest, ModelVersion
from boucle.errors import ArchiveError, NotEnoughDataError
from boucle.operations import promotion
from boucle.policy.candidate import gates_of_elsewhere
from boucle.policy.promotion import PromotionOutcome
from boucle.policy.signature import schema_differences
from boucle_adapters.home import Home
from boucle_adapters.model_archive import ModelArchive, pack
from boucle_platform.instance import Runner, end_dead_runs
from boucle_platform.model_loop.automation import judge_job_name, refuse_second_retraining
from boucle_platform.model_loop.catalogue import specs
from boucle_platform.model_loop.keys import ACTOR_TAG, key_of
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.risk import risk_of
from boucle_platform.model_loop.steps.store import (
    LEARNT,
    document_file,
    newest_evidence,
    read_document,
    version_dir,
    write_document,
)
from boucle_platform.model_loop.steps.training import contract_of

EMBEDDED = "an embedded home"
"""What an environment without a name is called."""
NOTHING = "Nothing was registered."


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What became of an archive here: as which version, whether it came now, and what this environment says of it.

    `made_here`: a training run of this environment made this very bundle from these very rows; nothing was imported.
    `evidence` is what was measured now; None where nothing was. `said` is why not, or what stands against a promotion.
    """

    version: ModelVersion
    created: bool
    made_here: bool
    manifest: ArchiveManifest
    evidence: Evidence | None
    said: str

    @property
    def passed(self) -> bool:
        """Whether nothing is left to do but to ask for the promotion, or not even that."""
        return not self.said


def export_version(home: Home, spec: LoopSpec, version: ModelVersion) -> tuple[ArchiveManifest, bytes]:
    """One version as an archive; the same version with the same newest evidence gives the same bytes everywhere.

    Raises:
        RegistryError: There is no such version.
        ArchiveError: boucle did not make it.
        NotEnoughDataError: It was never evaluated, or what it learnt from is not on record.
        BundleError: Its bundle is damaged.
    """
    tags = home.registry.version(spec.name, version).tags
    if missing := [name for name in ("bundle_digest", "data_digest", "seed") if name not in tags]:
        raise ArchiveError(
            f"Version {version} of '{spec.model}' has no tag {missing[0]}: boucle did not make it, so there is no "
            "bundle to export. Nothing was written."
        )
    evidence = home.evidence.newest(spec.name, version)
    if evidence is None:
        raise NotEnoughDataError(
            f"Version {version} of '{spec.model}' was never evaluated here: there is no evidence to go with it. "
            f"`boucle retrain {spec.model}` makes a version that is. Nothing was written."
        )
    bundle = home.bundles.fetch(Digest(tags["bundle_digest"]))
    training = read_document(version_dir(home, spec, version) / LEARNT, TrainingManifest)
    manifest = _manifest_of(evidence, tags, home.settings.environment or EMBEDDED)
    files = {f"{BUNDLE_FOLDER}{file.name}": file.read_bytes() for file in bundle.iterdir()}
    files |= {TRAINING_FILE: training.canonical(), EVIDENCE_FILE: evidence.canonical()}
    return manifest, pack(manifest, files)


def _manifest_of(evidence: Evidence, tags: Mapping[str, str], environment: str) -> ArchiveManifest:
    before = tags.get("imported_from", "")
    return ArchiveManifest(
        model=evidence.model,
        version=evidence.version,
        environment=environment,
        origin=f"version {evidence.version} of {environment}" + (f", there from {before}" if before else ""),
        bundle_digest=Digest(tags["bundle_digest"]),
        data_digest=Digest(tags["data_digest"]),
        evidence_digest=evidence.digest(),
        git_commit=tags.get("git_commit", ""),
        source_digest=tags.get("source_digest", ""),
        environment_digest=tags.get("environment_digest", ""),
        seed=int(tags["seed"]),
        files={},
    )


def spec_for(archive: ModelArchive) -> LoopSpec:
    """The model of this code location that the archive is about.

    Raises:
        ArchiveError: There is none, or it has other features, another answer or another horizon.
    """
    model, known = archive.manifest.model, specs()
    if model not in known:
        raise ArchiveError(
            f"The archive holds version {archive.manifest.version} of '{model}', and this code location declares "
            f"{', '.join(known) or 'no model'}. Bring the code of '{model}' here first. {NOTHING}"
        )
    spec = known[model]
    found, declared = archive.contract, contract_of(spec)
    wrong = schema_differences(found, declared)
    if found.output != declared.output:
        wrong.append(f"the answer is '{found.output.description}', the schema has '{declared.output.description}'")
    if archive.training.horizon_days != spec.horizon_days:
        wrong.append(f"a label is known after {archive.training.horizon_days} days, here after {spec.horizon_days}")
    if wrong:
        raise ArchiveError(
            f"The model '{model}', {archive.manifest.origin}, is not what the code here "
            f"declares: {'; '.join(wrong)}. It was made by the code {archive.manifest.git_commit or 'nobody knows'}: "
            f"bring that code here first, or retrain here (`boucle retrain {model}`). {NOTHING}"
        )
    return spec


def import_archive(
    runner: Runner,
    spec: LoopSpec,
    archive: ModelArchive,
    *,
    who: str,
    progress: Callable[[str], None] = lambda _: None,
) -> Imported:
    """Register the version as a candidate, if it is not there yet, and judge it on the newest holdout of this home.

    Production stays what it is: a promotion has to be asked for. A version that is in production, or that was made
    here, is not judged again.

    Raises:
        ConflictError: A run is training, judging or promoting the model. Nothing was registered.
        ArchiveError: The bundle does not answer here as was recorded. Nothing was registered.
    """
    home, manifest = runner.home, archive.manifest
    end_dead_runs(runner.instance)
    refuse_second_retraining(runner.instance, spec)
    progress("asking the model what was recorded")
    require_recorded_answers(archive)
    progress("registering")
    version, created, made_here = _register(home, spec, archive, who)
    done = Imported(version=version, created=created, made_here=made_here, manifest=manifest, evidence=None, said="")
    if made_here or home.state.production(spec.name) == version:
        return done
    _make_candidate(runner, spec, archive, version, created=created)
    progress("judging it on the newest holdout of this home")
    outcome = runner.run(judge_job_name(spec), tags={ACTOR_TAG: who, "boucle/trigger": f"import: {manifest.origin}"})
    newest = newest_evidence(home, spec)
    measured = newest if newest is not None and newest.run_id == outcome.run_id else None
    against = "" if measured is None else _against(home, spec, measured)
    return replace(done, evidence=measured, said=against or outcome.error)


def _against(home: Home, spec: LoopSpec, evidence: Evidence) -> str:
    """What the policy has against a promotion on this evidence; empty where people may ask for it."""
    risk, now = risk_of(home, spec, evidence), home.clock(spec.name).now()
    judged, _ = promotion.judge(home.state, evidence, spec.promotion, at=now, risk=risk)
    return judged.reason if judged.outcome is PromotionOutcome.REJECT else ""


def require_recorded_answers(archive: ModelArchive) -> None:
    """The model answers here what was recorded where it was made: other processors or another onnxruntime may not.

    The serving app would refuse the bundle for it as well, later.

    Raises:
        ArchiveError: It answers otherwise, or cannot be run.
    """
    from boucle.training.parity import onnx_model

    warm_up = archive.warm_up
    rows = np.array([[np.nan if v is None else v for v in request.features] for request in warm_up.requests])
    try:
        answers = onnx_model(archive.bundle[MODEL_FILE])(rows.astype(np.float64))
    except Exception as error:  # onnxruntime has no family of errors of its own
        raise ArchiveError(f"{MODEL_FILE} cannot be run here: {error}. {NOTHING}") from error
    expected = np.array([request.expected for request in warm_up.requests])
    largest = float(np.abs(answers - expected).max(initial=0.0))
    if not largest <= warm_up.tolerance:
        raise ArchiveError(
            f"{MODEL_FILE} answers the recorded requests otherwise here than where it was made: by up to "
            f"{largest:.3g}, at most {warm_up.tolerance:g} is allowed. Compare the versions of onnxruntime. {NOTHING}"
        )


def _register(home: Home, spec: LoopSpec, archive: ModelArchive, who: str) -> tuple[ModelVersion, bool, bool]:
    """The version of this very bundle and data, registered now unless it is there; whether it is new; made here."""
    manifest = archive.manifest
    with tempfile.TemporaryDirectory(prefix="boucle-import-") as folder:
        for name, content in archive.bundle.items():
            Path(folder, name).write_bytes(content)
        bundle = home.bundles.fetch(home.bundles.put(Path(folder), spec.name))
    for known in home.registry.versions(spec.name):
        if (known.tags.get("bundle_digest"), known.tags.get("data_digest")) == (
            manifest.bundle_digest,
            manifest.data_digest,
        ):
            return known.version, False, "imported_from" not in known.tags
    tags = {
        "validation_status": "pending",
        "bundle_digest": manifest.bundle_digest,
        "data_digest": manifest.data_digest,
        "environment_digest": manifest.environment_digest,
        "git_commit": manifest.git_commit,
        "source_digest": manifest.source_digest,
        "seed": str(manifest.seed),
        "watermark": archive.training.watermark.isoformat(),
        "imported_from": manifest.origin,
        "imported_by": who,
        "imported_evidence_digest": manifest.evidence_digest,
    }
    example = archive.warm_up.requests[0].features
    with home.registry.start_run(spec.model, f"import of version {manifest.version} from {manifest.environment}"):
        home.registry.log_run(params={}, metrics={}, tags=tags)
        return home.registry.register(archive.contract, bundle, example=example, tags=tags), True, False


def _make_candidate(
    runner: Runner, spec: LoopSpec, archive: ModelArchive, version: ModelVersion, *, created: bool
) -> None:
    """Put everything about the version where a training run would; also after an import that was killed half-way."""
    home, manifest = runner.home, archive.manifest
    if home.evidence.imported(spec.name, version) is None:
        write_document(version_dir(home, spec, version) / LEARNT, archive.training)
        home.evidence.keep_imported(version, manifest, archive.evidence)
    gates = gates_of_elsewhere(
        archive.evidence.gates,
        min_rows=spec.training.min_rows,
        min_positives=spec.training.min_positives,
        budget=spec.promotion.gates.within_compute_budget,
        origin=manifest.origin,
    )
    cost = next((gate.measured for gate in gates if gate.name == "within_compute_budget"), None)
    candidate = Candidate(
        model=spec.name,
        version=version,
        created=created,
        mlflow_run_id=home.registry.version(spec.name, version).run_id,
        bundle_digest=manifest.bundle_digest,
        data_digest=manifest.data_digest,
        seed=manifest.seed,
        git_commit=manifest.git_commit,
        environment_digest=manifest.environment_digest,
        fit_cpu_seconds=cost,
        gates=gates,
        imported_from=manifest.origin,
    )
    write_document(document_file(home, spec, "candidate_model"), candidate)
    runner.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            key_of(spec, "candidate_model"),
            description=f"Imported: {manifest.origin}.",
            metadata={"version": version, "new_version": created, "bundle_digest": manifest.bundle_digest},
        )
    )
