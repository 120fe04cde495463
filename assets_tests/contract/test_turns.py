"""What comes in one turn of the event loop is answered together, and nobody pays for another's request."""

import asyncio
import json
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_http import QUESTION, WEIGHTS_1, World, no_space
from boucle_serving.admission import Limits
from boucle_serving.predict_endpoint import Reply

OTHER = {"user_id": "7", "as_of": "1997-11-01"}
STRANGER = {"user_id": "99", "as_of": "1997-11-01"}
MALFORMED = {"user_id": "4", "as_of": "soon"}
SCOPE: dict[str, Any] = {"type": "http", "headers": [], "client": ("127.0.0.1", 1)}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """At most four requests at a time."""
    made = World(tmp_path, limits=Limits(concurrent_requests=4))
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def replies(world: World, *bodies: object) -> list[Reply]:
    """What requests that come in one turn are told, in their order."""
    told: dict[int, Reply] = {}

    async def turn() -> None:
        for number, body in enumerate(bodies):
            world.app.state.predict_endpoint.submit(
                MODEL, SCOPE, json.dumps(body).encode(), str(number), lambda reply, n=number: told.update({n: reply})
            )
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(turn())
    return [told[number] for number in range(len(bodies))]


def statuses(world: World, *bodies: object) -> list[int]:
    return [reply.status for reply in replies(world, *bodies)]


class Calls:
    """How often a method was called, and with how many rows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
        self.rows: list[int] = []
        method = getattr(owner, name)

        def counted(*args: Any) -> Any:
            self.rows.append(len(args))
            return method(*args)

        monkeypatch.setattr(owner, name, counted)


def test_one_turn_is_one_call_of_the_model_and_one_write(world: World, monkeypatch: pytest.MonkeyPatch):
    written = Calls(monkeypatch, world.log, "append")
    scored = Calls(monkeypatch, ort.InferenceSession, "run")
    told = replies(world, QUESTION, OTHER, STRANGER, MALFORMED)
    assert [reply.status for reply in told] == [200, 200, 404, 422]
    assert (written.rows, len(scored.rows)) == ([2], 1)
    answers = [json.loads(reply.body) for reply in told[:2]]
    assert [answer["user_id"] for answer in answers] == ["4", "7"]
    logged = {record.prediction_id: (record.entity_key, record.proba) for record in world.logged()}
    assert logged == {answer["prediction_id"]: (answer["user_id"], answer["proba"]) for answer in answers}


def test_an_answer_does_not_depend_on_who_asks_beside(world: World):
    together = [json.loads(reply.body)["proba"] for reply in replies(world, QUESTION, OTHER, QUESTION)]
    alone = [json.loads(reply.body)["proba"] for body in (QUESTION, OTHER, QUESTION) for reply in replies(world, body)]
    assert together == pytest.approx(alone, abs=1e-12)


def test_a_request_that_breaks_something_breaks_only_its_own_answer(world: World, monkeypatch: pytest.MonkeyPatch):
    append = world.log.append

    def breaks_on_seven(*records: Any) -> None:
        if any(record["entity_key"] == "7" for record in records):
            raise ZeroDivisionError
        append(*records)

    monkeypatch.setattr(world.log, "append", breaks_on_seven)
    assert statuses(world, QUESTION, OTHER, QUESTION) == [200, 500, 200]
    assert [record.entity_key for record in world.logged()] == ["4", "4"]


def test_when_the_log_fails_those_who_would_have_had_an_answer_are_told(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(world.log, "append", no_space)
    assert statuses(world, QUESTION, STRANGER, MALFORMED, OTHER) == [503, 404, 422, 503]
    assert world.metric(f'boucle_prediction_log_dropped_total{{model="{MODEL}"}}') == 2


def test_one_who_cannot_be_told_keeps_nobody_from_being_told(world: World):
    told = []

    def gone(_reply: Reply) -> None:
        raise ConnectionError

    async def turn() -> None:
        for tell in (gone, told.append):
            world.app.state.predict_endpoint.submit(MODEL, SCOPE, json.dumps(QUESTION).encode(), "r", tell)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert [reply.status for reply in told] == [200]


def test_places_are_given_back_after_each_turn(world: World):
    assert statuses(world, *[QUESTION] * 5) == [200, 200, 200, 200, 503]
    assert statuses(world, *[MALFORMED] * 5) == [422, 422, 422, 422, 503]
    assert statuses(world, *[QUESTION] * 4) == [200, 200, 200, 200]
