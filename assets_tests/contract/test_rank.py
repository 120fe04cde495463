"""POST /models/{model}/rank: who orders a list, what is on record of it, and that no version on trial can spoil it."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assets_tests.bundles import FEATURES, MODEL, NOVEMBER, OCTOBER, put_bundle, sigmoid
from assets_tests.contract.test_http import NOON, WEIGHTS_1, WEIGHTS_2, World, assert_problem, no_space
from assets_tests.contract.test_trials import crashing, good, stalling, try_version_2
from boucle.contracts.ids import Digest, EntityKey
from boucle.contracts.rank import RankFields, RankRecord
from boucle.contracts.traffic_plan import Strategy
from boucle.contracts.trials import Team
from boucle.policy.interleaving import InterleavingPolicy, first_teams, team_draft
from boucle.policy.traffic import assign
from boucle_adapters.feedback import EARLIEST, LATEST
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.rank_facts import preferences
from boucle_adapters.tokens import Role
from boucle_serving.admission import Limits
from boucle_serving.ranking import MAX_ITEMS
from boucle_serving.rows import MAX_BATCH_BYTES
from boucle_serving.trial import FAILURES_IN_A_ROW

RANK = f"/models/{MODEL}/rank"
USERS = {"1": (1.0, 1.0), "2": (2.0, 9.0), "3": (3.0, 3.0), "4": (4.0, 20.0), "5": (5.0, 12.0), "6": (6.0, 5.0)}
"""Orders and days. Version 1 adds 0.1 an order and -0.2 a day, version 2 0.3 and -0.1."""
ITEMS = [{"user_id": user, "as_of": "1997-11-01"} for user in USERS]
BY_1, BY_2 = ["1", "3", "6", "2", "5", "4"], ["6", "3", "5", "1", "2", "4"]
"""Logits of version 1: -.1 -1.6 -.3 -3.6 -1.9 -.4; of version 2: .2 -.3 .6 -.8 .3 1.3."""


def publish(world: World) -> None:
    publish_snapshot(
        world.root / "online" / MODEL,
        entity_keys=list(USERS),
        as_of=[NOVEMBER] * len(USERS),
        features=np.array(list(USERS.values())),
        feature_names=FEATURES,
        watermark=NOVEMBER,
        source_digests=[],
    )


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 in production, six users with features."""
    made = World(tmp_path, trial_seconds=0.2)
    publish(made)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def interleave(world: World, digest: Digest) -> None:
    """Put version 2 on trial beside version 1."""
    try_version_2(world, digest, weight=0, strategy=Strategy.INTERLEAVING)


def rank(world: World, request_id: str = "r", items: list[Any] = ITEMS, **more: Any) -> dict[str, Any]:
    answer = world.http.post(RANK, json={"items": items, **more}, headers={"x-request-id": request_id})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def users(document: dict[str, Any]) -> list[str]:
    return [item["user_id"] for item in document["items"]]


def kept(world: World) -> list[RankRecord]:
    return list(world.ranks.read(MODEL, NOON, NOON + timedelta(hours=1)))


def only(world: World) -> RankRecord:
    (record,) = kept(world)
    return record


def proba(user: str, weights: tuple[float, float]) -> float:
    return sigmoid(sum(weight * value for weight, value in zip(weights, USERS[user], strict=True)))


def expected_draft(request_id: str) -> list[tuple[str, Team | None]]:
    return team_draft(first_teams(f"{MODEL}/2/{NOON.isoformat()}", request_id), BY_1, BY_2)


# One version.


def test_a_list_is_in_the_order_of_the_probabilities_that_a_batch_gives(world: World):
    batch = world.http.post(f"/models/{MODEL}/predict/batch", json={"rows": ITEMS}).json()["rows"]
    document = rank(world)
    by_user = {row["user_id"]: row["proba"] for row in batch}
    assert {item["user_id"]: item["proba"] for item in document["items"]} == by_user
    assert [item["proba"] for item in document["items"]] == sorted(by_user.values(), reverse=True)
    assert users(document) == BY_1


