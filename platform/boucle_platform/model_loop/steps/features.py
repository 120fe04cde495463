"""Features: checked against their contract, kept as immutable snapshots, published for look-up."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from boucle.contracts.data import SnapshotManifest
from boucle.contracts.ids import EntityKey
from boucle.contracts.online import OnlineManifest
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Period
from boucle.errors import AsOfError, DataContractError, NotEnoughDataError, UnknownEntityError
from boucle.features.contract import Split, apply_contract, feature_specs, worst_missing
from boucle_adapters.home import Home
from boucle_adapters.online_store import Snapshot, prepared_snapshot
from boucle_adapters.snapshots import CURRENT, RESTATED, SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.quarantine import FEATURES

CONTRACT, NO_FUTURE, MISSING = "contract", "no_feature_from_the_future", "few_missing_values"
GATES = (CONTRACT, NO_FUTURE, MISSING)
ONLINE_EQUALS_OFFLINE = "online_equals_offline"
SAMPLE_ROWS = 500
RESTATED_COLUMN = "restated"
"""Of the dbt model: rows made with corrections that landed after their as_of (dbt_features/macros/window.sql)."""


class FeaturesRefusedError(DataContractError):
    """A gate of the features did not pass; `gates` has what was measured. What was in force stays."""

    def __init__(self, message: str, gates: tuple[Gate, ...]) -> None:
        super().__init__(message)
        self.gates = gates


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A snapshot, what its gates measured, and one line per feature for people.

    `restated` is the snapshot of the same rows made with corrections that landed later, where there were any.
    """

    snapshot: SnapshotManifest
    restated: SnapshotManifest | None
    gates: tuple[Gate, ...]
    profile: list[dict[str, Any]]


def feature_names(spec: LoopSpec) -> tuple[str, ...]:
    """The model's features, in the order of its schema."""
    return tuple(feature.name for feature in feature_specs(spec.hook("schema").FEATURES))


def validate(home: Home, spec: LoopSpec, period: Period) -> Validated:
    """Keep the rows of the period that meet the contract as a snapshot; set the others aside with their reason.

    Raises:
        NotEnoughDataError: The period has no feature rows.
        FeaturesRefusedError: Too many rows break the contract; the last good snapshot stays.
    """
    built = home.warehouse.query(
        f"select * from {spec.features} where as_of > ? and as_of <= ?",  # noqa: S608 - our own table name
        [period.start.replace(tzinfo=None), period.end.replace(tzinfo=None)],
    )
    late = built.pop(RESTATED_COLUMN)
    regular, restated = (built[mask].reset_index(drop=True) for mask in (~late, late))
    if regular.empty:
        raise NotEnoughDataError(
            f"{spec.features} has no row with an as_of in ({period.start:%Y-%m-%d}, {period.end:%Y-%m-%d}]: build "
            f"{period.key} first."
        )
    store = SnapshotStore(home.settings.home_dir)
    split = apply_contract(spec.hook("schema").FEATURES, regular)
    gates = _gates(spec, regular, rejected=len(split.rejected))
    store.write_quarantine(split.rejected, model=spec.name, source=FEATURES, period=period.key)
    _require(gates, spec, period)
    snapshot = _keep(home, spec, period, split, pointer=CURRENT)
    again = None
    if len(restated):
        known_later = apply_contract(spec.hook("schema").FEATURES, restated)
        # Its facts may have become known after as_of: that is what restated means.
        later = restated.assign(available_at=restated["as_of"])
        _require(_gates(spec, later, rejected=len(known_later.rejected)), spec, period)
        again = _keep(home, spec, period, known_later, pointer=RESTATED)
    if again is None or again.content_digest == snapshot.content_digest:
        store.without_restated(spec.name, period.key)
        again = None
    profile = _profile(split.valid, feature_names(spec))
    return Validated(snapshot=snapshot, restated=again, gates=gates, profile=profile)


def _require(gates: tuple[Gate, ...], spec: LoopSpec, period: Period) -> None:
    if broken := [gate for gate in gates if gate.verdict is not Verdict.PASSED]:
        raise FeaturesRefusedError(
            f"Features of {period.key} were refused: {'; '.join(gate.figures() for gate in broken)}. "
            f"`boucle quarantine show {period.key} {spec.model} --source features` shows the rows. The last good "
            "snapshot stays.",
            gates,
        )


def _keep(home: Home, spec: LoopSpec, period: Period, split: Split, *, pointer: str) -> SnapshotManifest:
    return SnapshotStore(home.settings.home_dir).write(
        split.valid,
        model=spec.name,
        period=period,
        keys=list(spec.hook("schema").KEYS),
        quarantined=len(split.rejected),
        created_at=home.clock(spec.name).now(),
        pointer=pointer,
    )


