"""A version on trial: what it does wrong no caller sees, what it did is on record."""

import asyncio
import json
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from assets_tests.bad_bundles import put_crashing_bundle, put_stalling_bundle
from assets_tests.bundles import FEATURES, MODEL, NOVEMBER, publish_users, put_bundle, replace_in_json, write_bundle
from assets_tests.contract.test_http import NOON, QUESTION, WEIGHTS_1, WEIGHTS_2, World, wait_for
from assets_tests.contract.test_turns import OTHER, SCOPE
from boucle.contracts.bundle import CONTRACT_FILE
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.prediction import PredictionRecord
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.shadow import ShadowRecord
from boucle.contracts.traffic_plan import Arm, NewPlan, Strategy
from boucle.contracts.traffic_plan import Role as ArmRole
from boucle_adapters.tokens import Role
from boucle_serving.bundles import LoadedBundle, load_bundle
from boucle_serving.predict_endpoint import Reply
from boucle_serving.trial import FAILURES_IN_A_ROW, PROBE_SECONDS, Trial

BATCH = {"rows": [QUESTION, OTHER]}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 in production."""
    made = World(tmp_path, trial_seconds=0.2)
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def try_version_2(
    world: World,
    digest: Digest,
    *,
    weight: float,
    shadow_share: float = 0.0,
    began_at: datetime = NOON,
    strategy: Strategy = Strategy.CANARY,
) -> None:
    """Put version 2 on trial beside version 1."""
    assert world.state is not None
    production = world.state.plan(MODEL).production  # type: ignore[union-attr]
    challenger = Arm(version=ModelVersion(2), bundle_digest=digest, weight=weight, role=ArmRole.CHALLENGER)
    new = NewDecision(
        kind=DecisionKind.ROLLOUT,
        model=MODEL,
        at=NOVEMBER,
        actor="test",
        reason="try it",
        from_version=ModelVersion(1),
        to_version=ModelVersion(1),
        subject_version=ModelVersion(2),
        bundle_digest=digest,
    )
    rollout = Rollout(
        model=MODEL,
        challenger=ModelVersion(2),
        production=ModelVersion(1),
        phase=Phase.CANARY if weight else Phase.SHADOW,
        weight=weight,
        began_at=began_at,
        phase_began_at=began_at,
    )
    world.state.record_with_plan(
        new,
        expected_production=ModelVersion(1),
        plan=NewPlan(
            strategy=strategy,
            arms=(production.model_copy(update={"weight": 100 - weight}), challenger),
            rollout=rollout,
            shadow_share=shadow_share,
        ),
    )
    world.poll()


def crashing(world: World) -> Digest:
    return put_crashing_bundle(world.bundles, world.root / "scratch")


def stalling(world: World) -> Digest:
    return put_stalling_bundle(world.bundles, world.root / "scratch", turns=3_000_000)


def good(world: World) -> Digest:
    return put_bundle(world.bundles, world.root / "scratch", weights=WEIGHTS_2)


def ask(world: World, *bodies: object) -> list[Reply]:
    """What requests are told that come in one turn, however long that takes."""
    told: dict[int, Reply] = {}

    async def turn() -> None:
        for number, body in enumerate(bodies):
            world.app.state.predict_endpoint.submit(
                MODEL, SCOPE, json.dumps(body).encode(), str(number), lambda reply, n=number: told.update({n: reply})
            )
        async with asyncio.timeout(10):
            while len(told) < len(bodies):
                await asyncio.sleep(0.001)

    asyncio.run(turn())
    return [told[number] for number in range(len(bodies))]


def only(world: World) -> PredictionRecord:
    (record,) = world.logged()
    return record


def shadows(world: World) -> list[ShadowRecord]:
    return list(world.shadows.read(MODEL, NOON, datetime(1997, 11, 3, tzinfo=UTC)))


def test_an_entity_that_is_drawn_is_answered_by_the_version_on_trial(world: World):
    try_version_2(world, good(world), weight=100)
    (reply,) = ask(world, QUESTION)
    assert (reply.status, json.loads(reply.body)["model_version"]) == (200, 2)
    record = only(world)
    assert (record.assigned_role, record.answering_role, record.fallback) == ("challenger", "challenger", None)


def test_the_answer_of_a_version_on_trial_is_what_it_would_be_in_production(world: World):
    try_version_2(world, good(world), weight=100)
    on_trial = json.loads(ask(world, QUESTION)[0].body)["proba"]
    world.promote(2, weights=WEIGHTS_2)
    world.poll()
    assert json.loads(ask(world, QUESTION)[0].body)["proba"] == on_trial


def test_a_crash_on_every_request_is_seen_by_no_caller(world: World):
    try_version_2(world, crashing(world), weight=100)
    told = [reply for _ in range(20) for reply in ask(world, QUESTION)]
    assert {reply.status for reply in told} == {200}
    assert {json.loads(reply.body)["model_version"] for reply in told} == {1}


def test_why_production_answered_is_in_the_log(world: World):
    try_version_2(world, crashing(world), weight=100)
    for _ in range(FAILURES_IN_A_ROW + 2):
        ask(world, QUESTION)
    records = world.logged()
    assert {(record.assigned_role, record.answering_role, record.model_version) for record in records} == {
        ("challenger", "production", 1)
    }
    assert [record.fallback for record in records] == ["failed"] * FAILURES_IN_A_ROW + ["cut"] * 2


def test_a_version_that_stalls_costs_a_caller_its_budget_and_then_nothing(world: World):
    try_version_2(world, stalling(world), weight=100)
    for _ in range(FAILURES_IN_A_ROW):
        assert ask(world, QUESTION)[0].status == 200
    ask(world, QUESTION)
    records = world.logged()
    assert [record.fallback for record in records] == ["stalled"] * FAILURES_IN_A_ROW + ["cut"]
    assert min(record.latency_ms for record in records[:-1]) >= 200


def test_a_run_that_was_ended_stalled_also_where_nobody_counted_its_budget(world: World):
    digest = stalling(world)
    bundle = load_bundle(world.bundles.read(digest), digest)
    trial = Trial(bundle, replica="r", budget_seconds=0.05, write=lambda _: None, skipped=lambda _: None)
    assert trial.ask([[3.0, 5.0]]).result(timeout=90) is None
    trial.close()


def test_callers_of_production_do_not_wait_for_a_version_that_stalls(world: World):
    try_version_2(world, stalling(world), weight=50)
    plan = world.app.state.predict_endpoint._service.served(MODEL).routes
    assert sorted(plan.of(key).assigned.version for key in ("4", "7")) == [1, 2]
    ask(world, QUESTION, OTHER)  # it was quick so far, so this time they do; then it is known to be slow
    told: list[str] = []

    async def turn() -> None:
        for body in (QUESTION, OTHER):
            world.app.state.predict_endpoint.submit(
                MODEL, SCOPE, json.dumps(body).encode(), "r", lambda _reply, who=body["user_id"]: told.append(who)
            )
        for _ in range(3):
            await asyncio.sleep(0)
        assert [plan.of(who).assigned.version for who in told] == [1]
        async with asyncio.timeout(10):
            while len(told) < 2:
                await asyncio.sleep(0.001)

    asyncio.run(turn())


def test_a_version_that_is_cut_is_tried_again_once_in_a_while(world: World, monkeypatch: pytest.MonkeyPatch):
    try_version_2(world, crashing(world), weight=100)
    for _ in range(FAILURES_IN_A_ROW + 1):
        ask(world, QUESTION)
    now = time.monotonic()
    monkeypatch.setattr("boucle_serving.trial.monotonic", lambda: now + PROBE_SECONDS)
    ask(world, QUESTION)
    ask(world, QUESTION)
    assert [record.fallback for record in world.logged()][-3:] == ["cut", "failed", "cut"]


def test_rows_of_a_batch_fall_back_as_single_requests_do(world: World):
    try_version_2(world, crashing(world), weight=100)
    answer = world.http.post(f"/models/{MODEL}/predict/batch", json=BATCH)
    # User 7 has two orders, which it can answer; that it fails on the batch as a whole is no reason not to ask again.
    assert [row["model_version"] for row in answer.json()["rows"]] == [1, 2]
    assert {record.entity_key: record.fallback for record in world.logged()} == {"4": "failed", "7": None}


def test_a_shadow_answers_nobody_and_is_on_record(world: World):
    try_version_2(world, good(world), weight=0, shadow_share=100)
    (reply,) = ask(world, QUESTION)
    assert json.loads(reply.body)["model_version"] == 1
    wait_for(lambda: len(shadows(world)) == 1)
    (shadow,) = shadows(world)
    record = only(world)
    assert (shadow.prediction_id, shadow.model_version, shadow.error) == (record.prediction_id, 2, None)
    world.promote(2, weights=WEIGHTS_2)
    world.poll()
    assert json.loads(ask(world, QUESTION)[0].body)["proba"] == shadow.proba


def test_what_a_version_on_trial_answered_production_shadows(world: World):
    try_version_2(world, good(world), weight=100, shadow_share=100)
    expected = 1 / (1 + 2.718281828459045 ** -(0.1 * 3 - 0.2 * 5))
    ask(world, QUESTION)
    wait_for(lambda: len(shadows(world)) == 1)
    (shadow,) = shadows(world)
    assert (shadow.model_version, shadow.proba) == (1, pytest.approx(expected))


def test_a_shadow_that_crashes_says_so_and_the_caller_has_its_answer(world: World):
    try_version_2(world, crashing(world), weight=0, shadow_share=100)
    told = ask(world, QUESTION, OTHER)
    assert [reply.status for reply in told] == [200, 200]
    wait_for(lambda: len(shadows(world)) == 2)
    # User 7 has two orders, which it can answer; that of user 4 fails alone.
    by_prediction = {shadow.prediction_id: (shadow.proba, shadow.error) for shadow in shadows(world)}
    assert {r.entity_key: by_prediction[r.prediction_id] for r in world.logged()} == {
        "4": (None, "failed"),
        "7": (pytest.approx(0.3), None),
    }


def test_shadows_that_are_too_many_are_skipped_and_counted(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boucle_serving.trial.MOST_SHADOWS_WAITING", 1)
    try_version_2(world, good(world), weight=0, shadow_share=100)
    assert [reply.status for reply in ask(world, QUESTION, OTHER)] == [200, 200]
    assert world.metric('boucle_shadow_skipped_total{model="repurchase"}') == 2


def test_no_share_no_shadow(world: World):
    try_version_2(world, good(world), weight=0, shadow_share=0)
    ask(world, QUESTION)
    world.http.get("/metrics")
    assert shadows(world) == []


def test_the_end_of_a_trial_writes_down_what_it_was_given(world: World):
    try_version_2(world, good(world), weight=0, shadow_share=100)
    ask(world, QUESTION)
    world.promote(2, weights=WEIGHTS_2)
    world.poll()
    wait_for(lambda: len(shadows(world)) == 1)


def pinned(world: World, arm: str, *, role: Role = Role.TESTER, token: str = "") -> httpx.Response:
    token = token or world.tokens.add("user:ada", [role])
    headers = {"x-boucle-arm": arm, "authorization": f"Bearer {token}"}
    return world.http.post("/predict", json=QUESTION, headers=headers)


@pytest.mark.parametrize(("arm", "version"), [("challenger", 2), ("production", 1)])
@pytest.mark.parametrize("weight", [0, 100])
def test_a_tester_chooses_who_answers_and_is_not_counted_as_drawn(world: World, arm: str, version: int, weight: float):
    try_version_2(world, good(world), weight=weight, shadow_share=100)
    answer = pinned(world, arm)
    assert (answer.status_code, answer.json()["model_version"]) == (200, version)
    record = only(world)
    assert (record.pinned, record.assigned_role, record.answering_role) == (True, arm, arm)
    world.http.get("/metrics")
    assert shadows(world) == []


def test_a_tester_of_a_version_that_crashes_is_answered_by_production(world: World):
    try_version_2(world, crashing(world), weight=0)
    assert pinned(world, "challenger").json()["model_version"] == 1
    assert (only(world).fallback, only(world).pinned) == ("failed", True)


def test_nobody_else_chooses_an_arm(world: World):
    try_version_2(world, good(world), weight=0)
    assert pinned(world, "challenger", token="boucle_nobody").status_code == 401
    assert pinned(world, "challenger", role=Role.CALLER).status_code == 403
    assert pinned(world, "standby").status_code == 422
    assert world.logged() == []


def test_an_arm_that_is_not_there_is_named(world: World):
    answer = pinned(world, "challenger")
    assert (answer.status_code, answer.json()["errors"]) == (
        422,
        [{"field": "x-boucle-arm", "message": "no version is challenger of this model now"}],
    )


def wider(world: World) -> Digest:
    """A version that needs a feature which no row has."""
    directory = world.root / "scratch" / "wider"
    return world.bundles.put(write_bundle(directory, weights=(0.3, -0.1, 0.2), features=(*FEATURES, "clicks")), MODEL)


@pytest.mark.parametrize("weight", [0, 100])
def test_a_version_that_needs_what_no_row_has_fails_alone(world: World, weight: float):
    try_version_2(world, wider(world), weight=weight, shadow_share=100)
    told = ask(world, QUESTION, OTHER)
    assert [reply.status for reply in told] == [200, 200]
    assert [json.loads(reply.body)["model_version"] for reply in told] == [1, 1]
    assert len(world.logged()) == 2
    if weight == 0:
        wait_for(lambda: len(shadows(world)) == 2)
        assert {shadow.error for shadow in shadows(world)} == {"failed"}


def test_what_goes_wrong_with_shadows_after_an_answer_is_logged_is_not_the_callers(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> None:
        raise RuntimeError("the shadow's own")

    try_version_2(world, good(world), weight=0, shadow_share=100)
    monkeypatch.setattr("boucle_serving.service.PredictionService._shadow", broken)
    assert ask(world, QUESTION)[0].status == 200
    assert len(world.logged()) == 1


def test_shadows_that_are_scored_together_have_the_time_of_each(world: World):
    # About 60 ms a customer, where a caller would wait 200: sixteen at once take longer than that.
    digest = put_stalling_bundle(world.bundles, world.root / "scratch", turns=30_000)
    try_version_2(world, digest, weight=0, shadow_share=100)
    ask(world, *[QUESTION] * 16)
    wait_for(lambda: len(shadows(world)) == 16, seconds=20)
    assert {shadow.error for shadow in shadows(world)} == {None}


def test_a_version_that_wants_newer_features_than_production_loses_no_caller(world: World):
    directory = write_bundle(world.root / "scratch" / "young", weights=WEIGHTS_2)
    replace_in_json(directory / CONTRACT_FILE, max_feature_age_days=5)
    try_version_2(world, world.bundles.put(directory, MODEL), weight=100)
    ten_days_old = {"user_id": "4", "as_of": "1997-10-11"}
    (reply,) = ask(world, ten_days_old)
    assert (reply.status, json.loads(reply.body)["model_version"]) == (200, 1)
    assert only(world).fallback == "failed"


def test_a_version_whose_features_never_grow_too_old_answers(world: World):
    directory = write_bundle(world.root / "scratch" / "ageless", weights=WEIGHTS_2)
    replace_in_json(directory / CONTRACT_FILE, max_feature_age_days=10**12)
    try_version_2(world, world.bundles.put(directory, MODEL), weight=100)
    (reply,) = ask(world, QUESTION)
    assert (reply.status, json.loads(reply.body)["model_version"]) == (200, 2)


def test_a_large_batch_makes_no_quick_version_slow(world: World):
    bundle = load_bundle(world.bundles.read(good(world)), good(world))
    trial = Trial(bundle, replica="one", budget_seconds=5, write=lambda _: None, skipped=lambda _: None)
    try:
        trial._judge(1.0, 1_000)
        assert trial.is_quick
        for _ in range(3):
            assert trial.is_quick
            trial._judge(0.05, 1)
        assert not trial.is_quick
    finally:
        trial.close(seconds=5)


def test_what_a_trial_is_doing_when_it_is_closed_is_ended_too(world: World):
    digest = put_stalling_bundle(world.bundles, world.root / "scratch", turns=100_000_000)
    bundle = load_bundle(world.bundles.read(digest), digest)
    trial = Trial(bundle, replica="one", budget_seconds=0.2, write=lambda _: None, skipped=lambda _: None)
    trial.is_quick = False
    answer = trial.ask([[3.0, 5.0]])
    trial.close()
    assert answer.result(timeout=90) is None


def test_a_plan_is_applied_once_whoever_looks_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch):
    opened, may_open = [], threading.Event()
    open_trial = Trial.__init__

    def slowly(trial: Trial, bundle: LoadedBundle, **arguments: Any) -> None:
        opened.append(bundle.digest)
        may_open.wait(10)
        open_trial(trial, bundle, **arguments)

    monkeypatch.setattr(Trial, "__init__", slowly)
    lookers = [threading.Thread(target=world.poll) for _ in range(2)]
    with monkeypatch.context() as unseen:
        unseen.setattr(world, "poll", lambda: None)
        try_version_2(world, good(world), weight=100)
    for looker in lookers:
        looker.start()
    wait_for(lambda: opened)
    lookers[1].join(0.2)  # long enough to open one too, if nothing held it
    may_open.set()
    for looker in lookers:
        looker.join(10)
    assert len(opened) == 1
