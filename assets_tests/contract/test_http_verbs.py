"""Decisions over HTTP: who may, what is recorded, and what nobody can do by asking wrongly."""

import json
import stat
from pathlib import Path

import pytest

from assets_tests.bundles import MODEL
from assets_tests.contract.test_http import WEIGHTS_1, WEIGHTS_2, World
from assets_tests.scenarios import evidence
from boucle.contracts.decision import DecisionKind
from boucle.errors import ConfigurationError
from boucle_adapters.atomic_file import replace_bytes
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.tokens import Role, TokenStore, roles_of

EVIDENCE, OTHER = evidence(2, against=1), "b" * 64
REPORT = EVIDENCE.digest()
VERBS = ("promote", "approve", "reject", "rollback", "pin", "unpin")
BODIES = {
    "promote": {"version": 2, "evidence_digest": REPORT, "reason": "calibrated"},
    "approve": {"version": 2, "reason": "calibrated"},
    "reject": {"version": 2, "reason": "unfair"},
    "rollback": {"reason": "answers look wrong"},
    "pin": {"reason": "the sale is on"},
    "unpin": {"reason": "the sale is over"},
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 is in production, 2 was evaluated; Ada approves, Olga operates."""
    made = World(tmp_path)
    made.promote(1, weights=WEIGHTS_1)
    for report in (EVIDENCE, evidence(1)):
        replace_bytes(EvidenceFiles(tmp_path / "data").file(report, ".json"), report.canonical())
    made.poll()
    return made


def say(world: World, verb: str, *, token: str = "", model: str = MODEL, **changes: object):
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return world.http.post(f"/models/{model}/{verb}", json=BODIES[verb] | changes, headers=headers)


def ada(world: World, *roles: Role) -> str:
    return world.tokens.add("user:ada", roles or (Role.APPROVER, Role.OPERATOR))


def kinds(world: World) -> list[str]:
    return [str(row.decision.kind) for row in world.state.decisions(MODEL)]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("token", ["", "boucle_wrong"])
def test_without_a_known_token_nobody_decides(world: World, verb: str, token: str):
    answer = say(world, verb, token=token)
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.json()["type"] == "urn:boucle:problem:unauthorized"
    assert kinds(world) == ["promote"]


@pytest.mark.parametrize(
    ("verb", "role"), [("approve", Role.OPERATOR), ("rollback", Role.APPROVER), ("pin", Role.APPROVER)]
)
def test_a_token_allows_only_what_its_role_does(world: World, verb: str, role: Role):
    answer = say(world, verb, token=ada(world, role))
    assert answer.status_code == 403
    assert f"'user:ada' may act as {role}" in answer.json()["detail"]
    assert kinds(world) == ["promote"]


def test_a_revoked_token_is_worth_nothing(world: World):
    token = ada(world)
    assert world.tokens.revoke("user:ada") == 1
    assert say(world, "reject", token=token).status_code == 401


@pytest.mark.parametrize(
    ("verb", "changes", "field"),
    [
        ("promote", {"reason": ""}, "reason"),
        ("promote", {"evidence_digest": "short"}, "evidence_digest"),
        ("approve", {"version": 0}, "version"),
        ("reject", {"why": "typo"}, "why"),
        ("rollback", {"to": "first"}, "to"),
        ("rollback", {"from": 0}, "from"),
        ("reject", {"model": "%2e%2e"}, "model"),
        ("reject", {"version": 10**30}, "version"),
    ],
)
def test_a_malformed_decision_names_its_field(world: World, verb: str, changes: dict, field: str):
    answer = say(world, verb, token=ada(world), **changes)
    assert answer.status_code == 422
    assert field in {error["field"] for error in answer.json()["errors"]}
    assert kinds(world) == ["promote"]


def test_a_request_and_its_approval_are_bound_to_the_evidence_and_moves_nothing(world: World):
    token = ada(world)
    asked = say(world, "promote", token=token)
    assert asked.status_code == 202
    assert (asked.json()["kind"], asked.json()["production"]) == ("request", 1)
    assert say(world, "approve", token=token, evidence_digest=OTHER).status_code == 409
    approved = say(world, "approve", token=world.tokens.add("user:bob", [Role.APPROVER]), evidence_digest=REPORT)
    assert (approved.status_code, approved.json()["actor"]) == (202, "user:bob")
    rows = [row.decision for row in world.state.decisions(MODEL)][1:]
    assert [(row.kind, row.evidence_digest) for row in rows] == [
        (DecisionKind.REQUEST, REPORT),
        (DecisionKind.APPROVE, REPORT),
    ]
    assert rows[1].seconds == 0
    assert world.state.production(MODEL) == 1


@pytest.mark.parametrize(
    ("verb", "changes", "words"),
    [
        ("approve", {}, "nothing to approve about version 2"),
        ("promote", {"version": 1, "evidence_digest": evidence(1).digest()}, "in production already"),
        ("promote", {"version": 3}, "Version 3 of 'repurchase' has no evaluation report"),
        ("promote", {"evidence_digest": OTHER}, f"has the digest {REPORT}, not {OTHER}: read that one"),
        ("promote", {"model": "churn"}, "Version 2 of 'churn' has no evaluation report"),
        ("reject", {"version": 3}, "has no evaluation report"),
        ("reject", {"evidence_digest": OTHER}, "read that one"),
        ("reject", {"version": 1}, "takes it out"),
        ("rollback", {}, "versions promoted earlier: none"),
        ("rollback", {"to": 7}, "cannot be rolled back from version 1 to version 7"),
        ("rollback", {"from": 2}, "Version 2 of 'repurchase' is not in production, version 1 is"),
    ],
)
def test_what_cannot_be_decided_is_a_conflict_and_leaves_no_row(world: World, verb: str, changes: dict, words: str):
    answer = say(world, verb, token=ada(world), **changes)
    assert answer.status_code == 409
    assert words in answer.json()["detail"]
    assert kinds(world) == ["promote"]


def test_a_refusal_is_a_person_s_word_in_the_ledger(world: World):
    assert say(world, "reject", token=ada(world)).json()["kind"] == "reject"
    row = world.state.decisions(MODEL)[-1].decision
    assert (row.actor, row.reason, row.subject_version, row.dagster_run_id) == ("user:ada", "unfair", 2, "")
    assert row.evidence_digest == REPORT


def test_a_rollback_moves_ledger_and_plan_at_once(world: World):
    world.promote(2, weights=WEIGHTS_2)
    told = say(world, "rollback", token=ada(world, Role.OPERATOR)).json()
    assert (told["kind"], told["version"], told["production"]) == ("rollback", 1, 1)
    assert told["replicas"] == "no live replica; the plan is served as soon as one starts"
    assert world.state.plan(MODEL).production.version == 1


def test_two_operators_who_see_one_incident_undo_it_once(world: World):
    world.promote(2, weights=WEIGHTS_2)
    first, again = (say(world, "rollback", token=ada(world), **{"from": 2}).json() for _ in range(2))
    assert (first["decision"], first["production"]) == (again["decision"], 1)
    bare = say(world, "rollback", token=ada(world))
    assert (bare.status_code, "was rolled back already" in bare.json()["detail"]) == (409, True)
    assert kinds(world).count("rollback") == 1


def test_a_state_store_that_is_away_is_said_and_tried_again(tmp_path: Path):
    world = World(tmp_path, state=None)
    replace_bytes(EvidenceFiles(tmp_path / "data").file(EVIDENCE, ".json"), EVIDENCE.canonical())
    token = ada(world)
    assert say(world, "reject", token=token).status_code == 503
    world.state = World(tmp_path).state
    assert say(world, "reject", token=token).status_code == 200


def test_the_file_holds_digests_for_its_owner_alone(tmp_path: Path):
    store = TokenStore(tmp_path / "tokens.json")
    token = store.add("user:ada", [Role.APPROVER])
    assert token not in store.file.read_text()
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o600
    assert list(json.loads(store.file.read_text()).values()) == [{"actor": "user:ada", "roles": ["approver"]}]


def test_a_torn_file_of_tokens_lets_nobody_in_and_says_what_to_do(tmp_path: Path):
    store = TokenStore(tmp_path / "tokens.json")
    store.file.write_text("{")
    with pytest.raises(ConfigurationError, match="Move it away, run"):
        store.bearer("boucle_x")


@pytest.mark.parametrize(
    ("actor", "names", "words"),
    [
        ("sensor:x", ["approver"], "no person"),
        ("user:ada", [], "none was named"),
        ("user:ada", ["boss"], "not boss"),
    ],
)
def test_a_token_is_a_person_s_and_has_a_role(actor: str, names: list[str], words: str):
    with pytest.raises(ConfigurationError, match=words):
        roles_of(actor, names)


def test_a_pin_is_on_record_and_taken_away_again(world: World):
    token = ada(world)
    pinned = say(world, "pin", token=token)
    assert (pinned.status_code, pinned.json()["kind"], pinned.json()["version"]) == (200, "pin", 1)
    assert say(world, "unpin", token=token).json()["kind"] == "unpin"
    assert say(world, "unpin", token=token).status_code == 409
    assert kinds(world) == ["promote", "pin", "unpin"]
