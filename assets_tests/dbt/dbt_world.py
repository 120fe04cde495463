"""dbt on a warehouse of its own, and the same features and labels written slowly in Python."""

import os
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pandas as pd

from assets_tests import warm
from boucle.contracts.windows import Cadence, period_of
from boucle.features.digest import content_digest
from boucle_adapters.duckdb_warehouse import DuckDBWarehouse
from boucle_adapters.settings import TELEMETRY_OFF, Settings
from boucle_platform.model_loop import dbt_project

Purchases = dict[str, dict[date, tuple[int, Decimal]]]


def _dbt(*words: str) -> None:
    from dbt.cli.main import dbtRunner

    parsed = dbt_project.parsed_project(Settings())
    result = dbtRunner(manifest=parsed).invoke(["--no-use-colors", "--no-write-json", *words])
    sys.exit(0 if result.success else 1)


@dataclass(frozen=True)
class DbtWorld:
    home: Path

    @property
    def warehouse(self) -> DuckDBWarehouse:
        return DuckDBWarehouse(self.home / "warehouse.duckdb")

    @property
    def environment(self) -> dict[str, str]:
        """What profiles.yml and dbt read, as a step has it."""
        return {**dbt_project.dbt_environment(Settings(home=self.home)), **TELEMETRY_OFF}

    def dbt(self, *command: str, window: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        """Run dbt in a process of its own: the window in the environment, the warehouse locked meanwhile."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith(("BOUCLE_", "DBT_"))}
        ours = {"BOUCLE_HOME": str(self.home), "BOUCLE_DBT_PARSE_DIR": os.environ["BOUCLE_DBT_PARSE_DIR"]}
        environment = outside | ours | self.environment | window
        with self.warehouse.lock():
            return warm.in_process(_dbt, *command, environment=environment, timeout=120)

    def build(
        self,
        key: str,
        *,
        through: str = "",
        command: tuple[str, ...] = ("build",),
        horizon_days: int = 30,
        known_at: str | None = None,
    ) -> str:
        """Build a month, or several at once; return what dbt said. By default it knows what had landed by its start."""
        start, end = period_of(key, Cadence.MONTHLY).start, period_of(through or key, Cadence.MONTHLY).end
        window = {
            "BOUCLE_PERIOD_START": f"{start:%Y-%m-%d}",
            "BOUCLE_PERIOD_END": f"{end:%Y-%m-%d}",
            "BOUCLE_KNOWN_AT": f"{start:%Y-%m-%d}" if known_at is None else known_at,
            "BOUCLE_HORIZON_DAYS": str(horizon_days),
        }
        done = self.dbt(*command, "--select", "fqn:boucle_features.repurchase", window=window)
        assert done.returncode == 0, done.stdout[-3000:]
        return done.stdout

    def features(self, as_of: str, *, restated: bool = False) -> pd.DataFrame:
        """Feature rows of one as_of."""
        return self.warehouse.query(
            "SELECT * EXCLUDE (restated) FROM repurchase_features WHERE as_of = CAST(? AS TIMESTAMP) AND restated = ? "
            "ORDER BY user_id",
            [as_of, restated],
        )

    def labels(self) -> pd.DataFrame:
        return self.warehouse.query("SELECT * FROM repurchase_labels ORDER BY as_of, user_id")

    def digest(self, as_of: str, *, restated: bool = False) -> str:
        return content_digest(self.features(as_of, restated=restated), ["user_id", "as_of"])


def purchases(orders: list[tuple[str, str, str, str]]) -> Purchases:
    """CDs and dollars of each customer's days."""
    days: Purchases = defaultdict(dict)
    for customer, day, cds, usd in orders:
        before = days[customer].get(date.fromisoformat(day), (0, Decimal(0)))
        days[customer][date.fromisoformat(day)] = (before[0] + int(cds), before[1] + Decimal(usd))
    return days


def slow_features(orders: list[tuple[str, str, str, str]], as_of: date) -> dict[str, dict[str, float | None]]:
    """The features of every customer with an order before `as_of`."""
    known = {
        customer: {day: value for day, value in days.items() if day < as_of}
        for customer, days in purchases(orders).items()
    }
    return {customer: _of_one(days, as_of) for customer, days in known.items() if days}


def _of_one(days: dict[date, tuple[int, Decimal]], as_of: date) -> dict[str, float | None]:
    first, last, freq = min(days), max(days), len(days)
    recent = {window: [day for day in days if (as_of - day).days <= window] for window in (30, 90, 180)}
    usd_all = sum((usd for _, usd in days.values()), Decimal(0))
    mean_gap = (last - first).days / (freq - 1) if freq > 1 else None
    recency = (as_of - last).days
    return {
        "recency": recency,
        "tenure": (as_of - first).days,
        "freq": freq,
        "orders_30d": len(recent[30]),
        "orders_90d": len(recent[90]),
        "orders_180d": len(recent[180]),
        "usd_all": float(usd_all),
        "usd_90d": float(sum((days[day][1] for day in recent[90]), Decimal(0))),
        "aov": float(usd_all) / freq,
        "cds_all": sum(cds for cds, _ in days.values()),
        "first_usd": float(days[first][1]),
        "first_cds": days[first][0],
        "mean_gap": mean_gap,
        "rec_ratio": recency / mean_gap if mean_gap else None,
    }


def slow_labels(orders: list[tuple[str, str, str, str]], as_of: date, horizon_days: int) -> dict[str, bool]:
    """Whether each customer known at `as_of` ordered within the horizon."""
    window = [as_of + timedelta(days=n) for n in range(horizon_days)]
    days = purchases(orders)
    return {customer: any(day in days[customer] for day in window) for customer in slow_features(orders, as_of)}