def test_an_answer_says_of_each_item_what_was_sent_and_its_place(world: World):
    document = rank(world)
    first = document["items"][0]
    assert first.pop("proba") == pytest.approx(proba("1", WEIGHTS_1), abs=1e-12)
    assert len(first.pop("prediction_id")) == 32
    assert first == {**ITEMS[0], "position": 1, "model": MODEL, "model_version": 1}
    assert [item["position"] for item in document["items"]] == [1, 2, 3, 4, 5, 6]
    assert (document["model"], document["errors"], len(document["rank_id"])) == (MODEL, [], 32)


def test_items_that_are_equal_stay_in_the_order_in_which_they_were_sent(world: World):
    same = [{"orders": 1, "recency_days": 1, "user_id": user} for user in ("9", "2", "5", "7")]
    assert users(rank(world, items=same)) == ["9", "2", "5", "7"]
    assert users(rank(world, items=same[::-1])) == ["7", "5", "2", "9"]


def test_a_length_shows_the_best_and_records_no_more(world: World):
    assert users(rank(world, length=2)) == BY_1[:2]
    assert [item.entity_key for item in only(world).items] == BY_1[:2]
    assert len(world.logged()) == 2


def test_a_length_beyond_the_items_shows_all_of_them(world: World):
    assert users(rank(world, length=MAX_ITEMS)) == BY_1
    assert users(rank(world, length=None)) == BY_1


def test_a_list_is_in_the_rank_log_before_it_is_answered(world: World):
    document = rank(world, "req-1")
    record = only(world)
    assert (record.rank_id, record.request_id, record.at, record.replica) == (
        document["rank_id"],
        "req-1",
        NOON,
        "one",
    )
    assert (record.production, record.challenger, record.ranked_by, record.fallback) == (1, None, "production", None)
    assert [item.prediction_id for item in record.items] == [item["prediction_id"] for item in document["items"]]
    assert [(item.entity_key, item.as_of, item.team) for item in record.items] == [(u, NOVEMBER, None) for u in BY_1]
    assert {item.challenger_proba for item in record.items} == {None}
    assert world.metric('boucle_rank_log_records_total{model="repurchase"}') == 1


def test_a_list_that_nobody_was_drawn_for_is_so_many_predictions(world: World):
    document = rank(world)
    logged = world.logged()
    assert [record.prediction_id for record in logged] == [item["prediction_id"] for item in document["items"]]
    assert {(record.answering_role, record.propensity, record.request_id) for record in logged} == {
        ("production", 1.0, "r")
    }
    assert [record.features for record in logged] == [USERS[user] for user in BY_1]


def test_what_is_written_has_the_fields_of_what_is_read():
    assert RankFields.__annotations__.keys() == RankRecord.model_fields.keys()


def test_the_headers_say_who_ranked(world: World):
    answer = world.http.post(RANK, json={"items": ITEMS})
    assert (answer.headers["x-boucle-model-version"], answer.headers["x-boucle-route"]) == ("1", "production")
    assert world.metric('boucle_requests_total{code="200",model="repurchase",route="production",version="1"}') == 6


# Items without an answer.


def test_an_item_without_an_answer_is_named_and_the_others_keep_their_order(world: World):
    strange = [{"user_id": "99", "as_of": "1997-11-01"}, "x", {"user_id": "4", "as_of": OCTOBER.isoformat()}]
    items = [strange[0], *ITEMS[:3], strange[1], *ITEMS[3:], strange[2]]
    document = rank(world, items=items)
    assert users(document) == BY_1
    assert [(error["index"], error["problem"]["status"]) for error in document["errors"]] == [
        (0, 404),
        (4, 422),
        (8, 404),
    ]
    assert len(only(world).items) == 6
    assert world.metric('boucle_requests_total{code="404",model="repurchase",route="none",version="none"}') == 2


