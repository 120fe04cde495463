"""Training set and candidate: which rows, which model, exported and registered."""

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from boucle.contracts.bundle import MODEL_FILE, BundleContract, OutputSpec
from boucle.contracts.data import TrainingManifest
from boucle.contracts.evidence import Candidate
from boucle.contracts.facts import TrainingFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.profile import ReferenceProfile
from boucle.errors import NotEnoughDataError
from boucle.features.contract import feature_specs, key_spec, keys_are_text
from boucle.features.digest import content_digest
from boucle.policy.candidate import bundle_equals_estimator, training_gates, within_compute_budget
from boucle_adapters.code_version import code_version, environment_digest, installed_packages, source_files
from boucle_adapters.home import Home
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.features import feature_names
from boucle_platform.model_loop.steps.store import (
    LEARNT,
    REFERENCE,
    data_dir,
    version_dir,
    write_document,
    write_rows,
)
from boucle_platform.model_loop.steps.training_rows import KEYS, labelled_rows, last_training_set, naive

if TYPE_CHECKING:
    from boucle.training.evaluate import Holdout
    from boucle.training.fit import Fitted, Matrix
    from boucle.training.parity import Answer

TRAIN, HOLDOUT = "train", "holdout"
REFERENCE_SAMPLE_ROWS = 2_000


@dataclass(frozen=True, kw_only=True)
class Made:
    """A candidate and how its scores and features look on the holdout."""

    candidate: Candidate
    reference: ReferenceProfile


def assemble(home: Home, spec: LoopSpec) -> TrainingManifest:
    """Join validated features with mature labels, split by time, keep the exact rows by their digest.

    From level 2 on it begins with the rows of the last training set, and reads only what is not in there.

    Raises:
        NotEnoughDataError: There is no snapshot, or not enough mature labels for a split.
        DataContractError: The entity keys of the labels are no text.
    """
    from boucle.training.split import split_by_time

    snapshots = SnapshotStore(home.settings.home_dir).in_force(spec.name)
    watermark = snapshots[-1].as_of
    labels = home.warehouse.query(
        f"select {spec.entity}, as_of, label, known_at from {spec.labels} "  # noqa: S608 - own names
        "where known_at <= ? and label is not null",
        [watermark.replace(tzinfo=None)],
    )
    keys_are_text(labels[spec.entity], column=f"{spec.labels}.{spec.entity}")
    before = last_training_set(home, spec) if spec.is_warm else None
    labelled = labelled_rows(home, spec, snapshots, labels, before)
    split = split_by_time(labelled.rows, watermark=naive(watermark), holdout_periods=spec.training.holdout_periods)
    kept = pd.concat([split.train.assign(part=TRAIN), split.holdout.assign(part=HOLDOUT)], ignore_index=True)
    kept = kept.drop(columns=["known_at", "period_end"])
    digest = content_digest(kept, KEYS)
    facts = TrainingFacts(
        train_rows=len(split.train),
        train_positives=int(split.train["label"].sum()),
        holdout_rows=len(split.holdout),
        holdout_positives=int(split.holdout["label"].sum()),
        late_labels=int((split.train["known_at"] > split.holdout_from).sum()),
    )
    used = {_utc(moment) for moment in (*split.train_as_of, *split.holdout_as_of)}
    return TrainingManifest(
        model=spec.name,
        watermark=watermark,
        horizon_days=spec.horizon_days,
        train_as_of=tuple(_utc(moment) for moment in split.train_as_of),
        holdout_as_of=tuple(_utc(moment) for moment in split.holdout_as_of),
        holdout_from=_utc(split.holdout_from),
        snapshots={m.period: m.content_digest for m in snapshots if m.as_of in used},
        feature_names=feature_names(spec),
        train_rows=facts.train_rows,
        train_positives=facts.train_positives,
        holdout_rows=facts.holdout_rows,
        holdout_positives=facts.holdout_positives,
        content_digest=digest,
        file=store_rows(home, spec, kept, digest),
        gates=training_gates(facts, min_rows=spec.training.min_rows, min_positives=spec.training.min_positives),
        started_from=before.content_digest if before is not None and labelled.reused else None,
        reused_periods=labelled.reused,
    )


