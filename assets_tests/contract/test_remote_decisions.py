"""`boucle approve --url`, as promote.yml runs it: the step itself, against a real API."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from assets_tests.bundles import MODEL
from assets_tests.contract.test_http import WEIGHTS_1, World
from assets_tests.contract.test_short_way import Server
from assets_tests.scenarios import evidence
from assets_tests.workflows import run_step, step, variables
from boucle.errors import ApprovalError, ConfigurationError
from boucle_adapters.atomic_file import replace_bytes
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.tokens import Role
from boucle_cli.remote import say

pytestmark = pytest.mark.timeout(240)
EVIDENCE = evidence(2, against=1)
STEP = step("promote", "decide", "--url")


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 is in production; 2 was evaluated, and somebody asked to promote it."""
    made = World(tmp_path)
    made.promote(1, weights=WEIGHTS_1)
    replace_bytes(EvidenceFiles(tmp_path / "data").file(EVIDENCE, ".json"), EVIDENCE.canonical())
    made.poll()
    ask = {"version": 2, "evidence_digest": EVIDENCE.digest(), "reason": "calibrated"}
    token = made.tokens.add("user:bob", [Role.APPROVER])
    answer = made.http.post(f"/models/{MODEL}/promote", json=ask, headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 202
    return made


@pytest.fixture
def address(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with Server(world, monkeypatch).running() as server:
        yield "http://{}:{}".format(*server.socket.getsockname())


def the_step(folder: Path, address: str, token: str, **said: str) -> "subprocess.CompletedProcess[str]":
    """The step of promote.yml, with the variables that promote.yml gives it; `said` is by expression."""
    expressions = {
        "secrets.BOUCLE_TOKEN": token,
        "vars.BOUCLE_URL": address,
        "inputs.decision": "approve",
        "inputs.model": MODEL,
        "inputs.version": "2",
        "inputs.evidence": EVIDENCE.digest(),
        "inputs.reason": "read it; $(touch /tmp/no)",
        "github.server_url": "https://ci",
        "github.repository": "boucle/boucle",
        "github.run_id": "1",
    }
    return run_step(STEP, folder, **variables("promote", "decide", "--url", {**expressions, **said}))


def test_the_step_puts_the_approval_on_record_with_who_asked(world: World, address: str, tmp_path: Path):
    token = world.tokens.add("user:ada", [Role.APPROVER])
    done = the_step(tmp_path, address, token)
    assert done.returncode == 0, done.stderr
    row = world.state.decisions(MODEL)[-1].decision
    assert (row.kind, row.actor, row.subject_version) == ("approve", "user:ada", 2)
    assert row.reason == "read it; $(touch /tmp/no) (asked by ada, https://ci/boucle/boucle/actions/runs/1)"
    assert "approve, version 2, by user:ada" in (tmp_path / "summary.md").read_text()
    assert token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("role", "said", "words"),
    [
        (Role.OPERATOR, {}, "403: 'user:ada' may act as operator, not as approver"),
        (Role.APPROVER, {"vars.BOUCLE_URL": ""}, "--url must be an address"),
    ],
    ids=["a token of another role", "an environment without address"],
)
def test_a_decision_that_was_not_recorded_turns_the_job_red(
    world: World, address: str, tmp_path: Path, role: Role, said: dict[str, str], words: str
):
    before = len(world.state.decisions(MODEL))
    done = the_step(tmp_path, address, world.tokens.add("user:ada", [role]), **said)
    assert done.returncode == 1
    assert words in done.stderr
    assert len(world.state.decisions(MODEL)) == before


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"evidence_digest": "b" * 64}, "409: .*read the new report"),
        ({"version": 3}, "409: There is nothing to approve"),
        ({"reason": ""}, "422: reason"),
    ],
)
def test_what_the_api_refuses_is_said_in_its_words(world: World, address: str, changed: dict[str, object], words: str):
    token = world.tokens.add("user:ada", [Role.APPROVER])
    body = {"version": 2, "evidence_digest": EVIDENCE.digest(), "reason": "read it"} | changed
    with pytest.raises(ApprovalError, match=words):
        say(address, "approve", MODEL, body, token=token)


@pytest.mark.parametrize(
    ("url", "token", "words"),
    [
        ("http://boucle.example.org", "t", "not encrypted"),
        ("http://127.0.0.1.example.org", "t", "not encrypted"),
        ("ftp://boucle.example.org", "t", "must be an address"),
        ("boucle.example.org", "t", "must be an address"),
        ("https://boucle.example.org", "", "BOUCLE_TOKEN"),
    ],
)
def test_no_token_leaves_in_the_open(url: str, token: str, words: str):
    with pytest.raises(ConfigurationError, match=words):
        say(url, "approve", MODEL, {}, token=token)


def test_who_does_not_answer_is_named_and_nobody_is_told_that_it_worked():
    with pytest.raises(ApprovalError, match="Whether anything was recorded is not known"):
        say("http://localhost:9", "approve", MODEL, {}, token="t")


def test_another_service_at_the_address_is_not_taken_for_boucle(world: World, address: str):
    with pytest.raises(ApprovalError, match="404: "):
        say(f"{address}/elsewhere", "approve", MODEL, {}, token="t")
