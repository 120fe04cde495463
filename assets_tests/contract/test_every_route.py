"""Of every route of the app: what a caller without a token, of another role, with too much or too slow a body gets.

The routes are taken from the app, so that a new one is red here until it is in the tables.
"""

import asyncio
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.types import Message, Scope

from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_http import WEIGHTS_1, World
from boucle_adapters.tokens import Role, TokenStore
from boucle_serving.admission import Limits

DECIDES = {
    **dict.fromkeys(("promote", "approve", "reject"), Role.APPROVER),
    **dict.fromkeys(("rollback", "abort", "pin", "unpin"), Role.OPERATOR),
    "alerts": Role.ALERTER,
}
ASKS = {
    "/predict", "/models/{model}/predict", "/models/{model}/predict/batch", "/invocations", "/feedback",
    "/models/{model}/rank", "/v2/models/{model}/infer", "/v2/models/{model}/versions/{number}/infer",
}  # fmt: skip
LOOKS = {
    "/models", "/models/{model}/traffic", "/models/{model}/decisions", "/models/{model}/monitoring",
    "/models/{model}/monitoring.html", "/v2/models/{model}", "/v2/models/{model}/versions/{number}",
}  # fmt: skip
OPEN = {
    "/livez", "/readyz", "/health", "/ping", "/version", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready",
    "/v2/models/{model}/ready", "/v2/models/{model}/versions/{number}/ready",
}  # fmt: skip
"""What needs no token: it holds no row, no key and nothing of a caller."""
CHUNK = b"[" * 65_536
MOST_CHUNKS = 300


def paths(world: World, method: str) -> list[str]:
    """Paths of all routes with this method; FastAPI keeps those of an included router in it."""
    routers = [route.original_router for route in world.app.routes if hasattr(route, "original_router")]
    routes = [route for router in routers for route in router.routes]
    assert all(isinstance(route, APIRoute) for route in routes), "a router within a router: walk it here too"
    return [route.path for route in routes if isinstance(route, APIRoute) and method in route.methods]


def posts(world: World) -> list[str]:
    return paths(world, "POST")


def deciding(world: World) -> list[str]:
    return [path for path in posts(world) if path not in ASKS]


@dataclass
class Asked:
    """One request to the app itself, whose body comes in pieces, and stops coming after `pieces`."""

    world: World
    path: str
    token: str = ""
    pieces: int = MOST_CHUNKS
    read: int = 0
    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        if self.read >= self.pieces:
            await asyncio.Event().wait()
        self.read += 1
        return {"type": "http.request", "body": CHUNK, "more_body": True}

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def answer(self) -> int:
        """The status of what it is told."""
        headers = [(b"content-type", b"application/json")]
        if self.token:
            headers.append((b"authorization", f"Bearer {self.token}".encode()))
        method = "GET" if self.path in LOOKS | OPEN else "POST"
        path = self.path.format(model=MODEL, number="1")
        scope: Scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
            "query_string": b"", "headers": headers, "client": ("10.0.0.1", 1), "scheme": "http", "root_path": "",
            "server": ("one", 80),
        }  # fmt: skip
        asyncio.run(asyncio.wait_for(self.world.app(scope, self.receive, self.send), timeout=20))
        status: int = self.sent[0]["status"]
        return status