def publish_online(home: Home, spec: LoopSpec, period: Period) -> tuple[OnlineManifest, Gate]:
    """Publish the rows that requests may still ask for, from every snapshot in force, once a sample of them is equal.

    The watermark is the newest snapshot's, whichever period is materialised: what could be asked for stays so.

    Raises:
        NotEnoughDataError: The period has no validated snapshot.
        FeaturesRefusedError: What was written is not what the snapshots say; the online snapshot in force stays.
    """
    store, names = SnapshotStore(home.settings.home_dir), feature_names(spec)
    if store.current(spec.name, period.key) is None:
        raise NotEnoughDataError(f"No validated snapshot of '{spec.model}' for {period.key}: materialise it first.")
    in_force = store.served(spec.name)
    watermark = in_force[-1].as_of
    oldest = watermark - timedelta(days=spec.online.retention_days)
    manifests = [manifest for manifest in in_force if oldest < manifest.as_of]
    rows = pd.concat([store.read(manifest) for manifest in manifests], ignore_index=True)
    with prepared_snapshot(
        home.settings.online_dir / spec.model,
        entity_keys=rows[spec.entity].tolist(),
        as_of=rows["as_of"].to_numpy(),
        features=rows[list(names)].to_numpy(dtype=np.float64),
        feature_names=names,
        watermark=watermark,
        source_digests=[manifest.content_digest for manifest in manifests],
    ) as written:
        gate = online_equals_offline(spec, written, rows)
        if gate.verdict is not Verdict.PASSED:
            raise FeaturesRefusedError(
                f"Online rows were refused at {period.key}: {gate.figures()}. Materialise validated_features of their "
                "periods again. The online snapshot in force stays.",
                (gate,),
            )
    return written.manifest, gate


def online_equals_offline(spec: LoopSpec, online: Snapshot, offline: pd.DataFrame) -> Gate:
    """Look a seeded sample of rows up as serving does; every value must be the snapshots'."""
    sample = offline.sample(min(SAMPLE_ROWS, len(offline)), random_state=spec.training.seed)
    values = sample[list(feature_names(spec))].to_numpy(dtype=np.float64)
    wrong = sum(
        not _answers(online, EntityKey(str(key)), as_of.to_pydatetime().replace(tzinfo=UTC), expected)
        for key, as_of, expected in zip(sample[spec.entity], sample["as_of"], values, strict=True)
    )
    return Gate(
        name=ONLINE_EQUALS_OFFLINE,
        verdict=Verdict.PASSED if wrong == 0 and len(sample) else Verdict.FAILED,
        measured=float(wrong),
        bound=Bound.AT_MOST,
        limit=0,
        unit="rows that differ",
        sample_size=len(sample),
    )


def known_entities(home: Home, spec: LoopSpec, period: Period) -> list[str]:
    """Every entity of a period's snapshot, sorted.

    Raises:
        NotEnoughDataError: It has none.
    """
    store = SnapshotStore(home.settings.home_dir)
    manifest = store.current(spec.name, period.key)
    if manifest is None:
        raise NotEnoughDataError(f"No validated snapshot of '{spec.model}' for {period.key}: materialise it first.")
    rows = store.read(manifest, columns=[spec.entity])
    return sorted(rows[spec.entity].astype(str))


def _answers(online: Snapshot, entity_key: EntityKey, as_of: datetime, expected: npt.NDArray[np.float64]) -> bool:
    try:
        # A row is looked up at its own as_of, so that any age would do.
        found = online.look_up(entity_key, as_of, max_age_days=1)
    except (AsOfError, UnknownEntityError):
        return False
    return np.array_equal(np.asarray(found.values, dtype=np.float64), expected, equal_nan=True)


def _gates(spec: LoopSpec, rows: pd.DataFrame, *, rejected: int) -> tuple[Gate, ...]:
    share, limit = rejected / len(rows), spec.contract.max_rejected_share
    future = int(((rows["event_time"] > rows["as_of"]) | (rows["available_at"] > rows["as_of"])).sum())
    return (
        Gate(
            name=CONTRACT,
            verdict=Verdict.PASSED if share <= limit and rejected < len(rows) else Verdict.FAILED,
            measured=share,
            bound=Bound.AT_MOST,
            limit=limit,
            unit="ratio of rows set aside",
            sample_size=len(rows),
        ),
        Gate(
            name=NO_FUTURE,
            verdict=Verdict.PASSED if future == 0 else Verdict.FAILED,
            measured=float(future),
            bound=Bound.AT_MOST,
            limit=0,
            unit="rows",
            sample_size=len(rows),
        ),
        _missing_gate(spec, rows),
    )


def _missing_gate(spec: LoopSpec, rows: pd.DataFrame) -> Gate:
    """The column nearest to, or farthest beyond, what its contract allows; without a limit any share is allowed."""
    found = worst_missing(spec.hook("schema").FEATURES, rows)
    share, limit = (found.share, found.limit) if found else (float(rows.isna().mean().max()), 1.0)
    return Gate(
        name=MISSING,
        verdict=Verdict.PASSED if share <= limit else Verdict.FAILED,
        measured=share,
        bound=Bound.AT_MOST,
        limit=limit,
        unit="ratio of rows without a value",
        sample_size=len(rows),
        detail=f"Of {found.column}." if found else "No feature has a limit.",
    )


def _profile(rows: pd.DataFrame, names: tuple[str, ...]) -> list[dict[str, Any]]:
    table = rows[list(names)].astype("float64")
    low, middle, high = table.quantile([0.05, 0.5, 0.95]).to_numpy(dtype=np.float64)
    return [
        {
            "feature": name,
            "missing": int(table[name].isna().sum()),
            "mean": float(table[name].mean()),
            "p05": float(low[place]),
            "median": float(middle[place]),
            "p95": float(high[place]),
        }
        for place, name in enumerate(names)
    ]
