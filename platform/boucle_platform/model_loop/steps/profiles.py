"""Profiles of what each version was asked and answered, made once when a period arrives; every revision is kept."""

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boucle.contracts.facts import LiveFacts
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.profile import PeriodOutcomes, PeriodProfile, ReferenceProfile
from boucle.contracts.windows import Period
from boucle.features.profiles import merge_profiles, profile_columns, profile_like
from boucle.stats.calibration import build_calibration, merge_calibration
from boucle_adapters.home import Home
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.ground_truth import outcomes
from boucle_platform.model_loop.steps.performance_rows import entities_of
from boucle_platform.model_loop.steps.prediction_log import predictions_of
from boucle_platform.model_loop.steps.store import (
    data_dir,
    has_reference,
    read_document,
    read_reference,
    write_document,
)

P = TypeVar("P", PeriodProfile, PeriodOutcomes)
SCORE = "proba"
ANSWERS, OUTCOMES = "answers", "outcomes"
_FILE = re.compile(r"version-(\d+)\.revision-(\d+)\.json")
_MADE = {"revision", "created_at"}


def profile_answers(home: Home, spec: LoopSpec, period: Period) -> tuple[PeriodProfile, ...]:
    """The profile in force of each version that answered in the period: made now, unless its rows are as they were.

    A version without a reference (another tool registered it) has no bins, and so no profile.
    """
    rows = counted(predictions_of(home, spec, period))
    folder = _folder(home, spec, period, ANSWERS)
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(
        _kept(folder, _answers(home, spec, period, reference, rows[rows["model_version"] == reference.version]))
        for reference in _references(home, spec, rows)
    )


def profile_outcomes(home: Home, spec: LoopSpec, period: Period) -> tuple[PeriodOutcomes, ...]:
    """The calibration profile in force of each version whose outcomes became known in the period, as above."""
    rows = outcomes(home, spec, period.key)
    folder = _folder(home, spec, period, OUTCOMES)
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(
        _kept(folder, _outcomes(home, spec, period, reference, rows[rows["model_version"] == reference.version]))
        for reference in _references(home, spec, rows)
    )


def facts_of(home: Home, spec: LoopSpec, parts: Sequence[Period], reference: ReferenceProfile) -> LiveFacts:
    """What a version answered in these periods together, from their profiles alone.

    Of periods that no profile was made of (an earlier release collected them) it is made now.
    """
    bins = reference.digest()
    answered = [
        found for part in parts if (found := _in_force(home, spec, part, reference.version, bins, PeriodProfile))
    ]
    became_known = [
        known for part in parts if (known := _in_force(home, spec, part, reference.version, bins, PeriodOutcomes))
    ]
    empty: NDArray[np.float64] = np.empty(0)
    features = (
        merge_profiles([profile.features for profile in answered])
        if answered
        else profile_columns(dict.fromkeys(reference.features, empty), reference.columns)
    )
    scores = (
        merge_profiles([{SCORE: profile.scores} for profile in answered])[SCORE]
        if answered
        else profile_like(empty, reference.score_column)
    )
    return LiveFacts(
        reference=reference,
        predictions=sum(profile.rows for profile in answered),
        scores=scores,
        features=features,
        outcomes=merge_calibration([profile.known for profile in became_known]) if became_known else None,
    )


def counted(rows: pd.DataFrame) -> pd.DataFrame:
    """Answers that say what the world asks: those that testers asked for by version do not count (ADR 22)."""
    return rows[~rows["pinned"].astype(bool)]


def matrix_of(rows: pd.DataFrame, features: Sequence[str]) -> NDArray[np.float64]:
    """The features of logged answers, [rows, features].

    Raises:
        ValueError: The log holds another number of features.
    """
    if rows.empty:
        return np.empty((0, len(features)))
    values = np.concatenate(rows["features"].to_list()).astype(np.float64, copy=False)
    if len(values) != len(rows) * len(features):
        raise ValueError(
            f"The log holds {len(values) / len(rows):g} features a row, the reference of the version has "
            f"{len(features)} ({', '.join(features)}): the log was written by another bundle."
        )
    return values.reshape(len(rows), len(features))


