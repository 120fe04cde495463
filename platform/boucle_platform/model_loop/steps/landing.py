"""Landing files: published by the stand-in for the source system, found by the sensor, loaded into the warehouse."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import Any

from boucle.contracts.data import LandingReceipt
from boucle.contracts.ids import Digest, PeriodKey
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Period, previous_period
from boucle.errors import ConfigurationError, LandingError
from boucle.features.arrivals import content_of_files
from boucle.features.contract import REASON
from boucle.features.freshness import FreshnessReading, read_freshness
from boucle.features.knowledge import BuildWindow, build_windows
from boucle.features.raw_source import ACCEPTED, RowsRefusedError
from boucle_adapters.duckdb_warehouse import correction_moments, declare_source, landed_rows
from boucle_adapters.home import Home
from boucle_adapters.ingestion import ingest
from boucle_adapters.landing_zone import file_digest, landing_file, publish, published
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.quarantine import kinds_of_reason

NO_FILE = "No file of this source has landed; the period is loaded without it."


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What loading a landing file did; `reasons` counts the rows set aside. No receipt where no file had landed."""

    receipt: LandingReceipt | None
    gate: Gate
    reasons: list[dict[str, Any]]


def feed(home: Home, spec: LoopSpec, key: str = "") -> dict[str, Any]:
    """Land one period's files (the next one's by default) and move the model's clock on to their publication.

    Raises:
        ConfigurationError: There is no such period, or an earlier one was not landed yet.
    """
    hook = spec.history
    landed = landed_files(home, spec)
    waiting = [name for name in hook.published_periods() if name not in landed]
    if not key and not waiting:
        raise ConfigurationError(f"The whole history of '{spec.model}' has landed; its last period is {max(landed)}.")
    if key and waiting and key > waiting[0]:
        raise ConfigurationError(f"{key} cannot land before {waiting[0]}: land the periods in order.")
    period = spec.period(key or waiting[0])
    exported = {source: hook.export_period(source, period.key) for source in spec.sources}
    rows = {source: found for source, found in exported.items() if found is not None}
    files = {source: file_of(home, spec, source, period) for source in rows}
    # A period is complete with its required files: they land last, so that a kill in between leaves it waiting.
    for source in sorted(rows, key=lambda name: spec.sources[name].required):
        publish(rows[source], files[source])
    # Never back: an earlier period that lands again is a correction. Not from `waiting`, so that feeding again after a
    # kill between file and clock moves it.
    clock = home.clock(spec.name)
    if not clock.is_simulated or period.end > clock.now():
        clock.set(period.end)
    return {
        "period": period.key,
        "rows": sum(map(len, rows.values())),
        "files": [str(file) for file in files.values()],
        "now": clock.now().isoformat(timespec="seconds"),
    }


def load(home: Home, spec: LoopSpec, source: str, period: Period) -> Loaded:
    """Load a source's landing file of the period as its next version; rows that break the contract go to quarantine.

    Raises:
        LandingError: The file was refused whole, or the period before was not loaded; the period stays as it was.
    """
    declared = spec.source(source)
    if declared.required:
        _require_period_before(home, spec, source, period)
    file = file_of(home, spec, source, period)
    if not (declared.required or file.exists()):
        with home.warehouse.connect() as connection:
            declare_source(connection, declared)
        return Loaded(receipt=None, gate=_unmeasured(spec, source, Verdict.INCONCLUSIVE, NO_FILE), reasons=[])
    now = home.clock(spec.name).now()
    store = SnapshotStore(home.settings.home_dir)
    try:
        receipt, rejected = ingest(declared, period, file, home.warehouse, now=now)
    except RowsRefusedError as error:
        # What was refused is what a person must see, and what `quarantine release` would mend.
        if error.rejected is not None and len(error.rejected):
            store.write_refused(error.rejected, model=spec.name, source=source, period=period.key)
        raise
    store.write_quarantine(rejected, model=spec.name, source=source, period=period.key)
    counts = kinds_of_reason(rejected[REASON].tolist()) if len(rejected) else Counter[str]()
    total = receipt.rows + receipt.quarantined
    gate = Gate(
        name=ACCEPTED,
        verdict=Verdict.PASSED,
        measured=receipt.quarantined / total,
        bound=Bound.AT_MOST,
        limit=declared.limits.max_rejected_share,
        unit="ratio of rows set aside",
        sample_size=total,
    )
    return Loaded(receipt=receipt, gate=gate, reasons=[{"reason": r, "rows": n} for r, n in counts.most_common()])