def test_where_no_item_can_be_answered_each_is_named(world: World):
    items = [{"user_id": "99", "as_of": "1997-11-01"}, {"user_id": "4"}]
    document = assert_problem(world.http.post(RANK, json={"items": items}), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == ["items[0]", "items[1]"]  # type: ignore[attr-defined]
    assert kept(world) == []


def test_where_there_are_no_features_at_all_it_is_not_the_callers_fault(tmp_path: Path):
    world = World(tmp_path)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    assert_problem(world.http.post(RANK, json={"items": ITEMS}), 503, "features-unavailable")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{not json", ["body"]),
        (b"[]", ["body"]),
        (b"{}", ["items"]),
        (b'{"items": {}}', ["items"]),
        (b'{"items": []}', ["items"]),
        (b'{"items": [{}], "top": 3}', ["top"]),
        (b'{"items": [{}], "length": 0}', ["length"]),
        (b'{"items": [{}], "length": 1001}', ["length"]),
        (b'{"items": [{}], "length": 2.5}', ["length"]),
        (b'{"items": [{}], "length": true}', ["length"]),
        (b'{"length": "2"}', ["items", "length"]),
    ],
)
def test_a_malformed_request_is_422_and_names_each_field(world: World, body: bytes, fields: list[str]):
    document = assert_problem(world.http.post(RANK, content=body), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == fields  # type: ignore[attr-defined]


def test_a_thousand_items_are_ranked_and_one_more_is_refused(world: World):
    assert (MAX_ITEMS, MAX_BATCH_BYTES) == (1_000, 4 * 1024 * 1024)  # as the documentation says
    row = {"orders": 1, "recency_days": 1}
    assert len(rank(world, items=[row] * MAX_ITEMS)["items"]) == MAX_ITEMS
    for body in ({"items": [row] * (MAX_ITEMS + 1)}, {"items": ["x" * MAX_BATCH_BYTES]}):
        assert_problem(world.http.post(RANK, json=body), 413, "too-large")
    assert len(kept(world)) == 1


def test_a_model_that_nobody_knows_is_404_and_one_without_a_version_503(world: World, tmp_path: Path):
    assert_problem(world.http.post("/models/churn/rank", json={"items": ITEMS}), 404, "unknown-model")
    empty = World(tmp_path / "empty")
    assert_problem(empty.http.post(RANK, json={"items": ITEMS}), 503, "no-production-model")


def test_where_keys_are_required_ranking_needs_one_for_predictions(tmp_path: Path):
    world = World(tmp_path, limits=Limits(require_key=True))
    publish(world)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    assert_problem(world.http.post(RANK, json={"items": ITEMS}), 401, "unauthorized")
    for role, status in ((Role.OPERATOR, 403), (Role.CALLER, 200)):
        token = world.tokens.add(f"service:{role}", [role])
        headers = {"authorization": f"Bearer {token}"}
        assert world.http.post(RANK, json={"items": ITEMS}, headers=headers).status_code == status


@pytest.mark.parametrize("log", ["ranks", "log"])
def test_a_list_that_cannot_be_logged_is_withheld(world: World, monkeypatch: pytest.MonkeyPatch, log: str):
    monkeypatch.setattr(getattr(world, log), "append", no_space)
    assert_problem(world.http.post(RANK, json={"items": ITEMS}), 503, "log-unavailable")
    assert "No space left" in str(world.http.get("/readyz").json()["problems"])


def test_where_the_policy_is_to_serve_a_list_that_cannot_be_logged_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path, serve_unlogged=True)
    publish(world)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    monkeypatch.setattr(world.ranks, "append", no_space)
    assert users(rank(world)) == BY_1
    assert world.metric('boucle_rank_log_dropped_total{model="repurchase"}') == 1


def test_every_status_of_ranking_is_documented(world: World):
    operation = world.http.get("/openapi.json").json()["paths"]["/models/{model}/rank"]["post"]
    assert set(operation["responses"]) == {"200", "401", "403", "404", "408", "413", "422", "429", "500", "503"}


# Two versions, interleaved.


def test_an_interleaved_list_is_the_draft_of_both_orders(world: World):
    interleave(world, good(world))
    for number in range(8):
        document = rank(world, f"r{number}")
        assert [(item.entity_key, item.team) for item in kept(world)[number].items] == expected_draft(f"r{number}")
        assert users(document) == [user for user, _ in expected_draft(f"r{number}")]