def revisions(home: Home, spec: LoopSpec, period: Period, kind: str, version: ModelVersion) -> tuple[Path, ...]:
    """The files of one version's profiles of a period, the first revision first."""
    found: list[tuple[int, Path]] = []
    for file in _folder(home, spec, period, kind).glob("*.json"):
        named = _FILE.fullmatch(file.name)
        if named and int(named[1]) == version:
            found.append((int(named[2]), file))
    return tuple(file for _, file in sorted(found))


def _in_force(home: Home, spec: LoopSpec, part: Period, version: ModelVersion, bins: Digest, kind: type[P]) -> P | None:
    """The newest revision of a period, made now where there is none yet or it is on other bins; None without rows."""
    name, make = (ANSWERS, profile_answers) if kind is PeriodProfile else (OUTCOMES, profile_outcomes)
    if not _folder(home, spec, part, name).exists():
        make(home, spec, part)
    found = _newest(home, spec, part, name, version, kind)
    if found is None or found.reference_digest == bins:
        return found
    make(home, spec, part)
    return _newest(home, spec, part, name, version, kind)


def _answers(
    home: Home, spec: LoopSpec, period: Period, reference: ReferenceProfile, rows: pd.DataFrame
) -> PeriodProfile:
    names = tuple(reference.features)
    matrix = matrix_of(rows, names)
    columns = {name: np.ascontiguousarray(matrix[:, column]) for column, name in enumerate(names)}
    entities = entities_of(rows)
    return PeriodProfile(
        model=spec.name,
        version=reference.version,
        period=period.key,
        revision=1,
        reference_digest=reference.digest(),
        rows=len(rows),
        features=profile_columns(columns, reference.columns, entities=entities),
        scores=profile_like(rows[SCORE].to_numpy(dtype=np.float64), reference.score_column, entities=entities),
        created_at=home.clock(spec.name).now(),
    )


def _outcomes(
    home: Home, spec: LoopSpec, period: Period, reference: ReferenceProfile, rows: pd.DataFrame
) -> PeriodOutcomes:
    labels, scores = (rows[name].to_numpy(dtype=np.float64) for name in ("label", SCORE))
    return PeriodOutcomes(
        model=spec.name,
        version=reference.version,
        period=period.key,
        revision=1,
        reference_digest=reference.digest(),
        known=build_calibration(labels, scores, entities_of(rows), reference.scores.edges),
        created_at=home.clock(spec.name).now(),
    )


def _kept(folder: Path, made: P) -> P:
    """The newest revision where it says the same, else the one that was made, added as the next."""
    kind = type(made)
    earlier = sorted(
        (read_document(file, kind) for file in folder.glob(f"version-{made.version}.revision-*.json")),
        key=lambda profile: profile.revision,
    )
    if earlier and earlier[-1].model_dump(exclude=_MADE) == made.model_dump(exclude=_MADE):
        return earlier[-1]
    added = made.model_copy(update={"revision": earlier[-1].revision + 1 if earlier else 1})
    write_document(folder / f"version-{made.version}.revision-{added.revision}.json", added)
    return added


def _newest(home: Home, spec: LoopSpec, period: Period, folder: str, version: ModelVersion, kind: type[P]) -> P | None:
    files = revisions(home, spec, period, folder, version)
    return _read(files[-1], files[-1].stat().st_mtime_ns, kind) if files else None


@lru_cache(maxsize=128)
def _read(file: Path, modified_ns: int, kind: type[P]) -> P:  # noqa: ARG001 - names the content
    # Windows of a row of periods overlap: each file would be read once a period.
    return read_document(file, kind)


def _references(home: Home, spec: LoopSpec, rows: pd.DataFrame) -> list[ReferenceProfile]:
    versions = [ModelVersion(int(version)) for version in np.unique(rows["model_version"].to_numpy())]
    return [read_reference(home, spec, version) for version in versions if has_reference(home, spec, version)]


def _folder(home: Home, spec: LoopSpec, period: Period, kind: str) -> Path:
    return data_dir(home, spec) / "profiles" / period.key / kind
