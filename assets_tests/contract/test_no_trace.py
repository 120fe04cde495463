"""A fault that nobody foresaw, in any route: the caller gets a problem document and an id, the log gets the cause."""

import json
import logging
import re
from pathlib import Path

import fastapi.routing
import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.testclient import TestClient

from assets_tests.bundles import MODEL, promote, publish_users, write_bundle
from assets_tests.contract.test_http import QUESTION, WEIGHTS_1, WEIGHTS_2, World
from assets_tests.contract.test_short_way import Server
from boucle.contracts.bundle import WARMUP_FILE, WarmUp
from boucle.ports import StateStore
from boucle_adapters.sql_state import SqlStateStore
from boucle_adapters.tokens import Role
from boucle_serving.bundles import LoadedBundle

SECRET = "postgresql://boucle:hunter2@db/boucle in /srv/boucle/secret.py"
TELLS = ("hunter2", "Traceback", "RuntimeError", ".py", "File ")
# Each takes a body of its own kind; what is wrong with it must not come before the fault.
BODIES: dict[str, object] = {
    "alerts": {"alerts": []},
    "batch": {"rows": [QUESTION]},
    "promote": {"version": 1, "evidence_digest": "a" * 64, "reason": "r"},
    "approve": {"version": 1, "reason": "r"},
    "reject": {"version": 1, "reason": "r"},
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def routes(world: World) -> list[APIRoute]:
    """Every route of ours; FastAPI keeps those of an included router in it."""
    routers = [route.original_router for route in world.app.routes if hasattr(route, "original_router")]
    return [route for router in routers for route in router.routes if isinstance(route, APIRoute)]


def fails(*_args: object, **_named: object) -> None:
    raise RuntimeError(SECRET)


def test_no_route_tells_what_broke(world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    # What FastAPI calls for the function of any route.
    monkeypatch.setattr(fastapi.routing, "run_endpoint_function", fails)
    headers = {"authorization": f"Bearer {world.tokens.add('user:ada', list(Role))}"}
    with TestClient(world.app, raise_server_exceptions=False) as http:
        found = {}
        for route in routes(world):
            path = route.path.format(model=MODEL, number="1")
            body = BODIES.get(path.rsplit("/", 1)[-1], {"reason": "r"})
            for method in route.methods:
                answer = http.request(method, path, json=body if method == "POST" else None, headers=headers)
                found[f"{method} {route.path}"] = answer
    assert len(found) >= 30
    for asked, answer in found.items():
        assert answer.status_code == 500, (asked, answer.status_code, answer.text)
        assert [word for word in TELLS if word in answer.text + json.dumps(dict(answer.headers))] == [], asked
        assert answer.json()["type"] == "urn:boucle:problem:internal-error", asked
        assert answer.headers["x-request-id"]
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == len(found)
    assert all(SECRET in str(record.exc_info[1]) for record in logged if record.exc_info)


@pytest.mark.parametrize("path", ["/predict", "/models/{model}/predict"])
def test_a_model_that_breaks_tells_its_callers_nothing(world: World, path: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LoadedBundle, "scores", fails)
    with TestClient(world.app, raise_server_exceptions=False) as http:
        answer = http.post(path.format(model=MODEL), json=QUESTION)
    assert answer.status_code == 500
    assert [word for word in TELLS if word in answer.text] == []


def test_nor_does_the_short_way_past_the_app(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(LoadedBundle, "scores", fails)
    server = Server(world, monkeypatch)
    with server.running():
        answer = httpx.post("http://{}:{}/predict".format(*server.socket.getsockname()), json=QUESTION, timeout=10)
    assert server.short == 1
    assert answer.status_code == 500
    assert [word for word in TELLS if word in answer.text] == []


def test_a_state_store_that_is_away_is_named_without_its_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    def away(_: World) -> StateStore:
        return SqlStateStore.open("postgresql://teller:hunter2@127.0.0.1:1/vault")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(World, "open_state", away)
    world = World(tmp_path)
    world.poll()
    headers = {"authorization": f"Bearer {world.tokens.add('user:ada', list(Role))}"}
    answers = [
        world.http.get("/readyz"),
        world.http.get(f"/models/{MODEL}/decisions", headers=headers),
        world.http.post(f"/models/{MODEL}/rollback", json={"reason": "r"}, headers=headers),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert "The state store cannot be used now" in answer.text
        assert [word for word in ("teller", "hunter2", "127.0.0.1", "vault", "psycopg") if word in answer.text] == []
    assert "127.0.0.1" in caplog.text


def test_a_bundle_that_answers_otherwise_is_named_without_of_whom_it_was_asked(world: World):
    assert world.state is not None
    source = write_bundle(world.root / "wrong", weights=WEIGHTS_2, expected_offset=1e-6)
    asked = {one.entity_key for one in WarmUp.model_validate_json((source / WARMUP_FILE).read_bytes()).requests}
    promote(world.state, version=2, digest=world.bundles.put(source, MODEL))
    world.poll()
    (problem,) = world.http.get("/readyz").json()["problems"]
    assert "answers its recorded request 0 with" in problem
    assert asked
    assert [key for key in asked if key in re.findall(r"\w+", problem.replace("request 0", ""))] == []
    assert str(world.root) not in problem