def make_candidate(home: Home, spec: LoopSpec, manifest: TrainingManifest, run_id: str) -> Made:
    """Fit, export, prove the export equal, store the bundle, register a version in the active MLflow run.

    Raises:
        ExportError: The estimator cannot be exported exactly; nothing was registered.
    """
    from boucle.training.fit import predict
    from boucle.training.parity import parity

    made = fit_bundle(home, spec, manifest, seed=spec.training.seed)
    fitted, contract, files, holdout, judged = made.fitted, made.contract, made.files, made.holdout, made.judged
    home.registry.log_run(params={}, metrics=cost_of(fitted), tags={})
    gates = (
        bundle_equals_estimator(parity(fitted.estimator, files[MODEL_FILE], judged)),
        within_compute_budget(fitted.cpu_seconds, spec.promotion.gates.within_compute_budget),
    )
    bundle = _store_bundle(home, spec, files)
    version, created = _register(home, spec, contract, bundle, manifest, judged[0].tolist(), run_id)
    write_document(version_dir(home, spec, version) / LEARNT, manifest)
    reference = write_reference(home, spec, version, partial(predict, fitted.estimator), holdout, manifest)
    candidate = Candidate(
        model=spec.name,
        version=version,
        created=created,
        mlflow_run_id=home.registry.version(spec.name, version).run_id,
        bundle_digest=bundle,
        data_digest=manifest.content_digest,
        seed=spec.training.seed,
        git_commit=code_version(home.settings.project_dir).label,
        environment_digest=environment_digest(),
        fit_cpu_seconds=fitted.cpu_seconds,
        gates=gates,
    )
    return Made(candidate=candidate, reference=reference)


@dataclass(frozen=True, kw_only=True)
class FittedBundle:
    """A fit, the files of its bundle, and the holdout that its requests were recorded on."""

    fitted: "Fitted"
    contract: BundleContract
    files: dict[str, bytes]
    holdout: pd.DataFrame
    judged: "Matrix"


def fit_bundle(home: Home, spec: LoopSpec, manifest: TrainingManifest, *, seed: int) -> FittedBundle:
    """Fit on the exact rows of a manifest and export. The same rows, code, packages and seed give the same bytes.

    Raises:
        ExportError: The estimator cannot be exported exactly.
    """
    from boucle.training.bundle import bundle_files
    from boucle.training.fit import feature_matrix, fit, label_vector

    rows = read_rows(home, manifest)
    train, holdout = (rows[rows["part"] == part] for part in (TRAIN, HOLDOUT))
    features = feature_matrix(train, manifest.feature_names)
    judged = feature_matrix(holdout, manifest.feature_names)
    fitted = fit(spec.hook("estimator").build, features, label_vector(train), seed=seed)
    contract = contract_of(spec)
    files = bundle_files(fitted.estimator, contract, rows=judged, entities=holdout["entity_key"].tolist())
    return FittedBundle(fitted=fitted, contract=contract, files=files, holdout=holdout, judged=judged)


def cost_of(fitted: "Fitted") -> dict[str, float]:
    """What fitting cost, as metrics of the MLflow run; memory is the highest of this process so far, in MiB."""
    # macOS counts in bytes where Linux counts in KiB.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {
        "fit_cpu_seconds": fitted.cpu_seconds,
        "fit_wall_seconds": fitted.wall_seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    }


def contract_of(spec: LoopSpec) -> BundleContract:
    """What requests need and answers are, from the model's schema."""
    schema = spec.hook("schema").FEATURES
    return BundleContract(
        model=spec.name,
        entity=spec.entity,
        key=key_spec(schema, spec.entity),
        features=feature_specs(schema),
        output=OutputSpec(description=spec.target),
        max_feature_age_days=spec.online.max_age_days,
    )


def read_rows(home: Home, manifest: TrainingManifest) -> pd.DataFrame:
    """The exact rows of a training run."""
    file = home.settings.home_dir / manifest.file
    if not file.exists():
        raise NotEnoughDataError(f"The rows of the training set are gone ({manifest.file}): materialise it again.")
    return pd.read_parquet(file)


def holdout_of(rows: pd.DataFrame, manifest: TrainingManifest) -> "Holdout":
    """Holdout rows as arrays."""
    from boucle.training.evaluate import Holdout
    from boucle.training.fit import feature_matrix, label_vector

    return Holdout(
        features=feature_matrix(rows, manifest.feature_names),
        feature_names=manifest.feature_names,
        labels=label_vector(rows),
        entities=rows["entity_key"].to_numpy(),
    )