def content(home: Home, spec: LoopSpec, period: Period, loaded: LandingReceipt | None) -> Digest:
    """Digest of what has landed of a period; of the source that was just loaded, what was loaded counts."""
    files = {source: file_of(home, spec, source, period) for source in spec.sources}
    digests = {source: file_digest(file) for source, file in files.items() if file.exists()}
    return content_of_files(digests if loaded is None else {**digests, loaded.source: loaded.file_digest})


def windows(home: Home, spec: LoopSpec, periods: Sequence[Period]) -> tuple[BuildWindow, ...]:
    """The dbt builds that make the features of a row of periods, in order."""
    with home.warehouse.connect() as connection:
        corrections = correction_moments(connection, spec.name, periods[-1].key)
    start, end = periods[0].start, periods[-1].end
    return build_windows(start, end, [moment.replace(tzinfo=UTC) for moment in corrections])


def refused(spec: LoopSpec, source: str, error: LandingError) -> Gate:
    """The gate of a file that was not loaded: what was measured of its rows, or nothing where none could be read."""
    if isinstance(error, RowsRefusedError):
        return error.gate
    return _unmeasured(spec, source, Verdict.FAILED, str(error))


def file_of(home: Home, spec: LoopSpec, source: str, period: Period) -> Path:
    """Where a source's file of the period lands."""
    return landing_file(home.settings.landing_dir, spec.name, source, period.key)


def landed_files(home: Home, spec: LoopSpec) -> dict[PeriodKey, Digest]:
    """Digest of what has landed of each period of which every required file is there."""
    folder = home.settings.landing_dir
    found: dict[PeriodKey, dict[str, Digest]] = {}
    for source in spec.sources:
        for period in published(folder, spec.name, source):
            digest = file_digest(landing_file(folder, spec.name, source, period))
            found.setdefault(period, {})[source] = digest
    return {period: content_of_files(files) for period, files in found.items() if _is_complete(spec, files)}


def freshness(home: Home, spec: LoopSpec, source: str) -> FreshnessReading:
    """Whether a source delivers: the age of its newest period that has landed and is over."""
    landed = published(home.settings.landing_dir, spec.name, source)
    now = home.clock(spec.name).now()
    over = (period for period in map(spec.period, filter(spec.is_period, landed)) if period.end <= now)
    newest = max(over, key=lambda period: period.end, default=None)
    ended = newest is not None and newest.key == spec.last_period
    return read_freshness(spec.sources[source].freshness, newest, now, ended=ended)


def _is_complete(spec: LoopSpec, files: Mapping[str, Digest]) -> bool:
    return all(name in files for name, source in spec.sources.items() if source.required)


def _unmeasured(spec: LoopSpec, source: str, verdict: Verdict, detail: str) -> Gate:
    return Gate(
        name=ACCEPTED,
        verdict=verdict,
        measured=None,
        bound=Bound.AT_MOST,
        limit=spec.sources[source].limits.max_rejected_share,
        unit="ratio of rows set aside",
        sample_size=0,
        detail=detail,
    )


def _require_period_before(home: Home, spec: LoopSpec, source: str, period: Period) -> None:
    if spec.starts(period):
        return
    before = previous_period(period, spec.cadence)
    with home.warehouse.connect() as connection:
        loaded = landed_rows(connection, spec.source(source))
    if before.key not in loaded:
        raise LandingError(
            f"raw_{source} of {before.key} is not loaded, so features of {period.key} would miss its rows. "
            f"Materialise {before.key} first. {period.key} stays as it was."
        )