def test_every_item_is_in_an_interleaved_list_once_and_the_teams_are_balanced(world: World):
    interleave(world, good(world))
    for number in range(8):
        assert sorted(users(rank(world, f"r{number}"))) == sorted(USERS)
    for record in kept(world):
        assert Counter(item.team for item in record.items) == {Team.A: 3, Team.B: 3}
        assert (record.ranked_by, record.fallback, record.production, record.challenger) == ("both", None, 1, 2)


def test_who_picks_first_differs_over_requests_and_is_the_same_for_a_request_that_is_sent_again(world: World):
    interleave(world, good(world))
    firsts = Counter(users(rank(world, f"r{number}"))[0] for number in range(40))
    assert set(firsts) == {BY_1[0], BY_2[0]}
    assert min(firsts.values()) >= 10
    assert users(rank(world, "again")) == users(rank(world, "again"))


def test_the_record_has_what_both_versions_say_and_the_answer_what_the_picking_one_does(world: World):
    interleave(world, good(world))
    document = rank(world)
    record = only(world)
    for shown, item in zip(document["items"], record.items, strict=True):
        user = shown["user_id"]
        ours, theirs = proba(user, WEIGHTS_1), proba(user, WEIGHTS_2)
        assert (item.production_proba, item.challenger_proba) == (pytest.approx(ours), pytest.approx(theirs))
        assert shown["model_version"] == (2 if item.team is Team.B else 1)
        assert shown["proba"] == pytest.approx(theirs if item.team is Team.B else ours)
        assert shown["prediction_id"] == item.prediction_id


def test_an_interleaved_list_is_no_prediction_of_a_version(world: World):
    interleave(world, good(world))
    rank(world)
    assert (world.logged(), len(kept(world))) == ([], 1)


def test_the_headers_of_an_interleaved_list_say_that_several_ranked(world: World):
    interleave(world, good(world))
    answer = world.http.post(RANK, json={"items": ITEMS})
    assert (answer.headers["x-boucle-model-version"], answer.headers["x-boucle-route"]) == ("several", "several")
    assert world.metric('boucle_requests_total{code="200",model="repurchase",route="challenger",version="2"}') == 3


def test_what_both_rank_alike_is_nobodys_and_answered_by_production(world: World):
    interleave(world, good(world))
    document = rank(world, items=[ITEMS[3], ITEMS[2]])
    assert users(document) == ["3", "4"]
    assert {(item.team, item.challenger_proba is None) for item in only(world).items} == {(None, False)}
    assert {item["model_version"] for item in document["items"]} == {1}


def test_an_interleaved_list_of_a_length_is_the_top_of_the_draft(world: World):
    interleave(world, good(world))
    assert users(rank(world, length=3)) == [user for user, _ in expected_draft("r")][:3]


def test_a_bad_item_of_an_interleaved_list_does_not_lose_the_others(world: World):
    interleave(world, good(world))
    document = rank(world, items=[{"user_id": "99", "as_of": "1997-11-01"}, *ITEMS])
    assert users(document) == [user for user, _ in expected_draft("r")]
    assert [error["index"] for error in document["errors"]] == [0]


def test_single_predictions_are_answered_by_production_while_lists_are_interleaved(world: World):
    interleave(world, good(world))
    assert world.http.post("/predict", json=ITEMS[0]).json()["model_version"] == 1


# A version on trial that goes wrong.


@pytest.mark.parametrize(("bad", "why"), [(crashing, "failed"), (stalling, "stalled")])
def test_a_challenger_that_goes_wrong_leaves_production_s_order(world: World, bad: Any, why: str):
    interleave(world, bad(world))
    document = rank(world)
    assert users(document) == BY_1
    assert {item["model_version"] for item in document["items"]} == {1}
    record = only(world)
    assert (record.ranked_by, record.challenger, record.fallback) == ("production", 2, why)
    assert {(item.team, item.challenger_proba) for item in record.items} == {(None, None)}
    assert world.logged() == []


