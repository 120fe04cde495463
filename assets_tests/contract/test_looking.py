"""Who may look at what is served and why: everybody, or, where keys are required, whoever has a token of any role."""

from pathlib import Path

import pytest

from assets_tests.bundles import MODEL, promote, publish_users, write_bundle
from assets_tests.contract.test_http import WEIGHTS_1, WEIGHTS_2, World, assert_problem
from boucle_adapters.tokens import Role, roles_of
from boucle_serving.admission import Limits

LOOKS = (
    "/models", f"/models/{MODEL}/traffic", f"/models/{MODEL}/decisions",
    f"/v2/models/{MODEL}", f"/v2/models/{MODEL}/versions/2",
)  # fmt: skip
OPEN = ("/livez", "/readyz", "/health", "/ping", "/version", "/metrics", "/v2/health/live", "/v2/health/ready")


def world_with(folder: Path, *, require_key: bool) -> World:
    made = World(folder, limits=Limits(require_key=require_key))
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.promote(2, weights=WEIGHTS_2)
    made.poll()
    return made


@pytest.fixture
def locked(tmp_path: Path) -> World:
    return world_with(tmp_path, require_key=True)


@pytest.mark.parametrize("path", LOOKS)
def test_by_default_everybody_may_look(tmp_path: Path, path: str):
    assert world_with(tmp_path, require_key=False).http.get(path).status_code == 200


@pytest.mark.parametrize("path", LOOKS)
@pytest.mark.parametrize("said", ["", "Bearer", "Bearer boucle_wrong", "Basic abc"])
def test_where_keys_are_required_nobody_looks_without_one(locked: World, path: str, said: str):
    document = assert_problem(locked.http.get(path, headers={"authorization": said}), 401, "unauthorized")
    assert "--role viewer" in str(document["detail"])


@pytest.mark.parametrize("role", Role)
def test_every_role_may_look(locked: World, role: Role):
    token = locked.tokens.add("user:ada", [role])
    found = [locked.http.get(path, headers={"authorization": f"Bearer {token}"}).status_code for path in LOOKS]
    assert found == [200] * len(LOOKS)


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_scrapers_need_no_key(locked: World, path: str):
    assert locked.http.get(path).status_code == 200


def test_a_stranger_learns_whether_it_is_ready_and_nothing_of_what_is_wrong(locked: World):
    source = write_bundle(locked.root / "wrong", weights=WEIGHTS_1, expected_offset=1e-6)
    promote(locked.state, version=3, digest=locked.bundles.put(source, MODEL))
    locked.poll()
    told = locked.http.get("/readyz").json()
    assert (told["status"], told["models"], told["missing"]) == ("ready", {}, [])
    assert told["problems"] == ["1 sentence(s), for who may look: ask with a token of any role."]
    token = locked.tokens.add("user:ada", [Role.VIEWER])
    known = locked.http.get("/readyz", headers={"authorization": f"Bearer {token}"}).json()
    assert "recorded request 0" in known["problems"][0]
    assert set(known["models"]) == {MODEL}


def test_a_viewer_may_only_look(locked: World):
    token = locked.tokens.add("service:wallboard", roles_of("service:wallboard", ["viewer"]))
    headers = {"authorization": f"Bearer {token}"}
    back = locked.http.post(f"/models/{MODEL}/rollback", json={"reason": "odd"}, headers=headers)
    assert_problem(back, 403, "forbidden")
    assert_problem(locked.http.post("/predict", json={"user_id": "4"}, headers=headers), 403, "forbidden")
    assert locked.state.production(MODEL) == 2


def test_the_decisions_are_the_ledger_s_rows_with_their_place_in_the_chain(tmp_path: Path):
    world = world_with(tmp_path, require_key=False)
    rows = world.http.get(f"/models/{MODEL}/decisions").json()
    assert [(row["kind"], row["to_version"]) for row in rows] == [("promote", 1), ("promote", 2)]
    assert [row["row_hash"] for row in rows] == [row.row_hash for row in world.state.decisions(MODEL)]
    newest = world.http.get(f"/models/{MODEL}/decisions?newest=1").json()
    assert [row["to_version"] for row in newest] == [2]


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/models/churn/decisions", 404, "unknown-model"),
        (f"/models/{MODEL}/decisions?newest=0", 422, "invalid-request"),
        ("/models/Churn/decisions", 422, "invalid-request"),
    ],
)
def test_what_cannot_be_shown_is_a_problem(tmp_path: Path, path: str, status: int, kind: str):
    world = world_with(tmp_path, require_key=False)
    assert_problem(world.http.get(path), status, kind)
