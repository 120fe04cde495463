"""The short way of single predictions: what it answers is what the app answers, however a request arrives."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from assets_tests.bad_bundles import put_stalling_bundle
from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_http import QUESTION, WEIGHTS_1, World, no_space, wait_for
from assets_tests.contract.test_trials import try_version_2
from boucle_adapters.tokens import Role
from boucle_serving.admission import Limits
from boucle_serving.main import server_config
from boucle_serving.predict_endpoint import MAX_BODY_BYTES, PredictEndpoint

pytestmark = pytest.mark.timeout(240)
STRANGER = {"user_id": "99", "as_of": "1997-11-01"}
ROW = {"orders": 3, "recency_days": 5.0}


class Server:
    """A world behind a real server; how many requests went the short way is counted."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.short = 0
        submit = PredictEndpoint.submit

        def counted(*args: Any) -> bool:
            self.short += 1
            is_answered = submit(*args)
            self.short -= not is_answered
            return is_answered

        monkeypatch.setattr(PredictEndpoint, "submit", counted)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.server = uvicorn.Server(server_config(world.app))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))

    @contextmanager
    def running(self) -> Iterator["Server"]:
        self.thread.start()
        wait_for(lambda: self.server.started)
        try:
            yield self
        finally:
            self.server.should_exit = True
            self.thread.join(timeout=60)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.socket.getsockname(), timeout=10)

    def ask(self, *pieces: bytes, pause: float = 0.0) -> tuple[int, dict[str, str], Any]:
        """Send a request in pieces over a connection of its own."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
                threading.Event().wait(pause)
            return answer_of(connection)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], Any]:
    """The next answer on a connection: status, headers, document."""
    response = HTTPResponse(connection)
    response.begin()
    return response.status, dict(response.getheaders()), json.loads(response.read())


def request(body: object, path: str = "/predict", *headers: str, version: str = "1.1") -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/{version}", "host: test", f"content-length: {len(content)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with started(tmp_path, monkeypatch, Limits()) as server:
        yield server


@contextmanager
def started(folder: Path, monkeypatch: pytest.MonkeyPatch, limits: Limits) -> Iterator[Server]:
    world = World(folder, limits=limits)
    publish_users(world.root / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    with Server(world, monkeypatch).running() as server:
        yield server


BODIES = {
    "a question": QUESTION,
    "a row": ROW,
    "a stranger": STRANGER,
    "too early": {**QUESTION, "as_of": "1990-01-01"},
    "beyond the watermark": {**QUESTION, "as_of": "2030-01-01"},
    "malformed": {"user_id": "4", "as_of": "soon", "more": 1},
    "no object": [1],
    "no JSON": b"{",
    "not UTF-8": b'{"user_id": "\xff"}',
    "nothing": b"",
    "too large": b" " * (MAX_BODY_BYTES + 1),
}


@pytest.mark.parametrize("path", ["/predict", f"/models/{MODEL}/predict"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_the_answer_is_the_one_that_the_app_gives(server: Server, path: str, body: object):
    whole = request(body, path, "x-request-id: mine")
    status, headers, document = server.ask(whole)
    assert server.short == 1 or len(whole) > 65_536  # of a large body the rest may come late
    by_app = server.world.http.post(
        path,
        content=body if isinstance(body, bytes) else json.dumps(body).encode(),
        headers={"x-request-id": "mine"},
    )
    del headers["date"]
    theirs = by_app.json()
    if status == 200:
        assert len(document.pop("prediction_id")) == len(theirs.pop("prediction_id")) == 32
    assert (status, document) == (by_app.status_code, theirs)
    assert headers == dict(by_app.headers)


def test_a_path_that_is_written_otherwise_and_a_model_nobody_knows_go_to_the_app(server: Server):
    assert server.ask(request(QUESTION, "/models/nobody/predict"))[0] == 404
    assert server.ask(request(QUESTION, "/models/a/b/predict"))[0] == 404
    assert server.short == 0
    assert server.ask(request(QUESTION, "/predict?trace=1"))[0] == 200
    assert server.short == 1


def test_a_head_and_a_body_that_come_apart_are_one_request(server: Server):
    head, _, body = request(QUESTION).partition(b"\r\n\r\n")
    assert server.ask(head + b"\r\n\r\n", body)[0] == 200
    assert server.ask(*(bytes([byte]) for byte in request(QUESTION)))[0] == 200
    assert len(server.world.logged()) == 2


def test_a_body_that_takes_its_time_is_waited_for_by_the_app(server: Server):
    head, _, body = request(QUESTION).partition(b"\r\n\r\n")
    assert server.ask(head + b"\r\n\r\n", body, pause=0.2)[0] == 200
    assert server.short == 0


def test_a_client_that_asks_whether_it_may_send_its_body_is_told_to(server: Server):
    head, _, body = request(QUESTION, "/predict", "expect: 100-continue").partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
        connection.sendall(body)
        assert answer_of(connection)[0] == 200


def test_requests_sent_without_waiting_are_answered_in_their_order(server: Server):
    asked = [QUESTION, STRANGER, ROW, {"user_id": "7", "as_of": "1997-11-01"}]
    with server.connect() as connection:
        connection.sendall(b"".join(request(body, "/predict", f"x-request-id: {n}") for n, body in enumerate(asked)))
        answers = ids_and_statuses(connection, len(asked))
    assert answers == [("0", 200), ("1", 404), ("2", 200), ("3", 200)]


def ids_and_statuses(connection: socket.socket, count: int) -> list[tuple[str, int]]:
    """The next answers on a connection, in their order; they may come together."""
    found = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status = int(stream.readline().split()[1])
            headers = dict(line.decode().strip().split(": ", 1) for line in iter(stream.readline, b"\r\n"))
            stream.read(int(headers["content-length"]))
            found.append((headers["x-request-id"], status))
    return found


def test_a_connection_is_kept_or_closed_as_the_client_wishes(server: Server):
    with server.connect() as connection:
        for _ in range(3):
            connection.sendall(request(QUESTION))
            assert "connection" not in answer_of(connection)[1]
        connection.sendall(request(QUESTION, "/predict", "connection: close"))
        assert answer_of(connection)[1]["connection"] == "close"
        assert connection.recv(1) == b""
    with server.connect() as old:
        old.sendall(request(QUESTION, version="1.0"))
        assert answer_of(old)[1]["connection"] == "close"
        assert old.recv(1) == b""
    assert server.short == 5


def closed_within(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False


def test_a_connection_that_never_says_a_whole_head_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with started(tmp_path, monkeypatch, Limits(body_seconds=0.3)) as server:
        with server.connect() as silent:
            assert closed_within(silent, 5)
        with server.connect() as slow:
            slow.sendall(request(QUESTION))
            assert answer_of(slow)[0] == 200
            with suppress(ConnectionError):  # a byte at a time, and never the last
                for byte in request(QUESTION)[:40]:
                    slow.sendall(bytes([byte]))
                    threading.Event().wait(0.05)
            assert closed_within(slow, 5)
        with server.connect() as patient:
            patient.sendall(request(QUESTION)[:20])
            patient.sendall(request(QUESTION)[20:])
            assert answer_of(patient)[0] == 200
            threading.Event().wait(0.6)
            patient.sendall(request(QUESTION))
            assert answer_of(patient)[0] == 200  # between requests a connection may rest


def test_a_caller_who_leaves_before_the_body_is_counted_as_one_who_left(server: Server):
    head, _, _ = request(QUESTION).partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n{")
    labels = 'model="repurchase",route="none",version="none"'
    wait_for(lambda: f'boucle_requests_total{{code="499",{labels}}} 1.0' in server.world.http.get("/metrics").text)
    assert server.ask(request(QUESTION))[0] == 200


def test_a_caller_who_leaves_after_asking_is_in_the_log_and_hurts_nobody(server: Server):
    with server.connect() as connection:
        connection.sendall(request(QUESTION))
    wait_for(lambda: len(server.world.logged()) == 1)
    assert server.ask(request(QUESTION))[0] == 200


def test_on_a_full_disk_answers_are_withheld(server: Server, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as away:
        away.setattr(server.world.log, "append", no_space)
        assert server.ask(request(QUESTION))[0] == 503
        assert server.ask(request(STRANGER))[0] == 404
    assert server.ask(request(QUESTION))[0] == 200


def test_a_request_that_has_begun_is_finished_by_a_server_that_is_told_to_stop(server: Server):
    head, _, body = request(QUESTION).partition(b"\r\n\r\n")
    with server.connect() as connection:
        connection.sendall(head + b"\r\n\r\n")
        wait_for(lambda: any(one._held for one in server.server.server_state.connections))
        (begun,) = [one._held[0] for one in server.server.server_state.connections]
        server.server.should_exit = True
        wait_for(lambda: not begun.keep_alive)
        connection.sendall(body)
        status, headers, _ = answer_of(connection)
    assert (status, headers["connection"]) == (200, "close")


def test_keys_and_places_are_asked_for_on_the_short_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    limits = Limits(require_key=True, requests_per_second=1)
    with started(tmp_path, monkeypatch, limits) as server:
        key = f"authorization: Bearer {server.world.tokens.add('service:shop', [Role.CALLER])}"
        assert server.ask(request(QUESTION))[0] == 401
        assert server.ask(request(QUESTION, "/predict", key))[0] == 200
        status, headers, _ = server.ask(request(QUESTION, "/predict", key))
        assert (status, headers["retry-after"], server.short) == (429, "1", 2)


@pytest.mark.parametrize("apart", [False, True])
def test_who_tries_keys_behind_a_proxy_spends_a_budget_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
):
    with started(tmp_path, monkeypatch, Limits(require_key=True, requests_per_second=0.1)) as server:
        asked = [
            request(QUESTION, "/predict", "authorization: Bearer boucle_wrong", f"x-forwarded-for: 10.0.0.{n}")
            for n in (1, 2, 1)
        ]
        pieces = [one.partition(b"{") if apart else (one,) for one in asked]
        assert [server.ask(*some)[0] for some in pieces] == [401, 401, 429]
        assert server.short == 0


def test_after_a_key_that_nobody_knows_a_connection_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with started(tmp_path, monkeypatch, Limits(require_key=True)) as server, server.connect() as connection:
        key = server.world.tokens.add("service:shop", [Role.CALLER])
        for token, status in (("boucle_wrong", 401), (key, 200), ("boucle_wrong", 401), (key, 200)):
            connection.sendall(request(QUESTION, "/predict", f"authorization: Bearer {token}"))
            assert answer_of(connection)[0] == status
        assert server.short == 2


def test_where_callers_are_told_apart_by_address_a_proxy_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with started(tmp_path, monkeypatch, Limits(requests_per_second=0.1)) as server:
        told = [server.ask(request(QUESTION, "/predict", f"x-forwarded-for: 10.0.0.{n}"))[0] for n in (1, 2, 1)]
        assert (told, server.short) == ([200, 200, 429], 0)


@contextmanager
def with_a_version_that_stalls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Every question is drawn for a version that takes longer than the second that a caller waits for it."""
    world = World(folder, trial_seconds=1.0)
    publish_users(world.root / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    stalling = put_stalling_bundle(world.bundles, world.root / "scratch", turns=3_000_000)
    with Server(world, monkeypatch).running() as server:
        try_version_2(world, stalling, weight=100)
        server.ask(request(QUESTION))  # from here on it is asked in its own thread
        yield server


def test_what_comes_while_an_answer_is_awaited_is_answered_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with with_a_version_that_stalls(tmp_path, monkeypatch) as server, server.connect() as connection:
        first, second = (request(body, "/predict", f"x-request-id: {n}") for n, body in enumerate((QUESTION, STRANGER)))
        connection.sendall(first)
        wait_for(lambda: server.short == 2)
        connection.sendall(second[:30])
        threading.Event().wait(0.05)
        connection.sendall(second[30:])
        assert ids_and_statuses(connection, 2) == [("0", 200), ("1", 404)]


def test_an_answer_that_is_awaited_is_given_by_a_server_that_is_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with with_a_version_that_stalls(tmp_path, monkeypatch) as server, server.connect() as connection:
        connection.sendall(request(QUESTION))
        wait_for(lambda: server.short == 2)
        server.server.should_exit = True
        status, headers, _ = answer_of(connection)
        assert (status, headers["connection"], connection.recv(1)) == (200, "close", b"")


def test_a_connection_on_which_nothing_is_asked_any_more_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("boucle_serving.main.KEEP_ALIVE_SECONDS", 1)
    with started(tmp_path, monkeypatch, Limits()) as server, server.connect() as connection:
        for _ in range(3):
            connection.sendall(request(QUESTION))
            assert answer_of(connection)[0] == 200
            assert not closed_within(connection, 0.6)
        assert closed_within(connection, 5)
