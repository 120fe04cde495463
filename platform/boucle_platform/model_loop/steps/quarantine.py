"""Rows that were set aside: counted, shown, and put back once a person has mended them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from boucle.contracts.ids import PeriodKey
from boucle.errors import ConfigurationError, LandingError
from boucle.features.contract import REASON
from boucle.features.quarantine import with_mended_rows
from boucle.features.raw_source import read_rows
from boucle_adapters.home import Home
from boucle_adapters.landing_zone import landing_file, publish, read_landing, read_table
from boucle_adapters.snapshots import QUARANTINE, REFUSED, SnapshotStore
from boucle_platform.model_loop.spec import LoopSpec

FEATURES = "features"
"""The quarantine of feature rows; the others are named as their sources."""


def quarantine_counts(home: Home, spec: LoopSpec, period: str = "*") -> list[dict[str, Any]]:
    """Rows in quarantine by source, period and kind of reason; of one period or of all."""
    folder = home.settings.data_dir / spec.model
    found = {
        file.relative_to(file.parents[1])
        for kind in (QUARANTINE, REFUSED)
        for file in folder.glob(f"{kind}/*/{period}.parquet")
    }
    rows: list[dict[str, Any]] = []
    for file in sorted(found):
        source, period = file.parent.name, PeriodKey(file.stem)
        frame = _shown(home, spec, source, period)
        reasons = kinds_of_reason(frame[REASON].tolist()) if len(frame) else Counter[str]()
        rows += [{"source": source, "period": period, "rows": n, "reason": r} for r, n in reasons.most_common()]
    return rows


def quarantined_rows(home: Home, spec: LoopSpec, key: str, *, source: str = "") -> pd.DataFrame:
    """The rows of one period that were set aside, with their reason; by default those of its first source.

    Of a file that was refused whole these are the broken rows of that file, until a good one has landed.
    """
    period = spec.period(key)
    if source not in {"", *spec.sources, FEATURES}:
        known = ", ".join(spec.sources)
        raise ConfigurationError(f"There is no quarantine of '{source}': it is {known} or {FEATURES}.")
    source = source or next(iter(spec.sources))
    return _shown(home, spec, source, period.key)


def _shown(home: Home, spec: LoopSpec, source: str, period: PeriodKey) -> pd.DataFrame:
    store = SnapshotStore(home.settings.home_dir)
    refused = store.read_quarantine(spec.name, source, period, REFUSED)
    return store.read_quarantine(spec.name, source, period) if refused.empty else refused


def release(home: Home, spec: LoopSpec, key: str, mended: Path, *, source: str = "") -> dict[str, Any]:
    """Land a source's file of the period again with the mended rows in place: it takes the way of every landing file.

    Args:
        home: Where the file has landed.
        spec: The model.
        key: The period.
        mended: A CSV of rows as `quarantine show --csv` writes them.
        source: Whose file it is; by default the model's first source.

    Raises:
        LandingError: The mended rows do not fit; nothing was changed.
    """
    declared, period = spec.source(source or next(iter(spec.sources))), spec.period(key)
    set_aside = quarantined_rows(home, spec, key, source=declared.name)
    if set_aside.empty:
        raise LandingError(f"No row of {declared.name} {key} is in quarantine. Nothing was changed.")
    file = landing_file(home.settings.landing_dir, spec.name, declared.name, period.key)
    landed = read_landing(file, declared.column_names).rows
    fixed = read_table(mended, list(set_aside.columns))
    rows, changed = with_mended_rows(landed, set_aside, fixed, declared.column_names)
    left = read_rows(declared, period, rows).rejected
    publish(rows[list(declared.column_names)], file)
    return {"period": period.key, "released": changed, "still_set_aside": len(left), "file": str(file)}


def kinds_of_reason(reasons: list[str]) -> Counter[str]:
    """How often each rule was broken: "amount_usd: not at least 0 (value -3.00)" counts without its value."""
    return Counter(reason.split(" (value", 1)[0] for reason in reasons)