def made(folder: Path, **limits: Any) -> World:
    world = World(folder, limits=Limits(**limits))
    publish_users(world.root / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    return world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Where strangers call: keys are required."""
    return made(tmp_path, require_key=True)


def test_every_route_that_takes_a_body_asks_or_decides(world: World):
    assert {path.rsplit("/", 1)[-1] for path in deciding(world)} == set(DECIDES)
    assert set(posts(world)) >= ASKS


def test_every_route_that_takes_none_is_to_look_or_open(world: World):
    assert set(paths(world, "GET")) == LOOKS | OPEN
    operations = [operation for path in world.app.openapi()["paths"].values() for operation in path]
    assert set(operations) == {"get", "post"}


def test_without_a_token_nothing_of_a_body_is_read(world: World):
    for path in [*posts(world), *LOOKS]:
        for token in ("", "boucle_wrong"):
            asked = Asked(world, path, token)
            assert (asked.answer(), asked.read) == (401, 0), path


@pytest.mark.parametrize("keys", [True, False])
def test_where_no_body_is_needed_none_is_read_or_waited_for(tmp_path: Path, keys: bool):
    world = made(tmp_path, require_key=keys)
    token = world.tokens.add("user:ada", [Role.VIEWER]) if keys else ""
    for path in LOOKS | OPEN:
        asked = Asked(world, path, token, pieces=0)
        assert asked.answer() == (404 if path.endswith(".html") else 200), path


def test_a_body_that_is_too_long_is_not_read_to_its_end(world: World):
    token = world.tokens.add("user:ada", list(Role))
    for path in posts(world):
        asked = Asked(world, path, token)
        assert asked.answer() == 413, path
        assert asked.read < MOST_CHUNKS, path


def test_a_body_that_stops_coming_is_not_waited_for(tmp_path: Path):
    world = made(tmp_path, require_key=True, body_seconds=0.05)
    token = world.tokens.add("user:ada", list(Role))
    for path in posts(world):
        assert Asked(world, path, token, pieces=1).answer() in {408, 413}, path
    assert Asked(world, f"/models/{MODEL}/alerts", token, pieces=1).answer() == 408


def test_nothing_is_read_of_a_body_whose_sender_decides_nothing(world: World):
    token = world.tokens.add("service:shop", [Role.CALLER, Role.TESTER, Role.VIEWER])
    for path in deciding(world):
        asked = Asked(world, path, token)
        assert (asked.answer(), asked.read) == (403, 0), path


def test_no_other_role_than_its_own_decides(world: World):
    for path in deciding(world):
        wanted = DECIDES[path.rsplit("/", 1)[-1]]
        others = [role for role in Role if role is not wanted]
        token = world.tokens.add("user:bob", others)
        body = {"reason": "r", "version": 1, "evidence_digest": "a" * 64, "alerts": []}
        if wanted is Role.OPERATOR:
            body = {"reason": "r"}
        elif path.endswith("alerts"):
            body = {"alerts": []}
        answer = world.http.post(path.format(model=MODEL), json=body, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, f"not as {wanted}" in answer.text) == (403, True), (path, answer.text)


@pytest.mark.parametrize("keys", [True, False])
def test_deciding_looking_and_wrong_keys_spend_the_budget_of_who_asks(tmp_path: Path, keys: bool):
    world = made(tmp_path, require_key=keys, requests_per_second=1)
    for path in [*deciding(world), "/predict"] if keys else deciding(world):
        address = {"authorization": f"Bearer boucle_wrong_{path}"}
        answers = [world.http.post(path.format(model=MODEL), json={}, headers=address).status_code for _ in range(2)]
        assert 429 in answers, path
    for path in LOOKS:
        address = path.format(model=MODEL, number="1")
        assert 429 in [world.http.get(address).status_code for _ in range(2)], path


def test_a_probe_with_a_wrong_key_is_answered_as_a_stranger_and_spends_the_budget_of_who_asks(tmp_path: Path):
    world = made(tmp_path, require_key=True, requests_per_second=0.1)
    wrong = {"authorization": "Bearer boucle_wrong"}
    told = [world.http.get("/readyz", headers=wrong) for _ in range(2)]
    assert [(answer.status_code, answer.json()["models"]) for answer in told] == [(200, {}), (200, {})]
    assert world.http.get("/models", headers=wrong).status_code == 429


def test_every_known_digest_is_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """One comparison for each, whichever fits: neither the time nor the number says how near a guess was."""
    tokens = TokenStore(tmp_path / "tokens.json")
    known = [tokens.add(f"user:{name}", [Role.OPERATOR]) for name in ("ada", "bob", "cyd")]
    compared: list[tuple[object, object]] = []
    same = hmac.compare_digest

    def spy(left: Any, right: Any) -> bool:
        compared.append((left, right))
        return same(left, right)

    monkeypatch.setattr(hmac, "compare_digest", spy)
    for token in (known[0], known[2], "boucle_wrong"):
        compared.clear()
        bearer = tokens.bearer(token)
        assert (bearer is not None) == (token in known)
        assert len(compared) == len(known)
