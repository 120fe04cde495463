"""What a look-up of online features costs against a bare read of the same arrays, in one process.

The snapshot has a million rows: 100,000 entities with ten moments each and 15 features. Looked up are 100,000 random
(entity, as_of). The bare read finds the key in the sorted entities and the moment among its rows, and takes the row: no
watermark, no age, no error that says what to do. Both read the arrays as serving maps them. Best of five passes.

    python benchmarks/lookup.py [--quick] [--json]
"""

import argparse
import json
import random
import sys
import tempfile
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from boucle.contracts.ids import EntityKey
from boucle_adapters.online_store import Snapshot, publish_snapshot, to_microseconds

MOMENTS, FEATURES, PASSES = 10, 15, 5
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
LIMIT = 2.0
Question = tuple[EntityKey, datetime]


@dataclass(frozen=True)
class Result:
    """Microseconds a look-up, and their ratio."""

    rows: int
    lookups: int
    bare_us: float
    boucle_us: float
    ratio: float
    limit: float = LIMIT


def snapshot(folder: Path, entities: int) -> Snapshot:
    """A published snapshot, opened as serving opens it."""
    keys = [f"{number:07d}" for number in range(entities) for _ in range(MOMENTS)]
    moments = [FIRST + timedelta(days=day) for _ in range(entities) for day in range(MOMENTS)]
    values = np.random.default_rng(7).normal(size=(len(keys), FEATURES))
    manifest = publish_snapshot(
        folder / "bench",
        entity_keys=keys,
        as_of=moments,
        features=values,
        feature_names=[f"f{number}" for number in range(FEATURES)],
        watermark=FIRST + timedelta(days=MOMENTS),
        source_digests=[],
    )
    return Snapshot.open(folder / "bench" / manifest.digest())


def questions(entities: int, count: int) -> list[Question]:
    """Random entities, each at a random moment at which it has a row."""
    chance = random.Random(7)
    return [
        (
            EntityKey(f"{chance.randrange(entities):07d}"),
            FIRST + timedelta(days=chance.randrange(MOMENTS), hours=chance.randrange(24)),
        )
        for _ in range(count)
    ]


def bare(found: Snapshot, asked: Sequence[Question]) -> list[list[float]]:
    """The newest row at or before each moment, with nothing around it."""
    entities, starts, as_of, features = found.entities, found.starts, found.as_of, found.features
    answers = []
    for key, moment in asked:
        place = int(entities.searchsorted(key.encode()))
        position = bisect_right(as_of, to_microseconds(moment), starts[place], starts[place + 1]) - 1
        answers.append(features[position].tolist())
    return answers


def by_boucle(found: Snapshot, asked: Sequence[Question]) -> list[list[float]]:
    """The same through the look-up of serving."""
    return [list(found.look_up(key, moment, max_age_days=31).values) for key, moment in asked]


def best_us(work: Callable[[], object], count: int) -> float:
    """Microseconds a look-up in the best of several passes: other passes were disturbed by the machine."""
    times = []
    for _ in range(PASSES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times) / count * 1e6


def measure(entities: int, lookups: int) -> Result:
    """Both ways over the same questions; they have to give the same answers."""
    with tempfile.TemporaryDirectory(prefix="boucle-lookup-") as folder:
        found = snapshot(Path(folder), entities)
        asked = questions(entities, lookups)
        if bare(found, asked) != by_boucle(found, asked):
            raise SystemExit("The two ways gave different answers.")
        bare_us = best_us(lambda: bare(found, asked), lookups)
        boucle_us = best_us(lambda: by_boucle(found, asked), lookups)
    return Result(entities * MOMENTS, lookups, round(bare_us, 3), round(boucle_us, 3), round(boucle_us / bare_us, 2))


def main() -> None:
    """Measure and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 rows and 20,000 look-ups")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    words = parser.parse_args()
    result = measure(10_000, 20_000) if words.quick else measure(100_000, 100_000)
    if words.json:
        sys.stdout.write(json.dumps(asdict(result)) + "\n")
        return
    table = Table("rows", "bare (µs)", "boucle (µs)", "ratio", "limit")
    table.add_row(*(f"{value:g}" for value in (result.rows, result.bare_us, result.boucle_us, result.ratio, LIMIT)))
    Console().print(table)


if __name__ == "__main__":
    main()
