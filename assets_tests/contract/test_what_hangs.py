"""What hangs in one kind of request stops no other: predictions, looks, decisions, probes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import anyio.to_thread
import httpx
import pytest

from assets_tests.bundles import MODEL
from assets_tests.contract.test_every_route import OPEN, made
from assets_tests.contract.test_http import QUESTION, World
from boucle.contracts.decision import Decision
from boucle.contracts.ids import ModelName
from boucle_adapters.tokens import Role
from boucle_serving.admission import PLACES, Kind
from boucle_serving.feedback import FeedbackService
from boucle_serving.service import PredictionService
from boucle_serving.threads import PREDICTING_THREADS

HANGS = "/models/hangs/decisions"
PIN = f"/models/{MODEL}/pin"
BATCH = f"/models/{MODEL}/predict/batch"
ALERTS = f"/models/{MODEL}/alerts"
REASON = {"reason": "r"}
BESIDE_THE_LOOP: dict[str, tuple[Any, type, str]] = {
    "/feedback": (
        {"prediction_id": "x", "outcome": 1, "at": "1997-11-02T12:00:00Z"},
        FeedbackService,
        "keep_one",
    ),
    BATCH: ({"rows": [QUESTION]}, PredictionService, "predict"),
    f"/models/{MODEL}/rank": ({"items": [QUESTION]}, PredictionService, "predict"),
}
"""What takes a thread, with its body and where it hangs."""


def told(world: World, story: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run a story against the app, all of it in one event loop; what is not over within a minute hangs."""

    async def run() -> None:
        transport = httpx.ASGITransport(app=world.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://one") as http, asyncio.timeout(60):
            await story(http)

    asyncio.run(run())


async def never() -> AsyncIterator[bytes]:
    """A body of which no byte comes."""
    await asyncio.Event().wait()
    yield b""


async def begun(http: httpx.AsyncClient, path: str, count: int, **said: Any) -> list["asyncio.Task[httpx.Response]"]:
    """Requests whose bodies never come, each as far as it gets without one."""
    tasks = [asyncio.create_task(http.request("POST", path, content=never(), **said)) for _ in range(count)]
    await until_all_wait()
    return tasks


async def until_all_wait() -> None:
    """Let every task go on until none can: nothing here waits for the clock."""
    for _ in range(100):
        await asyncio.sleep(0)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@dataclass
class Hanging:
    """Who asked a state store that does not answer, until it is over."""

    asked: list[str] = field(default_factory=list)
    over: Event = field(default_factory=Event)


@contextmanager
def hanging(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """From here on the state store does not answer about the model `hangs`, until the block ends."""
    store, hang = world.open_state(), Hanging()
    decisions = store.decisions

    def hangs(model: ModelName) -> Sequence[Decision]:
        if model == "hangs":
            hang.asked.append(model)
            hang.over.wait(60)
        return decisions(model)

    monkeypatch.setattr(store, "decisions", hangs)
    try:
        yield hang
    finally:
        hang.over.set()


def test_looks_that_hang_stop_no_prediction_no_decision_and_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world, places = made(tmp_path), PLACES[Kind.LOOKS]
    operator = world.tokens.add("user:ada", [Role.OPERATOR])

    async def story(http: httpx.AsyncClient) -> None:
        looks = [asyncio.create_task(http.get(HANGS)) for _ in range(60)]
        while len(hang.asked) < places:
            await asyncio.sleep(0)
        assert (await http.get(HANGS)).status_code == 503
        assert (await http.post("/predict", json=QUESTION)).status_code == 200
        assert (await http.post(BATCH, json={"rows": [QUESTION]})).status_code == 200
        assert (await http.post(PIN, json=REASON, headers=bearer(operator))).status_code == 200
        assert [(await http.get(path)).status_code for path in ("/readyz", "/livez")] == [200, 200]
        hang.over.set()
        statuses = [(await look).status_code for look in looks]
        assert (statuses.count(404), statuses.count(503)) == (places, 60 - places)
        assert (await http.get("/models")).status_code == 200

    with hanging(world, monkeypatch) as hang:
        told(world, story)


@pytest.mark.parametrize("path", BESIDE_THE_LOOP)
def test_batches_lists_and_feedback_that_hang_leave_threads_to_decide_and_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
):
    world, hang = made(tmp_path), Hanging()
    operator = bearer(world.tokens.add("user:ada", [Role.OPERATOR]))
    body, service, name = BESIDE_THE_LOOP[path]
    work = getattr(service, name)

    def hangs(*said: Any) -> Any:
        hang.asked.append(path)
        hang.over.wait(60)
        return work(*said)

    async def story(http: httpx.AsyncClient) -> None:
        hanging = [asyncio.create_task(http.post(path, json=body)) for _ in range(60)]
        while len(hang.asked) < PREDICTING_THREADS:
            await asyncio.sleep(0)
        await until_all_wait()
        try:
            assert (await http.get(f"/models/{MODEL}/decisions")).status_code == 200
            assert (await http.post(PIN, json=REASON, headers=operator)).status_code == 200
        finally:
            hang.over.set()
        assert {(await one).status_code for one in hanging} <= {200, 202}

    monkeypatch.setattr(service, name, hangs)
    told(world, story)


def test_predictions_that_take_every_place_leave_room_to_decide_and_to_look(tmp_path: Path):
    world = made(tmp_path, concurrent_requests=2)
    operator = world.tokens.add("user:ada", [Role.OPERATOR])

    async def story(http: httpx.AsyncClient) -> None:
        await begun(http, "/predict", 2)
        assert (await http.post("/predict", json=QUESTION)).status_code == 503
        assert (await http.get("/models")).status_code == 200
        assert (await http.post(PIN, json=REASON, headers=bearer(operator))).status_code == 200

    told(world, story)


def test_decisions_that_do_not_end_stop_no_look_and_no_prediction(tmp_path: Path):
    world = made(tmp_path)
    operator = bearer(world.tokens.add("user:ada", [Role.OPERATOR]))

    async def story(http: httpx.AsyncClient) -> None:
        await begun(http, PIN, PLACES[Kind.DECISIONS], headers=operator)
        assert (await http.post(PIN, json=REASON, headers=operator)).status_code == 503
        assert (await http.get(f"/models/{MODEL}/decisions")).status_code == 200
        assert (await http.post("/predict", json=QUESTION)).status_code == 200

    told(world, story)


def test_alerts_whose_bodies_do_not_come_lock_no_operator_out(tmp_path: Path):
    world = made(tmp_path)
    operator, alerter = (bearer(world.tokens.add(f"user:{role}", [role])) for role in (Role.OPERATOR, Role.ALERTER))

    async def story(http: httpx.AsyncClient) -> None:
        await begun(http, ALERTS, 60, headers=alerter)
        assert (await http.post(ALERTS, json={"alerts": []}, headers=alerter)).status_code == 503
        assert (await http.post(PIN, json=REASON, headers=operator)).status_code == 200

    told(world, story)


def test_there_are_threads_for_all_places_that_looks_decisions_and_alerts_have():
    async def threads() -> float:
        return anyio.to_thread.current_default_thread_limiter().total_tokens

    assert set(PLACES) == set(Kind)
    assert sum(PLACES.values()) < asyncio.run(threads())


def test_who_may_not_decide_takes_no_place_of_those_who_may(tmp_path: Path):
    world = made(tmp_path, require_key=True)
    caller, operator = (world.tokens.add(f"user:{role}", [role]) for role in (Role.CALLER, Role.OPERATOR))

    async def story(http: httpx.AsyncClient) -> None:
        callers = await begun(http, PIN, PLACES[Kind.DECISIONS], headers=bearer(caller))
        assert (await http.post(PIN, json=REASON, headers=bearer(operator))).status_code == 200
        assert {(await one).status_code for one in callers} == {403}

    told(world, story)


def test_strangers_whose_bodies_do_not_come_take_no_place(tmp_path: Path):
    world = made(tmp_path, require_key=True, concurrent_requests=2)
    caller = world.tokens.add("service:shop", [Role.CALLER])

    async def story(http: httpx.AsyncClient) -> None:
        looks = [asyncio.create_task(http.request("GET", "/models", content=never())) for _ in range(2)]
        await until_all_wait()
        assert (await http.post("/predict", json=QUESTION, headers=bearer(caller))).status_code == 200
        assert {(await one).status_code for one in looks} == {401}

    told(world, story)


@pytest.mark.parametrize("keys", [True, False])
def test_a_probe_needs_no_thread(tmp_path: Path, keys: bool):
    world = made(tmp_path, require_key=keys)
    viewer = world.tokens.add("service:wallboard", [Role.VIEWER])

    async def story(http: httpx.AsyncClient) -> None:
        threads = anyio.to_thread.current_default_thread_limiter()
        for _ in range(int(threads.total_tokens)):
            threads.acquire_on_behalf_of_nowait(object())
        for path in sorted(OPEN):
            answer = await http.get(path.format(model=MODEL, number="1"), headers=bearer(viewer))
            assert answer.status_code == 200, path

    told(world, story)
