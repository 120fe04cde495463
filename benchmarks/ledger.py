"""What the ledger costs when it is long: reading and verifying it, and `boucle history --at` beyond its start-up.

A SQLite store with 10,000 decisions of one model, chained as they would be. Reading and verifying is done in this
process, best of five passes. The verb runs in one of its own, in turns with the same verb on a ledger of one row, whose
median is the start-up; medians of seven.

    python benchmarks/ledger.py [--quick] [--json]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from boucle.contracts.decision import GENESIS, DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.ledger import row_hash
from boucle_adapters.sql_connections import migrate
from boucle_adapters.sql_state import DECISION, SqlStateStore

MODEL, FIRST = ModelName("repurchase"), datetime(2024, 1, 1, tzinfo=UTC)
PASSES, STARTS = 5, 7
TARGETS = {"verify_seconds": 1.0, "history_at_seconds": 0.2}
BOUCLE = str(Path(sys.executable).with_name("boucle"))


def fill(folder: Path, rows: int) -> str:
    """A home with this many decisions; returns the URL of its store."""
    folder.mkdir(parents=True)
    url = f"sqlite:///{folder / 'state.db'}"
    migrate(url)
    previous, records = GENESIS, []
    for number in range(1, rows + 1):
        new = NewDecision(
            kind=DecisionKind.PROMOTE,
            model=MODEL,
            at=FIRST + timedelta(hours=number),
            actor="sensor:repurchase_drift",
            reason="all 13 gates passed; no_regression: passed (measured 0.01 nats, n=10000).",
            from_version=ModelVersion(number - 1) if number > 1 else None,
            to_version=ModelVersion(number),
            subject_version=ModelVersion(number),
            policy="automatic",
            evidence_digest=Digest(f"{number:064x}"),
            bundle_digest=Digest(f"{number:064x}"),
            git_commit="0123456789ab",
            dagster_run_id="7b0e7a52-9b1c-4b43-8b9a-1d1f0f2f3a4b",
        )
        own = row_hash(previous, new)
        records.append(
            {
                "decision_id": number,
                "model": MODEL,
                "document": new.canonical().decode(),
                "previous_hash": previous,
                "row_hash": own,
            }
        )
        previous = own
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if records:
            connection.execute(sa.insert(DECISION), records)
    engine.dispose()
    return url


def best(url: str) -> float:
    """Seconds to read and verify the whole ledger, the least of several passes."""
    store, seconds = SqlStateStore.open(url), []
    for _ in range(PASSES):
        start = time.perf_counter()
        store.verify()
        seconds.append(time.perf_counter() - start)
    store.close()
    return min(seconds)


def verb(home: Path, moment: str) -> float:
    """Seconds of `boucle history --at`, start-up and all."""
    environment = {**os.environ, "BOUCLE_HOME": str(home)}
    start = time.perf_counter()
    subprocess.run(
        [BOUCLE, "history", "--at", moment, "--json"], env=environment, check=True, capture_output=True, timeout=120
    )
    return time.perf_counter() - start


def measure(rows: int) -> dict[str, float]:
    """Every figure."""
    with tempfile.TemporaryDirectory(prefix="boucle-ledger-") as folder:
        full, short = Path(folder) / "full", Path(folder) / "short"
        url = fill(full, rows)
        fill(short, 1)
        moment = (FIRST + timedelta(hours=rows // 2)).isoformat()
        times: dict[Path, list[float]] = {full: [], short: []}
        for _ in range(STARTS):
            for home, found in times.items():
                found.append(verb(home, moment))
        start_up = statistics.median(times[short])
        return {
            "rows": rows,
            "verify_seconds": round(best(url), 3),
            "start_up_seconds": round(start_up, 3),
            "history_at_seconds": round(statistics.median(times[full]) - start_up, 3),
        }


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1,000 rows")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    words = parser.parse_args()
    found = measure(1_000 if words.quick else 10_000)
    if words.json:
        sys.stdout.write(json.dumps(found) + "\n")
        return
    table = Table("figure", "measured", "at most")
    for name, value in found.items():
        table.add_row(name, f"{value:g}", f"{TARGETS[name]:g}" if name in TARGETS else "")
    Console().print(table)


if __name__ == "__main__":
    main()
