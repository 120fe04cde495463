"""What is loaded of each period, as the event log says: the same for runs of sensors, verbs and people."""

from collections.abc import Iterable
from dataclasses import dataclass

import dagster as dg

from boucle.contracts.ids import PeriodKey
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.spec import LoopSpec

# Metadata of the raw asset.
STAMP = "landing_stamp"


@dataclass(frozen=True, kw_only=True)
class LoadedPeriods:
    """Periods of which rows are loaded. `unfinished` ones lack newer online features, or were never monitored."""

    stamps: dict[PeriodKey, str]
    unfinished: frozenset[PeriodKey]
    monitored: frozenset[PeriodKey]


def loaded_periods(instance: dg.DagsterInstance, spec: LoopSpec) -> LoadedPeriods:
    """What the newest materialisations say."""
    sources = [_newest(instance, spec, raw) for raw in spec.raws]
    raw = {period: max(found.get(period, 0) for found in sources) for period in set().union(*sources)}
    online, monitored = _newest(instance, spec, "online_features"), _newest(instance, spec, "drift_report")
    unfinished = {period for period, loaded in raw.items() if online.get(period, 0) < loaded or period not in monitored}
    return LoadedPeriods(
        stamps=_common_stamps(
            _stamps(instance, spec, asset, list(found.values()))
            for asset, found in zip(spec.raws, sources, strict=True)
        ),
        unfinished=frozenset(unfinished),
        monitored=frozenset(monitored),
    )


def _newest(instance: dg.DagsterInstance, spec: LoopSpec, asset: str) -> dict[PeriodKey, int]:
    """Place in the event log of the newest materialisation of each period."""
    found = instance.get_latest_storage_id_by_partition(key_of(spec, asset), dg.DagsterEventType.ASSET_MATERIALIZATION)
    return {PeriodKey(period): storage_id for period, storage_id in found.items()}


def _common_stamps(sources: Iterable[dict[PeriodKey, str]]) -> dict[PeriodKey, str]:
    """The stamp of each period on which all raw assets agree; where one was loaded alone, none."""
    stamps = list(sources)
    periods = set().union(*stamps)
    found = {period: {loaded.get(period, "") for loaded in stamps} for period in periods}
    return {period: next(iter(same)) if len(same) == 1 else "" for period, same in found.items()}


def _stamps(instance: dg.DagsterInstance, spec: LoopSpec, asset: str, storage_ids: list[int]) -> dict[PeriodKey, str]:
    if not storage_ids:
        return {}
    wanted = dg.AssetRecordsFilter(asset_key=key_of(spec, asset), storage_ids=storage_ids)
    stamps = {}
    for record in instance.fetch_materializations(wanted, limit=len(storage_ids)).records:
        event = record.asset_materialization
        if event is not None and event.partition is not None:
            stamp = event.metadata.get(STAMP)
            stamps[PeriodKey(event.partition)] = str(stamp.value) if stamp is not None else ""
    return stamps
