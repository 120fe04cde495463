"""Tokens are looked up in memory: the disk holds up no answer, and strangers fill nothing."""

import asyncio
import threading
import tracemalloc
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from assets_tests.contract.test_every_route import made
from assets_tests.contract.test_http import QUESTION, World, assert_problem, wait_for
from assets_tests.contract.test_what_hangs import BATCH, PIN, REASON, bearer, told
from boucle_adapters.tokens import Role, Tokens, TokenStore
from boucle_serving.admission import Admission, Limits
from boucle_serving.known_tokens import KnownTokens


@pytest.mark.parametrize(("count", "length"), [(30, 1_000_000), (20_000, 50), (20_000, 200)])
def test_nothing_is_kept_of_what_strangers_send_instead_of_a_token(tmp_path: Path, count: int, length: int):
    world = World(tmp_path)
    world.tokens.add("service:shop", [Role.CALLER])
    admission = Admission(Limits(require_key=True), world.known, world.metrics)
    tracemalloc.start()
    try:
        for number in range(count):
            said = [(b"authorization", f"Bearer {number}".encode().ljust(length, b"x"))]
            assert not admission.may_look({"headers": said, "client": ("10.0.0.1", 1)})
            said.clear()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1_000_000


def test_the_event_loop_never_reads_the_file_of_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    world = made(tmp_path, require_key=True)
    token = bearer(world.tokens.add("user:ada", list(Role)))
    read, readers = TokenStore.read, []

    def noted(store: TokenStore) -> Tokens:
        readers.append(threading.current_thread())
        return read(store)

    async def story(http: httpx.AsyncClient) -> None:
        for headers in (token, bearer("boucle_wrong")):
            for path in ("/readyz", "/models"):
                await http.get(path, headers=headers)
            for path, body in (("/predict", QUESTION), (BATCH, {"rows": [QUESTION]}), (PIN, REASON)):
                await http.post(path, json=body, headers=headers)
            await http.post("/predict", json=QUESTION, headers={**headers, "x-boucle-arm": "production"})

    monkeypatch.setattr(TokenStore, "read", noted)
    told(world, story)
    assert threading.current_thread() not in readers


def test_a_disk_that_hangs_holds_up_no_probe_and_nobody_who_was_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = made(tmp_path, require_key=True)
    token = bearer(world.tokens.add("service:shop", [Role.CALLER]))
    over, hangs = threading.Event(), threading.Event()

    def hanging(_store: TokenStore) -> Tokens:
        hangs.set()
        over.wait(60)
        return Tokens({})

    async def story(http: httpx.AsyncClient) -> None:
        await asyncio.to_thread(hangs.wait)
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/readyz", headers=token)).json()["models"] != {}
        assert (await http.post("/predict", json=QUESTION, headers=token)).status_code == 200
        assert not over.is_set()

    monkeypatch.setattr(TokenStore, "read", hanging)
    world.known.start()
    try:
        told(world, story)
    finally:
        over.set()
        world.known.stop()


def test_a_replica_hears_by_itself_of_tokens_that_are_made_and_revoked(tmp_path: Path):
    world = made(tmp_path, require_key=True)
    elsewhere = TokenStore(world.tokens.file)
    with TestClient(world.app) as http:
        token = bearer(elsewhere.add("service:wallboard", [Role.VIEWER]))
        wait_for(lambda: http.get("/models", headers=token).status_code == 200)
        elsewhere.revoke("service:wallboard")
        wait_for(lambda: http.get("/models", headers=token).status_code == 401)


def test_before_tokens_are_known_a_replica_that_needs_them_is_not_ready_and_turns_nobody_away_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def away(_store: TokenStore) -> Tokens:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(TokenStore, "read", away)
        world = made(tmp_path, require_key=True)
    key = bearer(TokenStore(world.tokens.file).add("service:shop", [Role.CALLER]))
    probe = world.http.get("/readyz", headers=key)
    assert (probe.status_code, len(probe.json()["missing"]), probe.json()["models"]) == (503, 1, {})
    answer = world.http.post("/predict", json=QUESTION, headers=key)
    assert_problem(answer, 503, "tokens-unavailable")
    assert answer.headers["retry-after"] == "1"
    world.known.poll()
    assert world.http.get("/readyz").status_code == 200
    assert world.http.post("/predict", json=QUESTION, headers=key).status_code == 200


def test_where_no_key_is_needed_predictions_do_not_wait_for_tokens(tmp_path: Path):
    world = made(tmp_path)
    world.tokens.file.write_text("{")
    world.known.poll()
    assert world.http.get("/readyz").status_code == 200
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    assert_problem(world.http.post(PIN, json=REASON, headers=bearer("boucle_x")), 503, "tokens-unavailable")


def test_a_file_that_is_none_of_tokens_lets_nobody_in(tmp_path: Path):
    world = made(tmp_path, require_key=True)
    key = bearer(world.tokens.add("service:shop", [Role.CALLER]))
    world.tokens.file.write_text("{")
    world.known.poll()
    assert_problem(world.http.post("/predict", json=QUESTION, headers=key), 503, "tokens-unavailable")


def test_of_a_file_that_cannot_be_read_for_long_those_who_look_are_told_and_what_was_known_stays(tmp_path: Path):
    store, now = TokenStore(tmp_path / "tokens.json"), [0.0]
    token = store.add("service:shop", [Role.CALLER])
    known = KnownTokens(store, needed=True, timer=lambda: now[0])
    known.poll()
    store.file.unlink()
    store.file.mkdir()
    known.poll()
    assert known.problems() == ()
    now[0] = 5.0
    known.poll()
    assert "cannot be read" in known.problems()[0]
    assert known.bearer(token) is not None
    store.file.rmdir()
    known.poll()
    assert (known.problems(), known.bearer(token)) == ((), None)


def test_who_tried_too_many_keys_at_a_probe_gets_no_more_tried(tmp_path: Path):
    world = made(tmp_path, require_key=True, requests_per_second=0.1)
    right = bearer(world.tokens.add("service:wallboard", [Role.VIEWER]))
    assert world.http.get("/readyz", headers=right).json()["models"] != {}
    for guess in ("boucle_wrong", "boucle_wrong_too"):
        world.http.get("/readyz", headers=bearer(guess))
    probe = world.http.get("/readyz", headers=right)
    assert (probe.status_code, probe.json()["models"]) == (200, {})
