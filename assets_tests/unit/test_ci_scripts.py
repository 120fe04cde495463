"""What workflows run besides make and boucle: summary, floor of coverage, notes, the comment on a fork's run."""

import importlib.util
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from assets_tests.workflows import ROOT, run_step, step, variables

CI = ROOT / ".ci"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"ci_{name}", CI / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


comment, floor, junit, release = map(load, ("sticky_comment", "coverage_floor", "junit_summary", "release_notes"))

JUNIT = """<testsuites><testsuite name="pytest" tests="3" failures="1" errors="0" skipped="1" time="2.4">
<testcase classname="a" name="good"/><testcase classname="a" name="bad`x"><failure>no</failure></testcase>
<testcase classname="a" name="left"><skipped/></testcase></testsuite></testsuites>"""
SHA = "a" * 40
REPORT = "### repurchase, version 1: passed\n\n| gate | measured |\n| --- | --- |\n| auc | 0.8 |\n"


def test_the_summary_counts_and_names_what_failed(tmp_path: Path):
    (tmp_path / "unit.xml").write_text(JUNIT)
    text = junit.summary(tmp_path)
    assert "| unit | 3 | 1 | 0 | 1 | 2 |" in text
    assert "- failed: `a::bad'x`" in text


def test_a_job_without_reports_says_so(tmp_path: Path):
    assert "No JUnit file was written" in junit.summary(tmp_path / "missing")


TOTALS = {"covered_lines": 95, "num_statements": 100, "covered_branches": 19, "num_branches": 20}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, []),
        ({"covered_lines": 94}, ["lines: 94 of 100 were reached, at least 95 % must be."]),
        ({"covered_branches": 18}, ["branches: 18 of 20 were reached, at least 95 % must be."]),
        ({"num_statements": 0, "covered_lines": 0}, ["lines: 0 of 0 were reached, at least 95 % must be."]),
    ],
    ids=["at the floor", "too few lines", "too few branches, which many lines would hide", "nothing was measured"],
)
def test_lines_and_branches_each_have_the_floor(changed: dict[str, float], words: list[str]):
    assert floor.shortfalls(TOTALS | changed, 95) == words


def test_coverage_below_the_floor_is_exit_code_1_and_names_the_lines(tmp_path: Path, monkeypatch, capsys):
    file = tmp_path / "coverage.json"
    measured = {"missing_lines": [7], "missing_branches": [[7, 9]]}
    file.write_text(json.dumps({"totals": TOTALS | {"covered_lines": 50}, "files": {"boucle/a.py": measured}}))
    monkeypatch.setattr("sys.argv", ["coverage_floor.py", str(file), "95"])
    assert floor.main() == 1
    assert "boucle/a.py: 7, (7, 9)" in capsys.readouterr().out


def test_notes_are_the_section_of_that_release():
    text = "# Changelog\n\n## 0.2.0\n\n- new\n\n## 0.1.0\n\n- old\n"
    assert release.notes(text, "0.2.0") == "- new\n"
    assert release.notes(text, "0.1.0") == "- old\n"
    with pytest.raises(ValueError, match=r"nothing under '## 0\.1'"):
        release.notes(text, "0.1")


def test_a_tag_that_is_not_the_package_s_version_releases_nothing(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["release_notes.py", "v9.9.9"])
    assert release.main() == 1
    assert "The tag says 9.9.9" in capsys.readouterr().err


def test_this_release_has_notes(monkeypatch, capsys):
    import tomllib

    version = tomllib.loads((CI.parent / "pyproject.toml").read_text())["project"]["version"]
    monkeypatch.setattr("sys.argv", ["release_notes.py", f"v{version}"])
    assert release.main() == 0
    assert capsys.readouterr().out.startswith("- ")


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
        ("![x](https://evil/x.png)", "!&#91;x&#93;(https:&#8203;//evil/x.png)"),
        ("ping @maintainers, see #12", "ping @&#8203;maintainers, see #&#8203;12"),
        ("foo@-evil.example", "foo@&#8203;-evil.example"),
        ("_www.evil.example/x_", "_www&#8203;.evil.example/x_"),
        ("_Gh-12", "_Gh-&#8203;12"),
        (f"{comment.MARKER}", "&lt;!-- boucle: model report --&gt;"),
        (REPORT, REPORT),
    ],
    ids=[
        "HTML",
        "a picture that tells who looks",
        "mentions",
        "an address",
        "a bare link",
        "an issue",
        "our own marker",
        "a plain report",
    ],
)
def test_a_report_is_text_and_nothing_else(written: str, kept: str):
    assert comment.harmless(written) == kept


def test_control_characters_are_refused():
    with pytest.raises(comment.RefusedError, match="control characters"):
        comment.harmless("good\x1b[2J")


def handed_over(folder: Path, **files: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name.replace('_', '-', 2)}.md").write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "0 files"),
        ({f"model_report_{name}": b"x" for name in "abc"}, "3 files"),
        ({"model_report_a": b"x" * 30_001}, "more than 30000"),
        ({"model_report_a": b"\xff"}, "not UTF-8"),
        ({"other": b"x"}, "no model report"),
    ],
)
def test_an_artefact_that_is_not_what_the_gates_write_is_refused(tmp_path: Path, files: dict[str, bytes], words: str):
    with pytest.raises(comment.RefusedError, match=words):
        comment.report_in(handed_over(tmp_path, **files))


