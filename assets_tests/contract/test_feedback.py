"""POST /feedback: kept before it is answered, counted once, refused with a reason, never lost."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from assets_tests.bundles import MODEL, publish_users
from assets_tests.contract.test_http import NOON, QUESTION, WEIGHTS_1, NoonClock, World, assert_problem, no_space
from boucle.contracts.feedback import FEEDBACK_STREAM, FeedbackRecord
from boucle_adapters.feedback import EARLIEST, LATEST, Feedback, prediction_ids, read_feedback
from boucle_adapters.settings import Settings
from boucle_adapters.tokens import Role
from boucle_serving.admission import Limits
from boucle_serving.app import create_app
from boucle_serving.feedback import MAX_ITEMS
from boucle_serving.main import parts_of
from boucle_serving.rows import MAX_BATCH_BYTES

CLICK = {"prediction_id": "p-1", "outcome": 1, "at": "1997-11-02T11:00:00Z"}
AT = datetime(1997, 11, 2, 11, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A replica that serves nothing: feedback may come to any."""
    return World(tmp_path)


def kept(world: World) -> list[FeedbackRecord]:
    return list(world.feedback.read(FEEDBACK_STREAM, EARLIEST, LATEST))


def joined(world: World) -> Feedback:
    return read_feedback(world.feedback, known=prediction_ids(world.log, world.log.streams()))


def lines(world: World) -> int:
    return sum(len(file.read_bytes().splitlines()) for file in world.feedback.root.glob("*/*/*.jsonl"))


def test_feedback_is_in_the_log_before_it_is_answered(world: World):
    answer = world.http.post("/feedback", json={**CLICK, "model": MODEL})
    assert (answer.status_code, answer.json()) == (202, {"prediction_id": "p-1", "status": "kept"})
    assert kept(world) == [
        FeedbackRecord(
            prediction_id="p-1", outcome=1.0, reward=None, at=AT, received_at=NOON, model=MODEL, replica="one"
        )
    ]
    assert world.metric('boucle_feedback_total{status="kept"}') == 1


def test_a_replica_brings_feedback_to_the_disk_before_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    fsync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda opened: (synced.append(str(Path(f"/proc/self/fd/{opened}").readlink())), fsync(opened))
    )
    http = TestClient(create_app(parts_of(Settings(home=tmp_path, replica="one"), "")))
    assert http.post("/feedback", json=CLICK).status_code == 202
    assert synced == [str(tmp_path / "feedback_log" / FEEDBACK_STREAM / "one" / "00000001.jsonl")]


def test_a_reward_may_be_any_finite_number_and_the_moment_of_any_offset(world: World):
    said = {"prediction_id": "p-1", "reward": -12.5, "outcome": None, "at": "1997-11-02T12:00:00+01:00"}
    assert world.http.post("/feedback", json=said).status_code == 202
    assert [(record.outcome, record.reward, record.at) for record in kept(world)] == [(None, -12.5, AT)]


def test_what_is_sent_again_counts_once(world: World):
    for _ in range(3):
        assert world.http.post("/feedback", json=CLICK).json()["status"] == "kept"
    same = {**CLICK, "outcome": 1.0, "at": "1997-11-02T12:00:00+01:00", "model": "churn"}
    assert world.http.post("/feedback", json={"feedback": [same, CLICK]}).status_code == 202
    assert len({record.content for record in kept(world)}) == 1
    assert joined(world).outcomes["p-1"].outcome == 1.0


def test_a_later_outcome_corrects_an_earlier_one_and_is_no_reward(world: World):
    reward = {"prediction_id": "p-1", "reward": 3, "at": CLICK["at"]}
    for said in (CLICK, {**CLICK, "outcome": 0}, reward):
        world.http.post("/feedback", json=said)
    found = joined(world)
    assert found.outcomes["p-1"].outcome == 0.0
    assert found.rewards["p-1"].reward == 3.0


