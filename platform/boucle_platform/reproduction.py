"""Make a version again from its record: data, features, rows, model; equal, or what differs is named."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boucle.contracts.bundle import MANIFEST_FILE, MODEL_FILE
from boucle.contracts.data import TrainingManifest
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.windows import next_period
from boucle.errors import NotEnoughDataError
from boucle_adapters.code_version import code_version, environment_digest, installed_packages, source_files
from boucle_adapters.duckdb_warehouse import copy_raw
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, own_environment
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.automation import period_job_name
from boucle_platform.model_loop.dbt_project import parse_path
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps import training
from boucle_platform.model_loop.steps.store import LEARNT, read_document, version_dir

BUILT_TOGETHER = 62
"""Periods of one build; the digests are those of builds one by one."""
NAMED = 8
"""So many packages, files or periods are named; how many more there are is said."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a version: what is on record of it, what was made again, and where they differ."""

    part: str
    equal: bool
    recorded: str
    found: str
    difference: str = ""


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """Every part in order. `largest_difference` is that of the predictions on the holdout, in probability."""

    model: str
    version: int
    parts: tuple[Part, ...]
    largest_difference: float | None

    @property
    def identical(self) -> bool:
        """Whether the bundle is the same, byte for byte."""
        return any(part.part == "bundle" and part.equal for part in self.parts)

    @property
    def reproduced(self) -> bool:
        """Whether the same rows gave a model that predicts the same."""
        rows = any(part.part == "training rows" and part.equal for part in self.parts)
        return rows and self.largest_difference == 0.0

    def verdict(self) -> str:
        """One sentence."""
        differ = [part.part for part in self.parts if not part.equal]
        named = f"version {self.version} of '{self.model}'"
        if self.identical and self.reproduced:
            also = f" (in spite of other {' and '.join(differ)})" if differ else ""
            return f"Reproduced: {named} came out the same, byte for byte{also}."
        if self.reproduced:
            return f"Reproduced: {named} predicts the same on the holdout. What differs: {', '.join(differ)}."
        if self.largest_difference is None:
            return f"Not reproduced: {named} could not be made again; what differs: {', '.join(differ)}."
        largest = f"predictions differ by up to {self.largest_difference:.3g}"
        return f"Not reproduced: {largest} on the holdout of {named}; what differs: {', '.join(differ)}."


def reproduce(
    home: Home, spec: LoopSpec, version: ModelVersion, *, progress: Callable[[str], None] = lambda _: None
) -> Reproduction:
    """Build the features of every period again from the landed rows, then rows, model and bundle; change nothing.

    Raises:
        RegistryError: There is no such version.
        NotEnoughDataError: What it was made from is not on record.
    """
    tags = home.registry.version(spec.name, version).tags
    recorded = read_document(version_dir(home, spec, version) / LEARNT, TrainingManifest)
    parts = [_environment(home, tags), _code(home, tags)]
    with tempfile.TemporaryDirectory(prefix="boucle-reproduce-") as folder, own_environment():
        mine = home.settings
        again = Home(Settings(home=Path(folder), project_dir=mine.project_dir, dbt_parse_dir=parse_path(mine)))
        progress("copying the landed rows")
        copy_raw(home.warehouse, again.warehouse)
        again.clock(spec.name).set(recorded.watermark)
        _build_features(again, spec, recorded, progress)
        parts.append(_features(again, spec, recorded))
        progress("assembling the training rows")
        rows = _rows(again, spec, recorded)
        parts.append(rows)
        if not rows.equal:
            return Reproduction(model=spec.model, version=version, parts=tuple(parts), largest_difference=None)
        progress("fitting")
        bundle, difference = _bundle(home, again, spec, recorded, Digest(tags["bundle_digest"]), int(tags["seed"]))
        again.state.close()
    return Reproduction(model=spec.model, version=version, parts=(*parts, bundle), largest_difference=difference)


def _environment(home: Home, tags: Mapping[str, str]) -> Part:
    recorded, found = tags["environment_digest"], environment_digest()
    before = home.records.read(recorded)
    return Part(
        part="environment",
        equal=recorded == found,
        recorded=recorded[:12],
        found=found[:12],
        difference="" if recorded == found else _changes("package", before, installed_packages()),
    )


def _code(home: Home, tags: Mapping[str, str]) -> Part:
    now = code_version(home.settings.project_dir)
    recorded = tags["source_digest"]
    difference = ""
    if recorded != now.source_digest:
        difference = _changes("file", home.records.read(recorded), source_files(home.settings.project_dir))
        difference += f"; `git checkout {tags['git_commit'].removesuffix('-dirty')}` has what it was made with"
    return Part(
        part="code",
        equal=recorded == now.source_digest,
        recorded=tags["git_commit"],
        found=now.label,
        difference=difference,
    )


