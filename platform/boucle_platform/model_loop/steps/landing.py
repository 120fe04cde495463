"""Landing files: published by the stand-in for the source system, found by the sensor, loaded into the warehouse."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from boucle.contracts.data import LandingReceipt
from boucle.contracts.ids import Digest, PeriodKey
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.contracts.windows import Period, previous_period
from boucle.errors import ConfigurationError, LandingError
from boucle.features.contract import REASON
from boucle.features.raw_source import ACCEPTED, RowsRefusedError
from boucle.policy.freshness import FreshnessReading, read_freshness
from boucle_adapters.duckdb_warehouse import landed_rows
from boucle_adapters.home import Home
from boucle_adapters.ingestion import ingest
from boucle_adapters.landing_zone import file_digest, landing_file, publish, published
from boucle_adapters.snapshots import SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.model_loop.steps.quarantine import kinds_of_reason


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What loading a landing file did; `reasons` counts the rows set aside."""

    receipt: LandingReceipt
    gate: Gate
    reasons: list[dict[str, Any]]


def feed(home: Home, spec: LoopSpec, key: str = "") -> dict[str, Any]:
    """Land one period's file (the next one by default) and move the home's clock on to its publication.

    Raises:
        ConfigurationError: There is no such period, or an earlier one was not landed yet.
    """
    hook = spec.hook("landing")
    landed = published(home.settings.landing_dir, spec.name, spec.source)
    waiting = [name for name in hook.published_periods() if name not in landed]
    if not key and not waiting:
        raise ConfigurationError(f"The whole history of '{spec.model}' has landed; its last period is {landed[-1]}.")
    if key and waiting and key > waiting[0]:
        raise ConfigurationError(f"{key} cannot land before {waiting[0]}: land the periods in order.")
    period = spec.period(key or waiting[0])
    rows = hook.export_period(period.key)
    file = landing_file(home.settings.landing_dir, spec.name, spec.source, period.key)
    publish(rows, file)
    # Never back: an earlier period that lands again is a correction. Not from `waiting`, so that feeding again after a
    # kill between file and clock moves it.
    if not home.settings.clock_file.exists() or period.end > home.clock.now():
        home.clock.set(period.end)
    return {
        "period": period.key,
        "rows": len(rows),
        "file": str(file),
        "now": home.clock.now().isoformat(timespec="seconds"),
    }


def load(home: Home, spec: LoopSpec, period: Period) -> Loaded:
    """Load the period's landing file as its next version; rows that break the contract go to quarantine.

    Raises:
        LandingError: The file was refused whole, or the period before was not loaded; the period stays as it was.
    """
    source = spec.hook("landing").SOURCE
    _require_period_before(home, spec, period)
    file = landing_file(home.settings.landing_dir, spec.name, spec.source, period.key)
    receipt, rejected = ingest(source, period, file, home.warehouse, now=home.clock.now(), limits=spec.landing)
    SnapshotStore(home.settings.home_dir).write_quarantine(
        rejected, model=spec.name, source=spec.source, period=period.key
    )
    counts = kinds_of_reason(rejected[REASON].tolist()) if len(rejected) else Counter[str]()
    total = receipt.rows + receipt.quarantined
    gate = Gate(
        name=ACCEPTED,
        verdict=Verdict.PASSED,
        measured=receipt.quarantined / total,
        bound=Bound.AT_MOST,
        limit=spec.landing.max_rejected_share,
        unit="ratio of rows set aside",
        sample_size=total,
    )
    return Loaded(receipt=receipt, gate=gate, reasons=[{"reason": r, "rows": n} for r, n in counts.most_common()])


def refused(spec: LoopSpec, error: LandingError) -> Gate:
    """The gate of a file that was not loaded: what was measured of its rows, or nothing where none could be read."""
    if isinstance(error, RowsRefusedError):
        return error.gate
    return Gate(
        name=ACCEPTED,
        verdict=Verdict.FAILED,
        measured=None,
        bound=Bound.AT_MOST,
        limit=spec.landing.max_rejected_share,
        unit="ratio of rows set aside",
        sample_size=0,
        detail=str(error),
    )


def landed_files(home: Home, spec: LoopSpec) -> dict[PeriodKey, Digest]:
    """SHA-256 of the landing file of each period that has one."""
    folder = home.settings.landing_dir
    periods = published(folder, spec.name, spec.source)
    return {period: file_digest(landing_file(folder, spec.name, spec.source, period)) for period in periods}


def freshness(home: Home, spec: LoopSpec) -> FreshnessReading:
    """Whether the source delivers: the age of the newest period that has landed and is over."""
    landed = published(home.settings.landing_dir, spec.name, spec.source)
    now = home.clock.now()
    over = (period for period in map(spec.period, filter(spec.is_period, landed)) if period.end <= now)
    newest = max(over, key=lambda period: period.end, default=None)
    ended = newest is not None and newest.key == spec.last_period
    return read_freshness(spec.freshness, newest, now, ended=ended)


def _require_period_before(home: Home, spec: LoopSpec, period: Period) -> None:
    if spec.starts(period):
        return
    before = previous_period(period, spec.cadence)
    with home.warehouse.connect() as connection:
        loaded = landed_rows(connection, spec.hook("landing").SOURCE)
    if before.key not in loaded:
        raise LandingError(
            f"{spec.raw} of {before.key} is not loaded, so features of {period.key} would miss its rows. "
            f"Materialise {before.key} first. {period.key} stays as it was."
        )
