"""Features: checked against their contract, kept as immutable snapshots, published for look-up."""

from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any

import numpy as np
import pandas as pd

from boucle.contracts.data import SnapshotManifest
from boucle.contracts.ids import EntityKey, PeriodKey
from boucle.contracts.online import OnlineManifest
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Period
from boucle.errors import DataContractError, NotEnoughDataError
from boucle.features.contract import apply_contract, feature_specs
from boucle_adapters.home import Home
from boucle_adapters.online_store import OnlineStore, publish_snapshot
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec

CONTRACT, NO_FUTURE = "contract", "no_feature_from_the_future"
GATES = (CONTRACT, NO_FUTURE)
SAMPLE_ROWS = 500


@dataclass(frozen=True, kw_only=True)
class Validated:
    """A snapshot, what its gates measured, and one line per feature for people."""

    snapshot: SnapshotManifest
    gates: tuple[Gate, ...]
    profile: list[dict[str, Any]]


def feature_names(spec: LoopSpec) -> tuple[str, ...]:
    """The model's features, in the order of its schema."""
    return tuple(feature.name for feature in feature_specs(spec.hook("schema").FEATURES))


def validate(home: Home, spec: LoopSpec, period: Period) -> Validated:
    """Keep the rows of the period that meet the contract as a snapshot; set the others aside with their reason.

    Raises:
        NotEnoughDataError: The period has no feature rows.
        DataContractError: Too many rows break the contract; the last good snapshot stays.
    """
    schema, keys = spec.hook("schema").FEATURES, list(spec.hook("schema").KEYS)
    rows = home.warehouse.query(
        f"select * from {spec.features} where as_of = ?",  # noqa: S608 - our own table name
        [period.end.replace(tzinfo=None)],
    )
    if rows.empty:
        raise NotEnoughDataError(f"{spec.features} has no row as of {period.end:%Y-%m-%d}: build {period.key} first.")
    split = apply_contract(schema, rows.reset_index(drop=True))
    gates = _gates(spec, rows, rejected=len(split.rejected))
    store = SnapshotStore(home.settings.home_dir)
    store.write_quarantine(split.rejected, model=spec.name, source="features", period=period.key)
    if broken := [gate for gate in gates if gate.verdict is not Verdict.PASSED]:
        raise DataContractError(
            f"Features of {period.key} were refused: {'; '.join(gate.sentence() for gate in broken)} "
            f"`boucle quarantine {spec.model}` shows the rows. The last good snapshot stays."
        )
    snapshot = store.write(
        split.valid,
        model=spec.name,
        period=period,
        keys=keys,
        quarantined=len(split.rejected),
        created_at=home.clock.now(),
    )
    return Validated(snapshot=snapshot, gates=gates, profile=_profile(split.valid, feature_names(spec)))


def publish_online(home: Home, spec: LoopSpec, period: Period) -> tuple[OnlineManifest, Gate]:
    """Publish the rows that requests may still ask for, up to this period, and compare a sample with the snapshots."""
    store, names = SnapshotStore(home.settings.home_dir), feature_names(spec)
    oldest = period.end - timedelta(days=spec.online.retention_days)
    manifests = [m for m in _snapshots(store, spec) if oldest < m.as_of <= period.end]
    if not manifests:
        raise NotEnoughDataError(f"No validated snapshot of '{spec.model}' up to {period.key}: materialise it first.")
    rows = pd.concat([store.read(manifest) for manifest in manifests], ignore_index=True)
    folder = home.settings.online_dir / spec.model
    manifest = publish_snapshot(
        folder,
        entity_keys=rows[spec.entity].tolist(),
        as_of=rows["as_of"].to_numpy(),
        features=rows[list(names)].to_numpy(dtype=np.float64),
        feature_names=names,
        watermark=period.end,
        source_digests=[m.content_digest for m in manifests],
    )
    return manifest, online_equals_offline(home, spec, rows)


def online_equals_offline(home: Home, spec: LoopSpec, offline: pd.DataFrame) -> Gate:
    """Look a seeded sample of rows up as serving does; every value must be the snapshot's."""
    online, names = OnlineStore(home.settings.online_dir / spec.model), list(feature_names(spec))
    online.refresh()
    sample = offline.sample(min(SAMPLE_ROWS, len(offline)), random_state=spec.training.seed)
    wrong = 0
    for key, as_of, values in zip(
        sample[spec.entity], sample["as_of"], sample[names].to_numpy(dtype=np.float64), strict=True
    ):
        moment = as_of.to_pydatetime().replace(tzinfo=UTC)
        found = online.look_up(EntityKey(str(key)), moment, max_age_days=spec.online.max_age_days)
        wrong += not np.array_equal(np.asarray(found.values, dtype=np.float64), values, equal_nan=True)
    return Gate(
        name="online_equals_offline",
        verdict=Verdict.PASSED if wrong == 0 and len(sample) else Verdict.FAILED,
        measured=float(wrong),
        bound=Bound.AT_MOST,
        limit=0,
        unit="rows that differ",
        sample_size=len(sample),
    )


def known_entities(home: Home, spec: LoopSpec) -> list[str]:
    """Every entity of the newest snapshot, sorted."""
    store = SnapshotStore(home.settings.home_dir)
    rows = store.read(_snapshots(store, spec)[-1], columns=[spec.entity])
    return sorted(rows[spec.entity].astype(str))


def _snapshots(store: SnapshotStore, spec: LoopSpec) -> list[SnapshotManifest]:
    found = [store.current(spec.name, PeriodKey(key)) for key in store.periods(spec.name)]
    return [manifest for manifest in found if manifest is not None]


def _gates(spec: LoopSpec, rows: pd.DataFrame, *, rejected: int) -> tuple[Gate, ...]:
    share, limit = rejected / len(rows), spec.landing.max_rejected_share
    future = int((rows["event_time"] >= rows["as_of"]).sum())
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
    )


def _profile(rows: pd.DataFrame, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {
            "feature": name,
            "missing": int(rows[name].isna().sum()),
            "mean": float(rows[name].mean()),
            "p05": float(rows[name].quantile(0.05)),
            "median": float(rows[name].median()),
            "p95": float(rows[name].quantile(0.95)),
        }
        for name in names
    ]
