"""The guard inside a replica: it undoes a promotion that surely broke what callers get, and nothing else."""

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from assets_tests.bundles import FEATURES, MODEL, NOVEMBER, promote, put_bundle
from assets_tests.contract.test_http import NOON, NoonClock, World
from boucle.contracts.decision import DecisionKind
from boucle.contracts.facts import ServiceFacts
from boucle.contracts.ids import ModelName, ModelVersion
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.traffic_plan import NewPlan, Role, Strategy
from boucle.errors import StateStoreError
from boucle.operations import pins, promotion, traffic
from boucle.operations.actor import Actor
from boucle.operations.production import last_move
from boucle.ports import StateStore
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.memory import MemoryStateStore
from boucle_serving.guard import LOOK_SECONDS, ReplicaGuard
from boucle_serving.metrics import ServingMetrics
from boucle_serving.predictor import Predictor
from boucle_serving.trial import Trial

ADA = Actor(name="user:ada", at=NOON)
GUARD = "guard:one"


def no_trial(_bundle: object) -> Trial:
    raise AssertionError("nothing is on trial here")


class Scene:
    """A replica that serves version 2, promoted after 1; its requests are counted by hand, its time passes by hand."""

    def __init__(
        self, path: Path, *, weights: Sequence[float] = (0.3, -0.1), service: ServiceObjectives | None
    ) -> None:
        self.bundles = DirectoryBundleStore(path / "bundles")
        self.path, self.service = path, service
        self.state: StateStore | None = MemoryStateStore()
        self.metrics = ServingMetrics()
        self.newest: deque = deque(maxlen=256)
        self.predictor = Predictor(self.bundles, no_trial)
        self.now = 100.0
        self.guard = ReplicaGuard(
            predictor=self.predictor,
            metrics=self.metrics,
            newest=self.newest,
            open_state=self.open_state,
            open_clock=lambda _: NoonClock(),
            replica="one",
            replica_timeout_seconds=3,
            timer=lambda: self.now,
        )
        self.promote(1, (0.2, -0.1))
        self.promote(2, weights)

    def open_state(self) -> StateStore:
        if self.state is None:
            raise StateStoreError("The state store cannot be used: it is away.")
        return self.state

    def promote(self, version: int, weights: Sequence[float]) -> None:
        digest = put_bundle(self.bundles, self.path / "scratch", weights=weights)
        self.predictor.apply(promote(self.open_state(), version=version, digest=digest, service=self.service))
        self.look(0.1)

    def look(self, seconds: float) -> None:
        """Let so much time pass, with a look every tenth of a second."""
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.now += LOOK_SECONDS
            self.guard.look()
            self.guard.wait()

    def ask(self, requests: int, *, failed: int = 0, slow: int = 0, version: int = 2) -> None:
        for number in range(requests):
            code, seconds = 500 if number < failed else 200, 2.0 if number < slow else 0.001
            self.metrics.observe(MODEL, str(version), "production", code, seconds)

    def answer(self, rows: Sequence[Sequence[float]], *, version: int = 2) -> None:
        """Answer rows by the production bundle, and log them, a few between two looks."""
        scores = self.predictor.served[MODEL].production.scores(rows)
        for row, score in zip(rows, scores, strict=True):
            self.newest.append({"model": MODEL, "model_version": version, "features": tuple(row), "proba": score})
            if len(self.newest) == 64:
                self.look(0.1)

    def rollbacks(self) -> list[tuple[str, int | None]]:
        rows = [row.decision for row in self.open_state().decisions(MODEL)]
        return [(row.actor, row.to_version) for row in rows if row.kind is DecisionKind.ROLLBACK]

    def metric(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name, {"model": MODEL}) or 0.0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, service=ServiceObjectives())


def rows(number: int, *, seed: int = 7) -> list[list[float]]:
    return np.random.default_rng(seed).normal(0, 3, (number, 2)).round(3).tolist()


def test_a_version_that_fails_is_rolled_back_through_the_ledger_within_a_few_looks(scene: Scene):
    scene.ask(60, failed=60)
    scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]
    row = scene.open_state().decisions(MODEL)[-1].decision
    assert (row.from_version, row.reason.partition(" (")[0]) == (2, "failed_requests: failed")
    assert scene.open_state().plan(MODEL).production.version == 1
    assert scene.open_state().plan(MODEL).service == scene.service  # a rollback leaves the objectives as they were
    assert (scene.metric("boucle_guard_rollbacks_total"), scene.guard.problems()) == (1, ())


def test_one_that_is_slow_as_well(scene: Scene):
    scene.ask(60, slow=60)
    scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]