def _build_features(again: Home, spec: LoopSpec, recorded: TrainingManifest, progress: Callable[[str], None]) -> None:
    """Everything from the first period up to the watermark, as the period job does it."""
    from boucle_platform.instance import Runner

    runner = Runner(again.settings, spec)
    periods = _periods(spec, recorded)
    made = [key for key in runner.definitions.resolve_asset_graph().get_all_asset_keys() if _is_feature(key.path, spec)]
    try:
        for first in range(0, len(periods), BUILT_TOGETHER):
            chosen = periods[first : first + BUILT_TOGETHER]
            progress(f"building the features of {chosen[0]} to {chosen[-1]}")
            done = runner.run(
                period_job_name(spec),
                partition=chosen[0],
                through=chosen[-1],
                only=[key.path for key in made],
            )
            if not done.succeeded:
                raise NotEnoughDataError(
                    f"The features of {chosen[0]} to {chosen[-1]} could not be built: {done.error}"
                )
    finally:
        runner.instance.dispose()


def _periods(spec: LoopSpec, recorded: TrainingManifest) -> list[str]:
    """Keys of all periods from the first up to the one that ends at the watermark."""
    period, found = spec.period(spec.first_period), []
    while period.end <= recorded.watermark:
        found.append(period.key)
        period = next_period(period, spec.cadence)
    return [str(key) for key in found]


def _is_feature(path: Sequence[str], spec: LoopSpec) -> bool:
    """What lies between the raw rows and the validated features."""
    raw = {"landing", "quarantine", *spec.raws}
    later = {"online_features", "training_set", "candidate_model", "evaluation_report", "production_alias"}
    later |= {"traffic_plan", "prediction_log", "ground_truth", "live_performance", "drift_report"}
    return path[0] == spec.model and path[1] not in raw | later


def _features(again: Home, spec: LoopSpec, recorded: TrainingManifest) -> Part:
    store = SnapshotStore(again.settings.home_dir)
    found = {str(m.period): str(m.content_digest) for m in store.in_force(spec.name)}
    wanted = {str(period): str(digest) for period, digest in recorded.snapshots.items()}
    wrong = sorted(period for period, digest in wanted.items() if found.get(period) != digest)
    return Part(
        part="features",
        equal=not wrong,
        recorded=f"{len(wanted)} periods",
        found=f"{len(wanted) - len(wrong)} equal",
        difference=_some("period", wrong),
    )


def _rows(again: Home, spec: LoopSpec, recorded: TrainingManifest) -> Part:
    made = training.assemble(again, spec)
    counts = (recorded.train_rows, made.train_rows), (recorded.holdout_rows, made.holdout_rows)
    differ = [f"{a} rows on record, {b} made" for a, b in counts if a != b]
    return Part(
        part="training rows",
        equal=made.content_digest == recorded.content_digest,
        recorded=recorded.content_digest[:12],
        found=made.content_digest[:12],
        difference="; ".join(differ),
    )


def _bundle(
    home: Home, again: Home, spec: LoopSpec, recorded: TrainingManifest, digest: Digest, seed: int
) -> tuple[Part, float]:
    """The bundle made again beside the one on record; also the largest difference of their predictions."""
    from boucle.training.bundle import bundle_digest
    from boucle.training.fit import feature_matrix
    from boucle.training.parity import onnx_model

    made = training.fit_bundle(again, spec, recorded, seed=seed).files
    before = home.bundles.fetch(digest)
    rows = training.read_rows(again, recorded)
    holdout = feature_matrix(rows[rows["part"] == training.HOLDOUT], recorded.feature_names)
    answers = [onnx_model(model)(holdout) for model in (made[MODEL_FILE], (before / MODEL_FILE).read_bytes())]
    wrong = [
        name for name, content in made.items() if name != MANIFEST_FILE and (before / name).read_bytes() != content
    ]
    part = Part(
        part="bundle",
        equal=bundle_digest(made) == digest,
        recorded=digest[:12],
        found=bundle_digest(made)[:12],
        difference=_some("file", sorted(wrong)),
    )
    return part, float(np.abs(answers[0] - answers[1]).max())


def _changes(what: str, before: Mapping[str, str] | None, now: Mapping[str, str]) -> str:
    """What came, went or changed between two records, in words."""
    if before is None:
        return f"which {what}s it was made with is not on record"
    changed = [
        f"{name} {before.get(name, 'none')[:12]} → {now.get(name, 'none')[:12]}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return _some(what, changed)


def _some(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{what}s: {', '.join(names[:NAMED])}{more}"