def test_an_id_that_no_log_knows_is_kept_and_the_join_names_it(world: World):
    publish_users(world.root / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    known = world.http.post("/predict", json=QUESTION).json()["prediction_id"]
    both = {"feedback": [{**CLICK, "prediction_id": known}, CLICK]}
    statuses = [item["status"] for item in world.http.post("/feedback", json=both).json()["feedback"]]
    assert statuses == ["kept", "kept"]
    found = joined(world)
    assert set(found.outcomes) == {known, "p-1"}
    assert found.unknown == {"p-1"}


def test_in_a_batch_an_item_that_is_malformed_has_its_problem_and_the_others_are_kept(world: World):
    items = [CLICK, {**CLICK, "outcome": "yes"}, "click", {**CLICK, "prediction_id": "p-2", "outcome": 0}]
    answer = world.http.post("/feedback", json={"feedback": items})
    assert answer.status_code == 202
    first, wrong, none, second = answer.json()["feedback"]
    assert (first, second) == (
        {"prediction_id": "p-1", "status": "kept"},
        {"prediction_id": "p-2", "status": "kept"},
    )
    assert wrong["error"]["status"] == 422
    assert wrong["error"]["errors"] == [{"field": "outcome", "message": "must be a finite number, not 'yes'"}]
    assert none["error"]["type"] == "urn:boucle:problem:invalid-request"
    assert [record.prediction_id for record in kept(world)] == ["p-1", "p-2"]
    assert world.metric('boucle_feedback_total{status="kept"}') == 2
    assert world.metric('boucle_feedback_total{status="malformed"}') == 2


def test_a_whole_batch_of_the_largest_size_is_kept_by_one_write(world: World, monkeypatch: pytest.MonkeyPatch):
    appended: list[int] = []
    append = world.feedback.append
    monkeypatch.setattr(world.feedback, "append", lambda *records: (appended.append(len(records)), append(*records)))
    items = [{**CLICK, "prediction_id": str(number)} for number in range(MAX_ITEMS)]
    answer = world.http.post("/feedback", json={"feedback": items}).json()["feedback"]
    assert [item["prediction_id"] for item in answer] == [str(number) for number in range(MAX_ITEMS)]
    assert (appended, len(kept(world))) == ([MAX_ITEMS], MAX_ITEMS)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]),
        (b"{not json", ["body"]),
        (b"[]", ["body"]),
        (b"{}", ["prediction_id", "outcome", "at"]),
        (b'{"prediction_id": "p", "at": "1997-11-02T11:00:00Z"}', ["outcome"]),
        (b'{"prediction_id": "p", "outcome": 1, "reward": 1, "at": "1997-11-02T11:00:00Z"}', ["outcome"]),
        (b'{"prediction_id": "p", "outcome": true, "at": "1997-11-02T11:00:00Z"}', ["outcome"]),
        (b'{"prediction_id": "p", "outcome": NaN, "at": "1997-11-02T11:00:00Z"}', ["outcome"]),
        (b'{"prediction_id": "p", "reward": 1e999, "at": "1997-11-02T11:00:00Z"}', ["reward"]),
        (b'{"prediction_id": "p", "reward": %s, "at": "1997-11-02T11:00:00Z"}' % (b"9" * 400), ["reward"]),
        (b'{"prediction_id": "", "outcome": 1, "at": "1997-11-02T11:00:00Z"}', ["prediction_id"]),
        (b'{"prediction_id": 7, "outcome": 1, "at": "1997-11-02T11:00:00Z"}', ["prediction_id"]),
        (b'{"prediction_id": "a\\nb", "outcome": 1, "at": "1997-11-02T11:00:00Z"}', ["prediction_id"]),
        (b'{"prediction_id": "%s", "outcome": 1, "at": "1997-11-02T11:00:00Z"}' % (b"x" * 129), ["prediction_id"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": "1997-11-02T11:00:00"}', ["at"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": "1997-11-02"}', ["at"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": 878468400}', ["at"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": null}', ["at"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": "0001-01-01T00:00:00+05:00"}', ["at"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": "1997-11-02T11:00:00Z", "model": 1}', ["model"]),
        (b'{"prediction_id": "p", "outcome": 1, "at": "1997-11-02T11:00:00Z", "clicked": 1}', ["clicked"]),
        (b'{"feedback": {}}', ["feedback"]),
        (b'{"feedback": []}', ["feedback"]),
        (
            b'{"feedback": [{"prediction_id": "p", "outcome": 1, "at": "1997-11-02T11:00:00Z"}], "model": "x"}',
            ["feedback"],
        ),
    ],
)
def test_a_malformed_request_is_422_and_names_each_field(world: World, body: bytes, fields: list[str]):
    document = assert_problem(world.http.post("/feedback", content=body), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == fields  # type: ignore[attr-defined]
    assert lines(world) == 0


@pytest.mark.parametrize("body", [{"feedback": [CLICK] * (MAX_ITEMS + 1)}, "x" * MAX_BATCH_BYTES])
def test_more_than_is_read_is_refused_whole(world: World, body: Any):
    assert (MAX_ITEMS, MAX_BATCH_BYTES) == (1_000, 4 * 1024 * 1024)  # as the documentation says
    assert_problem(world.http.post("/feedback", json=body), 413, "too-large")
    assert lines(world) == 0


@pytest.mark.parametrize("body", [CLICK, {"feedback": [CLICK]}])
def test_what_cannot_be_kept_is_503_and_may_be_sent_again(world: World, body: Any, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as away:
        away.setattr(world.feedback, "append", no_space)
        answer = world.http.post("/feedback", json=body)
        assert "No space left" in str(assert_problem(answer, 503, "log-unavailable")["detail"])
        assert answer.headers["retry-after"] == "1"
        assert "Feedback is refused" in str(world.http.get("/readyz").json()["problems"])
    assert world.metric('boucle_feedback_total{status="dropped"}') == 1
    assert world.http.post("/feedback", json=body).status_code == 202
    assert len(kept(world)) == 1
    assert world.http.get("/readyz").json()["problems"] != []  # it has no model
    assert "Feedback" not in str(world.http.get("/readyz").json()["problems"])


def test_where_the_policy_is_to_serve_what_cannot_be_kept_is_said_to_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path, serve_unlogged=True)
    monkeypatch.setattr(world.feedback, "append", no_space)
    answer = world.http.post("/feedback", json={"feedback": [CLICK, {}]})
    assert answer.status_code == 202
    assert answer.json()["feedback"][0] == {"prediction_id": "p-1", "status": "dropped"}
    assert world.metric('boucle_feedback_total{status="dropped"}') == 1
    assert "without being kept" in str(world.http.get("/readyz").json()["problems"])


def test_where_keys_are_required_feedback_needs_one_for_predictions(tmp_path: Path):
    world = World(tmp_path, limits=Limits(require_key=True))
    assert_problem(world.http.post("/feedback", json=CLICK), 401, "unauthorized")
    for role, status in ((Role.OPERATOR, 403), (Role.CALLER, 202)):
        token = world.tokens.add(f"service:{role}", [role])
        answer = world.http.post("/feedback", json=CLICK, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status
    assert len(kept(world)) == 1


def test_feedback_counts_for_the_rate_of_its_caller(tmp_path: Path):
    world = World(tmp_path, limits=Limits(requests_per_second=1))
    assert world.http.post("/feedback", json=CLICK).status_code == 202
    assert_problem(world.http.post("/feedback", json=CLICK), 429, "too-many-requests")


def test_one_request_at_a_time_is_enough_for_one_after_the_other(tmp_path: Path):
    world = World(tmp_path, limits=Limits(concurrent_requests=1))
    for body in (b"{", b'{"feedback": 1}', b"{}") * 2:
        assert world.http.post("/feedback", content=body).status_code == 422
    assert world.http.post("/feedback", json=CLICK).status_code == 202


def test_a_model_that_is_not_served_here_opens_no_file_and_no_clock_of_its_own(tmp_path: Path):
    clocks: list[str] = []
    parts = parts_of(Settings(home=tmp_path), "")
    app = create_app(replace(parts, open_clock=lambda model: (clocks.append(model), NoonClock())[1]))
    for name in ("../../etc", "churn", "x" * 64):
        assert (
            TestClient(app).post("/feedback", json={**CLICK, "prediction_id": name, "model": name}).status_code == 202
        )
    assert clocks == [MODEL]
    assert [path.name for path in (tmp_path / "feedback_log").iterdir()] == [FEEDBACK_STREAM]
    assert [record.model for record in parts.feedback.read(FEEDBACK_STREAM, EARLIEST, LATEST)] == [
        "../../etc",
        "churn",
        "x" * 64,
    ]


def test_every_status_of_feedback_is_documented(world: World):
    operation = world.http.get("/openapi.json").json()["paths"]["/feedback"]["post"]
    assert set(operation["responses"]) == {"202", "401", "403", "408", "413", "422", "429", "503"}