def store_rows(home: Home, spec: LoopSpec, rows: pd.DataFrame, digest: Digest) -> str:
    """Keep rows under their digest; returns the file's path within the home."""
    file = data_dir(home, spec) / "training_sets" / f"{digest}.parquet"
    if not file.exists():
        write_rows(file, rows)
    return file.relative_to(home.settings.home_dir).as_posix()


def split_table(manifest: TrainingManifest) -> list[dict[str, Any]]:
    """Training and holdout as table rows."""
    return [
        {
            "part": name,
            "as_of": f"{moments[0]:%Y-%m-%d} … {moments[-1]:%Y-%m-%d}",
            "periods": len(moments),
            "rows": rows,
            "positives": positives,
            "positive rate": positives / rows,
        }
        for name, moments, rows, positives in (
            (TRAIN, manifest.train_as_of, manifest.train_rows, manifest.train_positives),
            (HOLDOUT, manifest.holdout_as_of, manifest.holdout_rows, manifest.holdout_positives),
        )
    ]


def _store_bundle(home: Home, spec: LoopSpec, files: dict[str, bytes]) -> Digest:
    with tempfile.TemporaryDirectory(prefix="boucle-bundle-") as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        return home.bundles.put(Path(folder), spec.name)


def _register(
    home: Home,
    spec: LoopSpec,
    contract: BundleContract,
    bundle: Digest,
    manifest: TrainingManifest,
    example: list[float],
    run_id: str,
) -> tuple[ModelVersion, bool]:
    """The version of this very bundle and data, registered now unless the registry has it already."""
    for known in home.registry.versions(spec.name):
        if (known.tags.get("bundle_digest"), known.tags.get("data_digest")) == (bundle, manifest.content_digest):
            return known.version, False
    code = code_version(home.settings.project_dir)
    home.records.keep(environment_digest(), installed_packages())
    home.records.keep(code.source_digest, source_files(home.settings.project_dir))
    tags = {
        "validation_status": "pending",
        "bundle_digest": bundle,
        "data_digest": manifest.content_digest,
        "environment_digest": environment_digest(),
        "git_commit": code.label,
        "source_digest": code.source_digest,
        "dagster/run_id": run_id,
        "seed": str(spec.training.seed),
        "watermark": manifest.watermark.isoformat(),
    }
    # Before the version: killed right after registering, the step finds it again and logs nothing more.
    home.registry.log_run(
        params={**spec.hook("estimator").PARAMETERS, **spec.training.model_dump(), "horizon_days": spec.horizon_days},
        metrics={"train_rows": manifest.train_rows, "holdout_rows": manifest.holdout_rows},
        tags=tags,
    )
    started = time.process_time()
    version = home.registry.register(contract, home.bundles.fetch(bundle), example=example, tags=tags)
    home.registry.log_run(params={}, metrics={"register_cpu_seconds": time.process_time() - started}, tags={})
    return version, True


def write_reference(
    home: Home,
    spec: LoopSpec,
    version: ModelVersion,
    answer: "Answer",
    holdout: pd.DataFrame,
    manifest: TrainingManifest,
) -> ReferenceProfile:
    """How features and scores of a version look on the holdout rows of a manifest: what drift is compared with later.

    `answer` gives the version's scores.
    """
    from boucle.training.evaluate import permutation_importance, reference_profile

    held = holdout_of(holdout, manifest)
    scores = answer(held.features)
    reference = reference_profile(
        held,
        scores,
        model=spec.name,
        version=version,
        window=(manifest.holdout_from, manifest.holdout_as_of[-1] + timedelta(days=1)),
        importance=permutation_importance(answer, held, seed=spec.training.seed),
        categories={
            feature.name: tuple(float(place) for place in range(len(feature.categories)))
            for feature in contract_of(spec).features
            if feature.categories
        },
    )
    folder = version_dir(home, spec, version)
    write_document(folder / REFERENCE, reference)
    sample = holdout[list(manifest.feature_names)].assign(proba=scores)
    write_rows(
        folder / "reference_sample.parquet",
        sample.sample(min(REFERENCE_SAMPLE_ROWS, len(sample)), random_state=spec.training.seed),
    )
    return reference


def _utc(moment: Any) -> Any:
    from datetime import UTC

    return moment.replace(tzinfo=UTC)
