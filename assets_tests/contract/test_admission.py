"""Who is let in to ask for predictions, how often, how many at a time, and what the others are told."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_http import QUESTION, WEIGHTS_1, World, assert_problem
from boucle_adapters.tokens import Role
from boucle_serving.admission import Admission, Kind, Limits
from boucle_serving.body import read_body
from boucle_serving.predict_endpoint import MAX_BODY_BYTES
from boucle_serving.problems import BusyError, TooLargeError, TooManyRequestsError, TooSlowError, UnauthorizedError

BATCH = {"rows": [QUESTION]}
INVOCATION = {"dataframe_records": [QUESTION]}
INFERENCE = {
    "inputs": [{"name": name, "datatype": "BYTES", "shape": [1], "data": [QUESTION[name]]} for name in QUESTION]
}
ROUTES: dict[str, Any] = {
    "/predict": QUESTION,
    f"/models/{MODEL}/predict": QUESTION,
    f"/models/{MODEL}/predict/batch": BATCH,
    "/invocations": INVOCATION,
    f"/v2/models/{MODEL}/infer": INFERENCE,
}


def world_with(folder: Path, limits: Limits) -> World:
    made = World(folder, limits=limits)
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


@pytest.fixture
def locked(tmp_path: Path) -> World:
    """Predictions need a key."""
    return world_with(tmp_path, Limits(require_key=True))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ROUTES)
def test_where_keys_are_required_nobody_is_answered_without_one(locked: World, path: str):
    answer = locked.http.post(path, json=ROUTES[path])
    assert_problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert locked.logged() == []
    key = locked.tokens.add("service:shop", [Role.CALLER])
    assert locked.http.post(path, json=ROUTES[path], headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("said", ["Bearer boucle_wrong", "Basic abc", "Bearer", "boucle_x"])
def test_a_key_that_nobody_knows_is_401(locked: World, said: str):
    assert_problem(locked.http.post("/predict", json=QUESTION, headers={"authorization": said}), 401, "unauthorized")
    assert locked.metric('boucle_refused_requests_total{reason="key"}') == 1


def test_a_token_for_decisions_is_not_for_predictions(locked: World):
    token = locked.tokens.add("user:ada", [Role.OPERATOR])
    document = assert_problem(locked.http.post("/predict", json=QUESTION, headers=bearer(token)), 403, "forbidden")
    assert "--role caller" in str(document["detail"])


def test_a_key_that_was_revoked_is_refused_a_second_later_at_the_latest(tmp_path: Path):
    world, now = World(tmp_path), [0.0]
    admission = Admission(Limits(require_key=True), world.known, world.metrics, timer=lambda: now[0])
    key = world.tokens.add("service:shop", [Role.CALLER])
    scope = {"headers": [(b"authorization", f"Bearer {key}".encode())]}
    admission.enter(scope)
    world.tokens.revoke("service:shop")
    now[0] = 1.0
    with pytest.raises(Exception, match="Predictions need the header"):
        admission.enter(scope)


def test_the_pages_for_people_and_probes_need_no_key(locked: World):
    paths = ("/livez", "/readyz", "/metrics", "/docs")
    assert {locked.http.get(path).status_code for path in paths} == {200}


def test_a_caller_that_asks_too_often_is_429_and_told_when_to_come_again(tmp_path: Path):
    world = world_with(tmp_path, Limits(requests_per_second=2))
    answers = [world.http.post("/predict", json=QUESTION) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert_problem(answers[2], 429, "too-many-requests")
    assert answers[2].headers["retry-after"] == "1"
    assert len(world.logged()) == 2
    assert world.metric('boucle_refused_requests_total{reason="rate"}') == 1
    assert world.metric('boucle_requests_total{code="429",model="repurchase",route="none",version="none"}') == 1


@pytest.mark.parametrize("path", ROUTES)
def test_every_way_to_ask_counts_for_the_rate(tmp_path: Path, path: str):
    world = world_with(tmp_path, Limits(requests_per_second=1))
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    assert world.http.post(path, json=ROUTES[path]).status_code == 429


def test_budgets_fill_again_and_are_of_each_caller(tmp_path: Path):
    world, now = World(tmp_path), [0.0]
    admission = Admission(Limits(requests_per_second=4), world.known, world.metrics, timer=lambda: now[0])
    ada, bob = ({"headers": [], "client": (host, 1)} for host in ("10.0.0.1", "10.0.0.2"))
    for _ in range(4):
        admission.enter(ada)
    with pytest.raises(TooManyRequestsError, match=r"'10\.0\.0\.1' may send 4 requests a second; ask again in 0\.25 s"):
        admission.enter(ada)
    admission.enter(bob)
    now[0] = 0.25
    admission.enter(ada)
    with pytest.raises(TooManyRequestsError):
        admission.enter(ada)


def test_an_address_that_reads_like_an_actor_spends_nothing_of_theirs(tmp_path: Path):
    world = World(tmp_path)
    admission = Admission(Limits(require_key=True, requests_per_second=1), world.known, world.metrics)
    operator = world.tokens.add("user:ada", [Role.OPERATOR])
    stranger = {"headers": [], "client": ("user:ada", 1)}
    with pytest.raises(UnauthorizedError):
        admission.enter(stranger)
    with pytest.raises(TooManyRequestsError):
        admission.enter(stranger)
    headers = [(b"authorization", f"Bearer {operator}".encode())]
    with admission.others({"headers": headers}, Kind.DECISIONS, roles={Role.OPERATOR}):
        pass


@pytest.mark.parametrize("path", ROUTES)
def test_a_token_that_is_not_for_predictions_spends_its_owners_budget_too(tmp_path: Path, path: str):
    world = world_with(tmp_path, Limits(require_key=True, requests_per_second=0.1))
    viewer = bearer(world.tokens.add("service:wallboard", [Role.VIEWER]))
    assert [world.http.post(path, json=ROUTES[path], headers=viewer).status_code for _ in range(2)] == [403, 429]


def test_more_requests_at_a_time_than_are_answered_are_503_until_one_ends(tmp_path: Path):
    world = World(tmp_path)
    admission = Admission(Limits(concurrent_requests=2), world.known, world.metrics)
    admission.enter({})
    admission.enter({})
    with pytest.raises(BusyError, match="2 requests are being answered"):
        admission.enter({})
    admission.leave()
    admission.enter({})


def test_one_request_at_a_time_is_enough_for_one_after_the_other(tmp_path: Path):
    world = world_with(tmp_path, Limits(concurrent_requests=1))
    for path, body in list(ROUTES.items()) * 2:
        assert world.http.post(path, json=body).status_code == 200
        assert world.http.post(path, content=b"{").status_code == 422


def test_a_replica_without_a_model_says_when_to_come_again(tmp_path: Path):
    world = World(tmp_path)
    world.poll()
    answer = world.http.post("/predict", json=QUESTION)
    assert_problem(answer, 503, "no-production-model")
    assert answer.headers["retry-after"] == "1"


def receiving(*chunks: bytes, then_waits: bool = False) -> Any:
    """What a server hands over of a body that comes in chunks."""
    left: Iterator[bytes] = iter(chunks)
    count = len(chunks)

    async def receive() -> dict[str, Any]:
        nonlocal count
        count -= 1
        chunk = next(left, None)
        if chunk is None:
            await asyncio.sleep(3_600)
        return {"type": "http.request", "body": chunk, "more_body": count > 0 or then_waits}

    return receive


def test_a_body_in_chunks_is_put_together():
    assert asyncio.run(read_body(receiving(b"ab", b"", b"cd"), most=4, seconds=1)) == b"abcd"


def test_a_body_that_does_not_end_is_read_only_as_far_as_allowed():
    endless = receiving(*[b"x" * 1000] * 1000)
    with pytest.raises(TooLargeError, match=f"more than {MAX_BODY_BYTES} bytes"):
        asyncio.run(read_body(endless, most=MAX_BODY_BYTES, seconds=1))


def test_a_body_that_does_not_come_is_given_up():
    with pytest.raises(TooSlowError, match=r"did not arrive within 0\.05 s"):
        asyncio.run(read_body(receiving(b"{", then_waits=True), most=100, seconds=0.05))
