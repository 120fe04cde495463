"""A shop with a few orders a month, its landing zone and its warehouse."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from boucle.contracts.data import LandingReceipt
from boucle.contracts.windows import Cadence, Period, period_of
from boucle_adapters.duckdb_warehouse import DuckDBWarehouse
from boucle_adapters.ingestion import ingest
from boucle_adapters.landing_zone import landing_file, publish
from boucle_platform.defs.repurchase.schema import ORDERS

Order = tuple[str, str, str, str]


def month(key: str) -> Period:
    return period_of(key, Cadence.MONTHLY)


def orders(key: str = "1997-04", count: int = 40) -> list[Order]:
    """`count` different orders spread over the month."""
    return [(f"{n:05d}", f"{key}-{n % 28 + 1:02d}", "1", f"{n}.99") for n in range(1, count + 1)]


def frame(rows: list[Order]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(ORDERS.column_names), dtype=object)


@dataclass(frozen=True)
class Shop:
    home: Path

    @property
    def warehouse(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.home / "warehouse.duckdb", timeout_seconds=10)

    def file(self, key: str = "1997-04") -> Path:
        return landing_file(self.home / "landing", ORDERS.model, ORDERS.name, month(key).key)

    def land(
        self, rows: list[Order] | None = None, key: str = "1997-04", now: datetime | None = None
    ) -> tuple[LandingReceipt, pd.DataFrame]:
        """Publish rows and land them."""
        publish(frame(orders(key) if rows is None else rows), self.file(key))
        return self.land_file(key, now)

    def land_file(self, key: str = "1997-04", now: datetime | None = None) -> tuple[LandingReceipt, pd.DataFrame]:
        """Land the file that is there."""
        period = month(key)
        return ingest(ORDERS, period, self.file(key), self.warehouse, now=now or period.end)

    def counts(self) -> dict[int, int]:
        """Rows of raw.orders by version."""
        found = self.warehouse.query("SELECT version, count(*) AS n FROM raw.orders GROUP BY version ORDER BY version")
        return dict(zip(found["version"].tolist(), found["n"].tolist(), strict=True))
