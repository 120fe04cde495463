"""One process at a time in the warehouse, and nothing half done in it."""

import logging
import subprocess
import sys
import textwrap
import threading
from dataclasses import replace

import pandera.pandas as pa
import pytest

from assets_tests.data.landing_world import Shop, month, orders
from boucle.contracts.ids import Digest, ModelName
from boucle.errors import ConfigurationError, NotEnoughDataError
from boucle_adapters.duckdb_warehouse import DuckDBWarehouse, WarehouseBusyError, landed_rows, load_landing
from boucle_platform.defs.repurchase.schema import ORDERS

HOLDER = """
    import sys
    from pathlib import Path
    from boucle_adapters.duckdb_warehouse import DuckDBWarehouse
    with DuckDBWarehouse(Path(sys.argv[1])).connect():
        print("held", flush=True)
        sys.stdin.read()
"""
KILLED = """
    import os, sys
    from pathlib import Path
    from assets_tests.data.landing_world import Shop, orders
    from boucle_adapters import duckdb_warehouse
    insert = duckdb_warehouse._insert
    def insert_and_die(*arguments):
        insert(*arguments)
        os._exit(9)
    duckdb_warehouse._insert = insert_and_die
    Shop(Path(sys.argv[1])).land(orders(count=41))
"""


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def start(script: str, argument: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(argument)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(shop):
    """Another process that has the warehouse open until its input ends."""
    with start(HOLDER, shop.warehouse.file) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        if not process.stdin.closed:
            process.stdin.close()


def test_a_second_process_gives_up_after_the_time_out_and_names_the_holder(shop, holder):
    impatient = DuckDBWarehouse(shop.warehouse.file, timeout_seconds=0.1)
    with pytest.raises(WarehouseBusyError, match=f"busy for 0.1 s: process {holder.pid} holds it"), impatient.connect():
        pass


def test_a_second_process_says_once_for_whom_it_waits_and_then_goes_on(shop, holder, caplog):
    waiting = threading.Event()

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waiting.set()

    answers = []

    def use() -> None:
        with shop.warehouse.connect() as connection:
            answers.extend(connection.execute("SELECT 42").fetchall())

    logger = logging.getLogger("boucle_adapters.duckdb_warehouse")
    logger.addHandler(handler := Told())
    with caplog.at_level(logging.INFO, logger.name):
        thread = threading.Thread(target=use)
        thread.start()
        assert waiting.wait(10)
        holder.stdin.close()
        thread.join(10)
    logger.removeHandler(handler)
    assert answers == [(42,)]
    assert [record.getMessage() for record in caplog.records] == [
        f"Waiting for the warehouse warehouse.duckdb: process {holder.pid} holds it."
    ]


def test_a_killed_holder_blocks_nobody(shop, holder):
    holder.kill()
    holder.wait()
    with shop.warehouse.connect() as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_dbt_process_may_open_the_file_while_the_step_holds_the_lock(shop):
    script = "import duckdb, sys; duckdb.connect(sys.argv[1]).execute('CREATE TABLE t AS SELECT 7 AS n')"
    with shop.warehouse.lock():
        subprocess.run([sys.executable, "-c", script, str(shop.warehouse.file)], check=True)
    assert shop.warehouse.query("SELECT n FROM t")["n"].tolist() == [7]


def test_a_process_that_outlived_its_lock_is_waited_for_too(shop):
    script = "import duckdb, sys; c = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with start(script, shop.warehouse.file) as orphan:
        assert orphan.stdout is not None
        assert orphan.stdout.readline() == "held\n"
        impatient = DuckDBWarehouse(shop.warehouse.file, timeout_seconds=0.1)
        with pytest.raises(WarehouseBusyError, match=f"PID {orphan.pid}"), impatient.connect():
            pass
        orphan.stdin.close()


def test_reading_before_anything_landed_says_what_to_do(shop):
    with pytest.raises(NotEnoughDataError, match="land a period first"):
        shop.warehouse.query("SELECT 1")


def test_a_landing_killed_before_its_commit_leaves_the_period_as_it_was(shop):
    shop.land()
    process = start(KILLED, shop.home)
    process.communicate(timeout=150)
    assert process.returncode == 9
    assert shop.counts() == {1: 40}
    assert shop.land(orders(count=41))[0].version == 2
    assert shop.counts() == {1: 40, 2: 41}


def test_landed_rows_are_those_of_the_newest_version_of_each_period(shop):
    with shop.warehouse.connect() as connection:
        assert landed_rows(connection, ORDERS) == {}
    shop.land(key="1997-05")
    shop.land()
    shop.land(orders(count=41))
    with shop.warehouse.connect() as connection:
        assert list(landed_rows(connection, ORDERS).items()) == [("1997-04", 41), ("1997-05", 40)]


def land_as(shop: Shop, source, rows) -> None:
    period = month("1997-04")
    with shop.warehouse.connect() as connection:
        load_landing(
            connection,
            source,
            rows,
            period=period.key,
            source_file="f",
            quarantined=0,
            landed_at=period.end,
            file_digest=Digest("0" * 64),
        )


def test_two_models_cannot_share_the_name_of_a_source(shop):
    shop.land()
    with pytest.raises(ConfigurationError, match="'orders' belongs to the model 'repurchase'"):
        land_as(shop, replace(ORDERS, model=ModelName("other")), shop.warehouse.query("SELECT * FROM raw.orders"))
    assert shop.counts() == {1: 40}


def test_a_source_whose_columns_changed_is_refused(shop):
    shop.land()
    wider = replace(ORDERS, schema=lambda period: ORDERS.schema(period).add_columns({"colour": pa.Column(str)}))
    rows = shop.warehouse.query("SELECT * FROM raw.orders").assign(colour="red")
    with pytest.raises(ConfigurationError, match=r"raw\.orders has the columns"):
        land_as(shop, wider, rows)
    assert shop.counts() == {1: 40}
