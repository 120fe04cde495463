"""A promotion that waits for people, through the real jobs, the real sensor and the verbs."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from starlette.testclient import TestClient

from assets_tests.faults.loop_home import MOVED, RETRAIN, SPEC, LoopHome, boucle, copied, opened
from boucle.contracts.ids import ModelVersion
from boucle.errors import ApprovalError
from boucle.operations import approval
from boucle.policy.approval import ApprovalPolicy, PromotionMode
from boucle_adapters.tokens import Role, TokenStore
from boucle_cli import people
from boucle_platform.model_loop.spec import LoopSpec
from boucle_serving.app import create_app
from boucle_serving.main import parts_of

pytestmark = [pytest.mark.loop, pytest.mark.timeout(800)]
PROMOTE, SENSOR = "repurchase_promote", "repurchase_promotion"


def declared(mode: PromotionMode, **approval: object) -> LoopSpec:
    """The shipped model with another section `promotion`."""
    asked = {"mode": mode, "approval": ApprovalPolicy.model_validate(approval)}
    return SPEC.model_copy(update={"promotion": SPEC.promotion.model_copy(update=asked)})


SEMI = declared(PromotionMode.SEMI_AUTOMATIC, approvers=["user:ada"])
MANUAL = declared(PromotionMode.MANUAL)


@pytest.fixture(scope="module")
def waiting_home(evaluated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 passed its gates and waits for approval."""
    path = copied(evaluated, tmp_path_factory.mktemp("approval") / "home")
    with opened(path, SEMI) as loop:
        loop.done(RETRAIN, only=MOVED)
    return path


@pytest.fixture
def waiting(waiting_home: Path, tmp_path: Path) -> Iterator[LoopHome]:
    with opened(copied(waiting_home, tmp_path / "home"), SEMI) as loop:
        yield loop


def tick(loop: LoopHome) -> list[dg.RunRequest]:
    """Evaluate the sensor and execute what it requests."""
    with loop.runner.tick(SENSOR) as requests:
        for request in requests:
            outcome = loop.runner.run_requested(PROMOTE, request)
            assert outcome.succeeded, outcome.error
    return requests


def answer(loop: LoopHome, verb: str, *, who: str = "user:ada", spec: LoopSpec = SEMI) -> dict:
    """A verb, without the job that it would run at once: the sensor's work."""
    deed = {"promote": people.ask, "approve": people.approve, "reject": people.refuse}[verb]

    class NotRun:
        succeeded, error = True, ""

    return deed(loop.home, spec, 1, reason="because", who=who, run=lambda *_: NotRun)


def observations(loop: LoopHome) -> list[dg.AssetObservation]:
    records = loop.runner.instance.fetch_observations(dg.AssetKey(["repurchase", "production_alias"]), limit=5).records
    return [record.asset_observation for record in records]


def test_while_it_waits_the_run_is_green_and_nothing_moved(waiting: LoopHome):
    assert waiting.kinds() == [("request", None)]
    assert (waiting.alias(), waiting.home.state.plan(SPEC.name)) == (None, None)
    (seen,) = observations(waiting)
    assert seen.metadata["what to do"].value == "boucle approve 1 repurchase --reason …"
    assert tick(waiting) == []


def test_an_approval_is_carried_out_by_the_sensor_once(waiting: LoopHome):
    answer(waiting, "approve")
    assert len(tick(waiting)) == 1
    assert waiting.kinds()[:3] == [("request", None), ("approve", None), ("promote", 1)]
    plan = waiting.home.state.plan(SPEC.name)
    assert (waiting.alias(), plan and plan.production.version) == (1, 1)
    assert tick(waiting) == []


def test_the_verb_carries_it_out_itself(waiting: LoopHome):
    done = people.approve(
        waiting.home,
        SEMI,
        1,
        reason="calibrated",
        who="user:ada",
        run=lambda job, tags: waiting.runner.run(job, tags=tags),
    )
    assert (done["failed"], done["production"], waiting.alias()) == (False, 1, 1)
    assert tick(waiting) == []
    found = people.explanation(waiting.home, SEMI, 1)
    assert found["in_production"]
    assert "user:ada (decision 2: calibrated) approved it" in found["answer"]
    assert [str(row.decision.kind) for row in found["decisions"]][:3] == ["request", "approve", "promote"]


def test_one_who_may_not_approve_is_told_and_nothing_moves(waiting: LoopHome):
    with pytest.raises(ApprovalError, match="'user:eve' is not among the approvers"):
        answer(waiting, "approve", who="user:eve")
    assert waiting.kinds() == [("request", None)]


