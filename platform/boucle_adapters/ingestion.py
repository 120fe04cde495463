"""From a landing file to rows in the warehouse: all of it, or nothing."""

from datetime import datetime
from pathlib import Path

import pandas as pd

from boucle.contracts.data import LandingReceipt
from boucle.contracts.windows import Period
from boucle.features.raw_source import (
    RawSource,
    RowsRefusedError,
    check_missing,
    check_rejected_share,
    check_volume,
    read_rows,
)
from boucle_adapters.duckdb_warehouse import DuckDBWarehouse, landed_rows, load_landing
from boucle_adapters.landing_zone import read_landing


def ingest(
    source: RawSource,
    period: Period,
    file: Path,
    warehouse: DuckDBWarehouse,
    *,
    now: datetime,
) -> tuple[LandingReceipt, pd.DataFrame]:
    """Land one file: read, check, type, and load it as the period's next version; the same content changes nothing.

    Returns:
        The receipt, and the rows that were set aside: their text, `source_file`, `line_number` and `reason`.

    Raises:
        LandingError: The file was refused whole; the period stays as it was. A RowsRefusedError has the broken rows.
    """
    source_file = "/".join(file.parts[-3:])
    text = read_landing(file, source.column_names)
    rows = read_rows(source, period, text.rows)
    rejected = rows.rejected.assign(source_file=source_file)
    with warehouse.connect() as connection:
        earlier = [count for key, count in landed_rows(connection, source).items() if key < period.key]
        try:
            check_rejected_share(rows, source.limits, file=source_file)
            check_missing(rows, source, period, file=source_file)
            check_volume(len(rows.valid), earlier, source.limits, file=source_file)
        except RowsRefusedError as error:
            error.rejected = rejected
            raise
        receipt = load_landing(
            connection,
            source,
            rows.valid,
            period=period.key,
            source_file=source_file,
            quarantined=len(rows.rejected),
            landed_at=now,
            file_digest=text.file_digest,
        )
    return receipt, rejected