def test_one_that_turns_bad_later_is_judged_by_what_it_does_now(scene: Scene):
    for _ in range(20):
        scene.ask(100)
        scene.look(0.1)
    looks = 0
    while not scene.rollbacks():
        scene.ask(100, failed=100)
        scene.look(0.1)
        looks += 1
    assert looks <= 3


def test_a_budget_that_burns_slowly_is_left_to_the_sensor(scene: Scene):
    scene.ask(1_000, failed=50)
    scene.look(0.5)
    assert scene.rollbacks() == []


@pytest.mark.parametrize("requests", [0, 49])
def test_too_few_requests_say_nothing(scene: Scene, requests: int):
    scene.ask(requests, failed=requests)
    scene.look(0.5)
    assert (scene.rollbacks(), scene.metric("boucle_guard_breached")) == ([], 0)


def test_the_requests_of_another_version_are_not_its_own(scene: Scene):
    scene.ask(500, failed=500, version=1)
    scene.look(0.2)
    assert scene.rollbacks() == []


def test_a_plan_without_objectives_is_not_judged(tmp_path: Path):
    scene = Scene(tmp_path, service=None)
    scene.ask(500, failed=500)
    scene.look(0.2)
    assert scene.rollbacks() == []


def test_what_a_rollback_put_there_stays(scene: Scene):
    _, plan = promotion.roll_back(scene.open_state(), MODEL, reason="to see", actor=ADA)
    scene.predictor.apply(plan)
    scene.look(0.1)
    scene.ask(500, failed=500, version=1)
    scene.look(0.2)
    assert scene.rollbacks() == [("user:ada", 1)]
    assert "it was put back by user:ada, and the guard goes no further" in scene.guard.problems()[0]
    assert (scene.metric("boucle_guard_breached"), scene.metric("boucle_guard_held")) == (1, 1)


def test_a_pinned_version_stays_until_it_is_unpinned(scene: Scene):
    pins.pin(scene.open_state(), MODEL, reason="the sale is on", actor=ADA)
    scene.ask(500, failed=500)
    scene.look(0.1)
    assert (scene.rollbacks(), "is pinned by user:ada" in scene.guard.problems()[0]) == ([], True)
    pins.unpin(scene.open_state(), MODEL, reason="over", actor=ADA)
    for _ in range(8):
        scene.ask(50, failed=50)
        scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]


def test_without_a_version_to_go_back_to_it_says_so(tmp_path: Path):
    scene = Scene(tmp_path, service=ServiceObjectives())
    scene.state = MemoryStateStore()
    scene.promote(2, (0.3, -0.1))
    scene.ask(500, failed=500)
    scene.look(0.1)
    assert (scene.rollbacks(), "no earlier version to go back to" in scene.guard.problems()[0]) == ([], True)


def test_while_the_state_store_is_away_nothing_moves_it_is_said_and_tried_again(scene: Scene):
    state, scene.state = scene.state, None
    scene.ask(500, failed=500)
    scene.look(0.1)
    assert "should be rolled back (failed_requests: failed" in scene.guard.problems()[0]
    assert scene.guard.problems()[0].endswith(
        "and cannot be yet: The state store cannot be used now. The log of this replica says why."
    )
    assert (scene.metric("boucle_guard_held"), scene.predictor.served[MODEL].plan.production.version) == (1, 2)
    scene.state = state
    for _ in range(8):
        scene.ask(50, failed=50)
        scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]


def test_two_replicas_that_see_one_incident_undo_it_once(tmp_path: Path):
    one = Scene(tmp_path / "one", service=ServiceObjectives())
    two = Scene(tmp_path / "two", service=ServiceObjectives())
    two.state = one.state
    for scene in (one, two):
        scene.ask(500, failed=500)
        scene.look(0.1)
    assert one.rollbacks() == [(GUARD, 1)]
    assert two.metric("boucle_guard_rollbacks_total") == 0


def test_a_replica_that_stood_still_holds_it_against_no_version(scene: Scene):
    scene.now += 5  # stopped, or starved; whoever was waiting was answered late
    scene.look(0.1)
    scene.ask(100, slow=100)
    scene.look(0.3)
    assert scene.rollbacks() == []
    scene.look(1.0)
    scene.ask(100, slow=100)
    scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]


def test_one_answer_for_everybody_is_no_answer(tmp_path: Path):
    scene = Scene(tmp_path, weights=(0.0, 0.0), service=ServiceObjectives())
    scene.answer(rows(99))
    scene.look(0.1)
    assert scene.rollbacks() == []  # too few rows
    scene.answer(rows(10, seed=8))
    scene.look(0.1)
    assert scene.open_state().decisions(MODEL)[-1].decision.reason.startswith("same_answer: failed (measured 1 ratio")
    assert scene.rollbacks() == [(GUARD, 1)]