def test_a_refusal_holds_against_a_launch_of_the_alias_alone(waiting: LoopHome):
    answer(waiting, "reject")
    assert tick(waiting) == []
    outcome = waiting.run(PROMOTE)
    assert not outcome.succeeded
    assert "user:ada (decision 2: because) refused it" in outcome.error
    assert waiting.alias() is None
    assert "it was rejected at" in people.explanation(waiting.home, SEMI, 1)["answer"]


def test_one_who_may_not_approve_takes_no_refusal_back(waiting: LoopHome):
    answer(waiting, "reject")
    with pytest.raises(ApprovalError, match=r"was refused by user:ada .* 'user:eve' is not among those who may"):
        answer(waiting, "promote", who="user:eve")
    assert waiting.kinds() == [("request", None), ("reject", None)]


def test_launching_the_alias_alone_does_not_jump_the_queue(waiting: LoopHome):
    assert waiting.run(PROMOTE).succeeded
    assert (waiting.kinds(), waiting.alias()) == ([("request", None)], None)


def test_a_second_evaluation_ends_the_request_and_asks_anew(waiting: LoopHome):
    outcome = waiting.run(RETRAIN, only=("evaluation_report", "production_alias"))
    assert outcome.succeeded, outcome.error
    assert waiting.kinds() == [("request", None)] * 2
    digests = {row.decision.evidence_digest for row in waiting.home.state.decisions(SPEC.name)}
    assert len(digests) == 2


def test_under_manual_a_person_asks_and_the_sensor_carries_it_out(evaluated: Path, tmp_path: Path):
    with opened(copied(evaluated, tmp_path / "home"), MANUAL) as loop:
        loop.done(RETRAIN, only=MOVED)
        assert (loop.kinds(), tick(loop)) == ([], [])
        answer(loop, "promote", spec=MANUAL)
        assert len(tick(loop)) == 1
        assert (loop.kinds()[:2], loop.alias()) == ([("request", None), ("promote", 1)], 1)


def test_an_approval_over_http_is_carried_out_by_the_sensor_and_a_rollback_needs_another_role(waiting: LoopHome):
    tokens = TokenStore(waiting.runner.settings.tokens_file)
    app = create_app(parts_of(waiting.runner.settings, "http://test"))
    http = TestClient(app)
    path, said = f"/models/{SPEC.model}", {"version": 1, "reason": "calibrated"}
    for actor, promoted in (("user:eve", None), ("user:ada", 1)):  # only ada is among the approvers
        bearer = {"authorization": f"Bearer {tokens.add(actor, [Role.APPROVER])}"}
        app.state.tokens.poll()
        assert http.post(f"{path}/approve", json=said, headers=bearer).status_code == 202
        tick(waiting)
        assert waiting.alias() == promoted
    assert http.post(f"{path}/rollback", json={"reason": "no"}, headers=bearer).status_code == 403


BY_RISK = declared(PromotionMode.RISK_BASED)


def test_under_automatic_a_request_over_http_takes_a_refusal_back_and_the_sensor_carries_it_out(
    evaluated: Path, tmp_path: Path
):
    with opened(copied(evaluated, tmp_path / "home")) as loop:
        answer(loop, "reject", spec=SPEC)
        assert not loop.run(PROMOTE).succeeded
        tokens = TokenStore(loop.runner.settings.tokens_file)
        app = create_app(parts_of(loop.runner.settings, "http://test"))
        http = TestClient(app)
        bearer = {"authorization": f"Bearer {tokens.add('user:ada', [Role.APPROVER])}"}
        app.state.tokens.poll()
        evidence = loop.home.evidence.newest(SPEC.name, ModelVersion(1))
        assert evidence is not None
        said = {"version": 1, "evidence_digest": evidence.digest(), "reason": "fair after all"}
        assert http.post(f"/models/{SPEC.model}/promote", json=said, headers=bearer).status_code == 202
        assert len(tick(loop)) == 1
        assert (loop.alias(), tick(loop)) == (1, [])


def test_by_risk_a_first_version_is_high_and_the_author_of_its_code_may_not_approve_it(evaluated: Path, tmp_path: Path):
    with opened(copied(evaluated, tmp_path / "home"), BY_RISK) as loop:
        loop.done(RETRAIN, only=MOVED)
        (request,) = loop.home.state.decisions(SPEC.name)
        author = loop.home.actor("sensor:x", SPEC.name).commit_author
        assert (request.decision.kind, request.decision.requester) == ("request", author)
        assert request.decision.policy == "risk_based, high: semi_automatic"
        found = people.explanation(loop.home, BY_RISK, 1)
        tiers = {row["term"]: row["tier"] for row in found["risk"]}
        # Nothing was learnt from before, all requests would move at once, the newest labels are fresh.
        assert tiers == {
            "criticality": "medium",
            "traffic_share": "medium",
            "data_change": "high",
            "worst_slice_loss": "low",
            "label_age_days": "low",
        }
        if author:  # a checkout without its history knows no author
            with pytest.raises(ApprovalError, match="the author of the code that asked for it"):
                answer(loop, "approve", who=author, spec=BY_RISK)
        answer(loop, "approve", who="user:somebody-else", spec=BY_RISK)
        assert len(tick(loop)) == 1
        assert loop.alias() == 1
        assert "high risk (data_change: high (1 ratio" in loop.home.state.decisions(SPEC.name)[2].decision.reason