def test_a_link_to_a_file_of_the_runner_is_no_report(tmp_path: Path):
    (tmp_path / "model-report-a.md").symlink_to("/etc/passwd")
    with pytest.raises(comment.RefusedError, match="no model report"):
        comment.report_in(tmp_path)


class FakeGitHub:
    """GitHub's API as the script uses it, over real HTTP."""

    def __init__(self) -> None:
        self.pulls = [{"number": 7, "head": {"sha": SHA}}]
        self.comments: list[dict[str, Any]] = []
        self.asked: list[str] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                fake.asked.append(self.path)
                pages = [fake.comments, []]
                self.answer(fake.pulls if "/pulls?" in self.path else pages[int(self.path[-1]) - 1])

            def do_POST(self) -> None:
                fake.add("github-actions[bot]", self.body())
                self.answer(fake.comments[-1])

            def do_PATCH(self) -> None:
                found = next(one for one in fake.comments if self.path.endswith(f"/comments/{one['id']}"))
                found["body"] = self.body()
                self.answer(found)

            def body(self) -> str:
                return str(json.loads(self.rfile.read(int(self.headers["content-length"])))["body"])

            def answer(self, value: object) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, login: str, body: str) -> None:
        number = len(self.comments) + 1
        self.comments.append({"id": number, "user": {"login": login}, "body": body, "html_url": f"page/{number}"})


@pytest.fixture
def github(monkeypatch) -> Iterator[FakeGitHub]:
    fake = FakeGitHub()
    environment = {
        "GITHUB_API_URL": f"http://127.0.0.1:{fake.server.server_port}",
        "GITHUB_REPOSITORY": "boucle/boucle",
        "GITHUB_TOKEN": "t",
        "HEAD_OWNER": "somebody",
        "HEAD_BRANCH": "fix&state=all#1",
        "HEAD_SHA": SHA,
        "RUN_PAGE": "https://github.example/runs/1",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def run(folder: Path, monkeypatch) -> int:
    monkeypatch.setattr("sys.argv", ["sticky_comment.py", str(folder)])
    return int(comment.main())


def test_two_runs_leave_one_comment_with_the_newer_report(tmp_path: Path, github: FakeGitHub, monkeypatch):
    github.add("somebody", comment.MARKER + " looks like ours")
    for auc in (b"0.7", b"0.8"):
        assert run(handed_over(tmp_path, model_report_shop=b"auc " + auc), monkeypatch) == 0
    assert [one["user"]["login"] for one in github.comments] == ["somebody", "github-actions[bot]"]
    assert "auc 0.8" in github.comments[1]["body"]
    assert github.comments[0]["body"].endswith("looks like ours")


def test_the_step_of_the_workflow_posts_the_report_of_the_artefact(tmp_path: Path, github: FakeGitHub, monkeypatch):
    for name in ("GITHUB_TOKEN", "HEAD_OWNER", "HEAD_BRANCH", "HEAD_SHA", "RUN_PAGE"):
        monkeypatch.delenv(name)
    handed_over(tmp_path / "model-report", model_report_shop=b"auc 0.8")
    event = {
        "github.token": "t",
        "github.event.workflow_run.head_repository.owner.login": "somebody",
        "github.event.workflow_run.head_branch": "fix",
        "github.event.workflow_run.head_sha": SHA,
        "github.event.workflow_run.html_url": "https://github.example/runs/1",
    }
    of_the_workflow = variables("model-report", "comment", "sticky_comment", event)
    done = run_step(step("model-report", "comment", "sticky_comment"), tmp_path, **of_the_workflow)
    assert done.returncode == 0, done.stderr
    assert github.asked[0].endswith("head=somebody%3Afix")
    (one,) = github.comments
    assert "auc 0.8" in one["body"]
    assert "(https://github.example/runs/1)" in one["body"]


@pytest.mark.parametrize("folder", ["", "gone"], ids=["empty", "not there"])
def test_a_run_that_ended_before_its_gates_has_nothing_to_say(
    tmp_path: Path, github: FakeGitHub, monkeypatch, capsys, folder: str
):
    assert run(tmp_path / folder, monkeypatch) == 0
    assert "nothing to say" in capsys.readouterr().out
    assert (github.asked, github.comments) == ([], [])


def test_the_name_of_a_fork_s_branch_cannot_change_the_question(tmp_path: Path, github: FakeGitHub, monkeypatch):
    assert run(handed_over(tmp_path, model_report_shop=b"x"), monkeypatch) == 0
    assert github.asked[0].endswith("/pulls?state=open&head=somebody%3Afix%26state%3Dall%231")


def test_a_pull_request_that_went_on_gets_no_old_report(tmp_path: Path, github: FakeGitHub, monkeypatch):
    github.pulls[0]["head"] = {"sha": "b" * 40}
    assert run(handed_over(tmp_path, model_report_shop=b"x"), monkeypatch) == 0
    assert github.comments == []


@pytest.mark.parametrize(("name", "value"), [("HEAD_SHA", "; rm -rf"), ("GITHUB_API_URL", "http://127.0.0.1:9")])
def test_what_cannot_be_posted_is_exit_code_1(tmp_path: Path, github, monkeypatch, capsys, name: str, value: str):
    monkeypatch.setenv(name, value)
    assert run(handed_over(tmp_path, model_report_shop=b"x"), monkeypatch) == 1
    assert "No comment was written" in capsys.readouterr().err