def test_a_challenger_that_can_score_some_items_only_ranks_none(world: World):
    """It fails on more than two orders: what it says about the others is no order of the list."""
    interleave(world, crashing(world))
    assert users(rank(world, items=ITEMS[:2])) == ["1", "2"]
    rank(world, items=ITEMS[:3])
    assert [record.fallback for record in kept(world)] == [None, "failed"]


def test_a_challenger_that_fails_too_often_in_a_row_is_not_asked(world: World):
    interleave(world, crashing(world))
    for number in range(FAILURES_IN_A_ROW + 2):
        rank(world, f"r{number}")
    assert [record.fallback for record in kept(world)] == ["failed"] * FAILURES_IN_A_ROW + ["cut"] * 2


def test_an_answer_outside_the_contract_is_no_place_in_a_list(world: World):
    digest = put_bundle(world.bundles, world.root / "scratch", weights=WEIGHTS_2, minimum=0.5)
    interleave(world, digest)
    assert users(rank(world)) == BY_1  # it says less than a half about users 2 and 4
    assert only(world).fallback == "failed"


def test_a_challenger_whose_bundle_is_not_there_leaves_production_s_order(world: World):
    interleave(world, Digest("f" * 64))
    assert users(rank(world)) == BY_1
    assert only(world).fallback == "failed"


# Other strategies.


def test_a_whole_list_is_ranked_by_the_arm_drawn_for_the_request(world: World):
    try_version_2(world, good(world), strategy=Strategy.AB, weight=50)
    plan = world.state.plan(MODEL)  # type: ignore[union-attr]
    drawn = {f"r{number}": assign(plan, EntityKey(f"r{number}")).version for number in range(12)}
    assert set(drawn.values()) == {1, 2}
    for request_id, version in drawn.items():
        document = rank(world, request_id)
        assert {item["model_version"] for item in document["items"]} == {version}
        assert users(document) == (BY_1 if version == 1 else BY_2)
    assert Counter(record.ranked_by for record in kept(world)) == Counter(
        "production" if version == 1 else "challenger" for version in drawn.values()
    )
    assert world.logged() == []  # the arm was drawn for the request: its entities are on no side of the test


def test_a_list_of_a_drawn_version_that_goes_wrong_is_production_s(world: World):
    try_version_2(world, crashing(world), strategy=Strategy.AB, weight=100)
    assert users(rank(world)) == BY_1
    assert (only(world).ranked_by, only(world).challenger, only(world).fallback) == ("production", 2, "failed")


def test_a_list_is_not_interleaved_while_the_challenger_is_a_shadow(world: World):
    try_version_2(world, good(world), weight=0, strategy=Strategy.SHADOW)
    assert users(rank(world)) == BY_1
    assert (only(world).challenger, len(world.logged())) == (None, 6)


# Clicks.


def test_clicks_are_feedback_and_say_which_version_is_preferred(world: World):
    interleave(world, good(world))
    document = rank(world)
    theirs = [item for item in document["items"] if item["model_version"] == 2]
    clicks = [
        {"prediction_id": item["prediction_id"], "reward": 1, "at": NOON.isoformat(), "model": MODEL}
        for item in theirs[:2]
    ]
    assert world.http.post("/feedback", json={"feedback": clicks}).status_code == 202
    plans = [plan for plan in world.state.plan_history(MODEL) if plan.rollout]  # type: ignore[union-attr]
    found = preferences(
        world.ranks, world.feedback, MODEL, plans, policy=InterleavingPolicy(), now=NOON + timedelta(hours=24)
    )
    assert (found.challenger, found.production, found.ties) == (1, 0, 0)


def test_the_log_is_whole_json_lines_of_ids_and_numbers(world: World):
    rank(world)
    (file,) = (world.root / "ranks" / MODEL / "one").glob("*.jsonl")
    (line,) = file.read_bytes().splitlines()
    assert set(json.loads(line)) == set(RankRecord.model_fields)
    assert datetime.fromisoformat(json.loads(line)["at"]) == NOON.astimezone(UTC)
    assert len(list(world.ranks.read(MODEL, EARLIEST, LATEST))) == 1