def test_the_verbs_explain_and_keep_the_books(in_production: Path, tmp_path: Path):
    with opened(copied(in_production, tmp_path / "home")) as loop:
        told = json.loads(boucle(loop, "explain", "1", "--json").stdout)
        assert (told["in_production"], told["policy"]) == (True, "automatic")
        assert {gate["verdict"] for gate in told["gates"]} == {"passed"}
        shown = json.loads(boucle(loop, "report", "1", "--json").stdout)
        assert (Path(shown["file"]).exists(), shown["verdict"]) == (True, "passed")
        assert boucle(loop, "report", "1", "--markdown").stdout.startswith("### repurchase, version 1: passed")
        assert boucle(loop, "report", "1").stdout.strip() == told["report"] == shown["file"]
        again = boucle(loop, "promote", "1", "--reason", "sure?")
        assert (again.returncode, "production already" in again.stdout) == (0, True), again.stdout + again.stderr
        unknown = boucle(loop, "explain", "9")
        assert (unknown.returncode, "Traceback" in unknown.stderr) == (1, False), unknown.stderr
        for words in (("approve", "1"), ("reject", "1"), ("promote", "9"), ("reject", "9")):
            refused = boucle(loop, *words, "--reason", "no")
            assert (refused.returncode, "Traceback" in refused.stderr) == (1, False), refused.stderr
        assert len(loop.kinds()) == 1


def test_history_knows_what_was_in_production_at_a_moment(in_production: Path, tmp_path: Path):
    with opened(copied(in_production, tmp_path / "home")) as loop:
        (move,) = loop.home.state.decisions(SPEC.name)
        moment = move.decision.at.isoformat()
        assert json.loads(boucle(loop, "history", "--at", moment, "--json").stdout)["production"] == 1
        assert json.loads(boucle(loop, "history", "--at", "1996-01-01", "--json").stdout) is None
        wrong = boucle(loop, "history", "--at", "yesterday")
        assert (wrong.returncode, "'yesterday'" in wrong.stderr) == (1, True), wrong.stderr


def test_an_export_shows_what_was_cut_off_or_written_anew_since(in_production: Path, tmp_path: Path):
    with opened(copied(in_production, tmp_path / "home")) as loop:
        file = tmp_path / "audit.jsonl"
        written = boucle(loop, "export-audit", "--to", str(file))
        assert written.returncode == 0, written.stderr
        assert boucle(loop, "export-audit").stdout == file.read_text()
        assert boucle(loop, "export-audit", "--verify", str(file)).returncode == 0
        for damage, words in (
            (lambda lines: [lines[0].replace("automatic", "manual"), *lines[1:]], "was changed after it was written"),
            (lambda lines: lines[1:], "its last line speaks of 1 decisions"),
            (lambda lines: lines[:-1], "its end is missing"),
        ):
            other = tmp_path / "other.jsonl"
            other.write_text("\n".join(damage(file.read_text().splitlines())) + "\n")
            told = boucle(loop, "export-audit", "--verify", str(other))
            assert (told.returncode, words in " ".join(told.stderr.split())) == (1, True), told.stderr
        loop.home.state.close()
        (loop.path / "state.db").unlink()
        cut = boucle(loop, "export-audit", "--verify", str(file))
        assert (cut.returncode, "rows at the end were deleted" in " ".join(cut.stderr.split())) == (1, True), cut.stderr


def test_an_export_with_a_reason_of_any_letters_is_whole(in_production: Path, tmp_path: Path):
    with opened(copied(in_production, tmp_path / "home")) as loop:
        odd = "a reason with\u2028other ends of\x85lines"
        approval.refuse_version(
            loop.home.state, SPEC.name, ModelVersion(7), actor=loop.home.actor("user:ada", SPEC.name), reason=odd
        )
        file = tmp_path / "audit.jsonl"
        for option in ("--to", "--verify"):
            done = boucle(loop, "export-audit", option, str(file))
            assert done.returncode == 0, done.stderr