def test_a_caller_who_asks_the_same_again_and_again_is_one_row(tmp_path: Path):
    scene = Scene(tmp_path, weights=(0.0, 0.0), service=ServiceObjectives())
    scene.answer(rows(1) * 250)
    scene.look(0.2)
    assert scene.rollbacks() == []


def test_answers_far_from_those_of_the_version_before_are_odd(tmp_path: Path):
    scene = Scene(tmp_path, weights=(0.01, -0.01), service=ServiceObjectives(max_score_shift=0.2))
    some = [[abs(first) + 3.0, second] for first, second in rows(200)]
    scene.answer(some)  # the version before is far above one half on these
    scene.look(0.1)
    assert scene.open_state().decisions(MODEL)[-1].decision.reason.startswith("score_shift: failed")


def test_a_version_before_that_needs_other_features_is_nothing_to_compare_with(tmp_path: Path):
    scene = Scene(tmp_path, weights=(0.0, 0.0), service=ServiceObjectives())
    served = scene.predictor.served[MODEL]
    other = next(arm.bundle_digest for arm in served.plan.arms if arm.role is Role.STANDBY)
    served.bundles[other]._columns[FEATURES] = None
    contract = served.bundles[other].contract
    object.__setattr__(
        served.bundles[other],
        "contract",
        contract.model_copy(update={"features": (contract.features[0].model_copy(update={"name": "visits"}),)}),
    )
    served.bundles[other]._columns.clear()
    scene.answer(rows(200))
    scene.look(0.2)
    assert scene.rollbacks() == []


def test_the_objectives_reach_replicas_by_the_plan_and_change_with_defs_yaml(scene: Scene):
    strict = ServiceObjectives(max_failed=0.001)
    state = scene.open_state()
    plan = traffic.renew_objectives(state, MODEL, strict, actor=ADA)
    assert (plan.service, plan.arms, plan.revision) == (strict, scene.predictor.served[MODEL].plan.arms, 3)
    assert traffic.renew_objectives(state, MODEL, strict, actor=ADA) is None
    move = last_move(state, MODEL)
    same = NewPlan(strategy=Strategy.DIRECT, arms=plan.arms)  # says nothing of them: they stay
    assert state.publish_plan(move, plan=same, actor="test", at=NOVEMBER) == plan


def test_another_bound_of_slow_begins_to_count_anew_and_holds_no_earlier_answer_against_the_version(scene: Scene):
    for _ in range(500):
        scene.metrics.observe(MODEL, "2", "production", 200, 0.3)
    scene.look(0.3)
    plan = traffic.renew_objectives(scene.open_state(), MODEL, ServiceObjectives(slow_seconds=0.25), actor=ADA)
    assert plan is not None
    scene.predictor.apply(plan)
    scene.ask(60)
    scene.look(0.3)
    assert (scene.rollbacks(), scene.metric("boucle_guard_breached")) == ([], 0)
    for _ in range(60):
        scene.metrics.observe(MODEL, "2", "production", 200, 0.3)
    scene.look(0.1)
    assert scene.rollbacks() == [(GUARD, 1)]


def test_a_model_that_cannot_be_judged_keeps_the_guard_from_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    counted, served = scene.metrics.counted, scene.predictor.served

    def counted_but_one(model: ModelName, version: ModelVersion, *, slow_seconds: float) -> ServiceFacts:
        if model != MODEL:
            raise ValueError("math domain error")
        return counted(model, version, slow_seconds=slow_seconds)

    monkeypatch.setattr(scene.metrics, "counted", counted_but_one)
    monkeypatch.setattr(Predictor, "served", {ModelName("broken"): served[MODEL], **served})
    scene.ask(60, failed=60)
    scene.look(0.1)
    assert (scene.rollbacks(), "look at broken failed" in caplog.text) == ([(GUARD, 1)], True)


def test_readyz_says_what_the_guard_cannot_undo(tmp_path: Path):
    world = World(tmp_path)
    digest = put_bundle(world.bundles, tmp_path / "scratch", weights=(0.1, 0.1))
    promote(world.open_state(), version=1, digest=digest, service=ServiceObjectives())
    world.poll()
    guard = world.app.state.guard
    guard.look()
    for _ in range(100):
        guard._metrics.observe(MODEL, "1", "production", 500, 0.001)
    guard.look()
    guard.wait()
    assert any("no earlier version to go back to" in said for said in world.http.get("/readyz").json()["problems"])
