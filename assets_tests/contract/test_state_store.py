"""The rules of a state store, kept alike by the one in SQL and the one in memory."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from assets_tests.bundles import MODEL, promote
from assets_tests.judging import drift_report, trigger
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelName, ModelVersion, PeriodKey
from boucle.contracts.ledger import verify_chain
from boucle.contracts.traffic_plan import NewPlan, Strategy
from boucle.contracts.trigger import AlertRequest, AlertState, AnswerKind, Gain, Trigger, TriggerAnswer, TriggerOutcome
from boucle.errors import ConflictError
from boucle.policy.retraining import report_run_key
from boucle.ports import StateStore
from boucle_adapters.memory import MemoryStateStore
from boucle_adapters.sql_state import SqlStateStore

ONE, TWO = Digest("1" * 64), Digest("2" * 64)
OTHER = ModelName("flight_delay")
NOON = datetime(1997, 11, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["memory", "sql"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryStateStore()
        return
    store = SqlStateStore.create(f"sqlite:///{tmp_path / 'state.db'}")
    yield store
    store.close()


def rejection(production: int) -> NewDecision:
    return NewDecision(
        kind=DecisionKind.REJECT,
        model=MODEL,
        at=NOON,
        actor="test",
        reason="worse",
        from_version=ModelVersion(production),
        to_version=ModelVersion(production),
    )


def test_production_is_what_the_last_decision_left(state: StateStore):
    assert state.production(MODEL) is None
    promote(state, version=1, digest=ONE)
    state.record(rejection(1), expected_production=ModelVersion(1))
    assert state.production(MODEL) == 1
    assert state.production(OTHER) is None


def test_the_ledger_of_two_models_is_one_whole_chain(state: StateStore):
    promote(state, version=1, digest=ONE)
    promote(state, version=1, digest=ONE, model=OTHER)
    promote(state, version=2, digest=TWO)
    verify_chain(state.decisions())
    assert [row.decision.to_version for row in state.decisions(MODEL)] == [1, 2]


def test_a_decision_on_an_outdated_view_changes_nothing(state: StateStore):
    promote(state, version=1, digest=ONE)
    with pytest.raises(ConflictError, match="Nothing was changed"):
        state.record(rejection(1), expected_production=ModelVersion(7))
    assert len(state.decisions()) == 1


def test_each_plan_has_the_next_revision_and_the_same_arms_make_none(state: StateStore):
    promote(state, version=1, digest=ONE)
    second = promote(state, version=2, digest=TWO)
    assert second.revision == 2
    state.record(rejection(2), expected_production=ModelVersion(2))
    move = next(row for row in state.decisions(MODEL) if row.decision.to_version == 2)
    again = state.publish_plan(move, plan=NewPlan(strategy=Strategy.DIRECT, arms=second.arms), actor="test", at=NOON)
    assert again == second == state.plan(MODEL)
    assert state.plans() == {MODEL: second}


def test_a_decision_that_moves_nothing_has_no_plan(state: StateStore):
    plan = promote(state, version=1, digest=ONE)
    decision = state.record(rejection(1), expected_production=ModelVersion(1))
    with pytest.raises(ConflictError, match="not its newest move"):
        state.publish_plan(decision, plan=NewPlan(strategy=Strategy.DIRECT, arms=plan.arms), actor="test", at=NOON)


def test_a_plan_that_somebody_else_moved_leaves_no_decision_behind(state: StateStore):
    first = promote(state, version=1, digest=Digest("a" * 64))
    step = rejection(2).model_copy(update={"kind": DecisionKind.ROLLOUT, "from_version": 1, "to_version": 1})
    more = NewPlan(strategy=Strategy.CANARY, arms=first.arms)
    _, second = state.record_with_plan(step, expected_production=ModelVersion(1), plan=more, expected_revision=1)
    known = list(state.decisions())
    again = NewPlan(strategy=Strategy.SHADOW, arms=first.arms)
    with pytest.raises(ConflictError, match="not revision 1 any more"):
        state.record_with_plan(step, expected_production=ModelVersion(1), plan=again, expected_revision=1)
    assert list(state.decisions()) == known
    assert list(state.plan_history(MODEL)) == [first, second]


def test_a_replica_lives_as_long_as_its_heartbeat_and_the_last_one_counts(state: StateStore):
    state.heartbeat("one", {MODEL: 1}, "http://one")
    state.heartbeat("one", {MODEL: 2, OTHER: 0}, "http://one")
    assert state.replicas(max_age_seconds=60) == {"one": {MODEL: 2, OTHER: 0}}
    assert state.replicas(max_age_seconds=-1) == {}


def test_a_replica_that_says_good_bye_is_not_waited_for(state: StateStore):
    state.heartbeat("one", {MODEL: 1}, "http://one")
    state.heartbeat("one", {}, "http://one")
    assert state.replicas(max_age_seconds=60) == {}


def retraining(production: int | None) -> NewDecision:
    version = None if production is None else ModelVersion(production)
    return NewDecision(
        kind=DecisionKind.RETRAIN,
        model=MODEL,
        at=NOON,
        actor="sensor:drift",
        reason="drift",
        from_version=version,
        to_version=version,
    )


def fired(production: int | None) -> Trigger:
    report = drift_report(production_version=production)
    return trigger(report.period, TriggerOutcome.FIRED, production=production).model_copy(
        update={"run_key": report_run_key(report), "reason": "drift"}
    )


def test_a_trigger_and_its_decision_are_on_record_together(state: StateStore):
    assert state.record_trigger(fired(None), NOON, retraining(None))
    assert list(state.triggers(MODEL)) == [(NOON, fired(None))]
    assert [row.decision.kind for row in state.decisions(MODEL)] == [DecisionKind.RETRAIN]
    verify_chain(state.decisions())


def test_a_trigger_that_is_on_record_decides_nothing_again(state: StateStore):
    assert state.record_trigger(fired(None), NOON, retraining(None))
    assert not state.record_trigger(fired(None), NOON, retraining(None))
    assert len(state.decisions(MODEL)) == 1


def test_a_trigger_about_a_version_that_is_no_longer_production_leaves_nothing(state: StateStore):
    promote(state, version=2, digest=TWO)
    with pytest.raises(ConflictError, match="Nothing was changed"):
        state.record_trigger(fired(1), NOON, retraining(1))
    assert list(state.triggers(MODEL)) == []
    assert [row.decision.kind for row in state.decisions(MODEL)] == [DecisionKind.PROMOTE]


def test_a_trigger_is_kept_once_per_run_key(state: StateStore):
    once = Trigger(
        model=MODEL, period=PeriodKey("1997-10"), outcome=TriggerOutcome.FIRED, reason="drift", run_key="drift-1997-10"
    )
    assert state.record_trigger(once, NOON)
    assert not state.record_trigger(once, NOON)
    assert list(state.triggers(MODEL)) == [(NOON, once)]
    assert list(state.triggers(OTHER)) == []


def test_the_moment_of_a_trigger_is_kept_whatever_its_time_zone_and_given_back_in_utc(state: StateStore):
    state.record_trigger(fired(None), NOON.astimezone(timezone(timedelta(hours=2))))
    ((at, _),) = state.triggers(MODEL)
    assert (at, at.tzinfo) == (NOON, UTC)


def test_of_a_triggers_answer_what_was_last_known_is_kept(state: StateStore):
    first = TriggerAnswer(
        run_key="k", model=MODEL, kind=AnswerKind.WAITING, reason="asks ada", dagster_run_id="run", at=NOON
    )
    then = first.model_copy(update={"kind": AnswerKind.PROMOTED, "realised_gain": Gain(nats=0.01, rows=900)})
    for answer in (first, then):
        state.record_answer(answer)
    assert dict(state.answers(MODEL)) == {"k": then}
    assert dict(state.answers(OTHER)) == {}


def test_an_incident_is_kept_as_it_was_last_heard_of(state: StateStore):
    firing = AlertRequest(
        model=MODEL,
        fingerprint="a1",
        starts_at=NOON,
        state=AlertState.FIRING,
        name="RefundsUp",
        actor="service:alertmanager",
        received_at=NOON,
    )
    earlier = firing.model_copy(update={"starts_at": NOON - timedelta(days=1)})
    resolved = firing.model_copy(update={"state": AlertState.RESOLVED})
    for alert in (firing, earlier, resolved):
        state.record_alert(alert)
    assert list(state.alerts(MODEL)) == [earlier, resolved]
    assert list(state.alerts(OTHER)) == []


def test_what_was_in_production_at_a_moment(state: StateStore):
    def move(version: int | None, to: int, at: datetime) -> None:
        state.record(
            NewDecision(
                kind=DecisionKind.PROMOTE,
                model=MODEL,
                at=at,
                actor='"kind":"reject"',
                reason='he said "kind":"reject","at":"2001-01-01T00:00:00Z"',
                from_version=version,
                to_version=ModelVersion(to),
            ),
            expected_production=version,
        )

    later = NOON + timedelta(days=1, microseconds=5)
    move(None, 1, NOON)
    state.record(rejection(1), expected_production=ModelVersion(1))
    move(1, 2, later)
    found = [
        state.move_at(MODEL, at) for at in (NOON - timedelta(microseconds=1), NOON, later - timedelta(hours=1), later)
    ]
    assert [row and row.decision.to_version for row in found] == [None, 1, 1, 2]
    assert state.move_at(OTHER, later) is None
    state.verify()
