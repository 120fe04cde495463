"""The workflows run what exists, in the right order, with actions that nobody can exchange and few rights."""

import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer._click.exceptions import UsageError

from assets_tests.workflows import ACTIONS, FILES, ROOT, Command, all_commands, step, steps, workflow
from boucle_cli.main import app

BIN = Path(sys.executable).parent
NAMES = {"ci", "model-gates", "model-report", "newest", "promote", "release", "smoke"}
COMMANDS = all_commands()
ON_EVERY_RUNNER = {"cp", "docker", "gh", "git", "grep", "mkdir", "printf", "sed", "tee"}
# Who may write what, and nothing else may.
WRITES = {
    ("model-report", "comment"): {"pull-requests"},
    ("release", "images"): {"attestations", "id-token", "packages"},
    ("release", "release"): {"contents"},
}
LEVELS = ("unit", "contract", "data", "model", "assets", "dbt", "integration", "loop", "faults")


def jobs() -> list[tuple[str, str, dict[str, Any]]]:
    return [(file.stem, name, job) for file in FILES for name, job in workflow(file.stem)["jobs"].items()]


@cache
def make(*words: str) -> "subprocess.CompletedProcess[str]":
    """What make would run for these words; nothing is run."""
    return subprocess.run(
        ["make", "--dry-run", "--old-file=install", "WORKERS=2", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )


def test_these_workflows_exist():
    assert {file.stem for file in FILES} == NAMES


def test_ci_starts_for_pull_requests_on_main_and_at_night():
    started = workflow("ci")[True]
    assert set(started) == {"push", "pull_request", "schedule"}
    assert started["push"] == {"branches": ["main"]}


def test_cheap_jobs_come_first_and_each_waits_for_the_one_before():
    order = {name: job.get("needs") for name, job in workflow("ci")["jobs"].items()}
    assert order == {
        "checks": None,
        "core": "checks",
        "data": "core",
        "model-gates": "data",
        "integration": "model-gates",
        "smoke": "model-gates",
        "long": "model-gates",
        "supply-chain": None,
    }


def test_a_pull_request_waits_for_everything_but_loop_fault_tests_and_the_audit():
    conditions = {name: job["if"] for name, job in workflow("ci")["jobs"].items() if "if" in job}
    assert conditions == dict.fromkeys(("long", "supply-chain"), "github.event_name != 'pull_request'")


def test_together_the_jobs_of_ci_run_every_level():
    asked = " ".join(str(command) for command in COMMANDS if command.file == "ci")
    core = make("test-core").stdout
    assert [level for level in LEVELS if f"test-{level}" not in asked and f"assets_tests/{level}" not in core] == []


def test_make_test_leaves_no_level_out():
    whole = make("test").stdout
    folders = {file.parent.name for file in (ROOT / "assets_tests").glob("*/test_*.py")} - {"smoke"}
    assert folders == set(LEVELS)
    assert [level for level in LEVELS if f"assets_tests/{level}" not in whole] == []


def test_only_what_checks_the_alert_rules_asks_for_promtool():
    wanting = {
        word for word in (*(f"test-{level}" for level in LEVELS), "rules") if ".ci/promtool" in make(word).stdout
    }
    assert wanting == {"test-contract", "rules"}


def name_of(command: Command) -> str:
    return str(command)


@pytest.mark.parametrize("command", COMMANDS, ids=name_of)
def test_every_command_of_a_workflow_exists_and_takes_these_arguments(command: Command):
    program, *arguments = command.words
    if program == "make":
        planned = make(*arguments)
        assert planned.returncode == 0, planned.stderr
    elif program == ".venv/bin/boucle":
        group = typer.main.get_command(app)
        verb = group.get_command(None, arguments[0])  # type: ignore[attr-defined]
        assert verb is not None, f"boucle has no verb {arguments[0]}"
        verb.make_context(arguments[0], arguments[1:])
    elif program == "python3":
        assert (ROOT / arguments[0]).is_file()
    else:
        assert program in ON_EVERY_RUNNER
        assert shutil.which(program) or program in {"docker", "gh"}
    for option, file in zip(command.words, command.words[1:], strict=False):
        if option == "--file":
            assert (ROOT / file).is_file()


@pytest.mark.parametrize(
    "words",
    ["make test-unitt", ".venv/bin/boucle chekc shop", ".venv/bin/boucle check --selekt gates", "python3 .ci/no.py"],
)
def test_a_command_that_does_not_exist_is_found(words: str):
    with pytest.raises((AssertionError, UsageError)):
        test_every_command_of_a_workflow_exists_and_takes_these_arguments(Command("x", tuple(words.split())))


@pytest.mark.parametrize("file", [*FILES, *ACTIONS], ids=lambda file: f"{file.parent.name}/{file.name}")
def test_every_action_is_ours_or_pinned_to_a_commit_and_says_which_release_that_is(file: Path):
    used = re.findall(r"uses: (.*)", file.read_text())
    assert [
        line
        for line in used
        if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+|\./\.github/(workflows/[\w-]+\.yml|actions/\w+)", line)
    ] == []
    assert [line for line in used if line.startswith("./") and not (ROOT / line).exists()] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_workflow_may_nothing_runs_one_at_a_time_and_stops_where_a_command_of_a_pipe_fails(file: Path):
    found = workflow(file.stem)
    assert found["permissions"] == {}
    assert found["concurrency"]["group"]
    assert found["defaults"]["run"]["shell"] == "bash"


@pytest.mark.parametrize(("file", "name", "job"), jobs(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_job_may_write_only_what_it_must_and_ends(file: str, name: str, job: dict[str, Any]):
    rights = job["permissions"]
    assert {right for right, kind in rights.items() if kind == "write"} == WRITES.get((file, name), set())
    if "uses" not in job:
        assert job["timeout-minutes"] <= 90


def test_every_job_that_tests_shows_and_keeps_its_reports_whatever_happened():
    for file, name, job in jobs():
        runs = " ".join(one.get("run", "") for one in steps(job))
        if re.search(r"make \"?(test|smoke)|boucle check", runs):
            kept = [one for one in steps(job) if one.get("uses") == "./.github/actions/reports"]
            assert [one["if"] for one in kept] == ["always()"], (file, name)


def test_an_action_keeps_its_logs_whatever_happened():
    """In a composite action `failure()` is about the action's own steps, so it is never true there."""
    assert [file for file in ACTIONS if re.search(r"if:.*failure\(\)", file.read_text())] == []


def test_logs_of_services_are_where_they_are_kept_from():
    for file, name, job in jobs():
        for one in steps(job):
            if re.search(r"make (\"?test-\$|test-integration|test( |$))", one.get("run", "").strip()):
                assert "--basetemp=$RUNNER_TEMP/pytest" in one["run"], (file, name)


def test_a_release_asks_for_the_run_of_main_and_names_its_base_by_digest():
    asked = step("release", "allowed", "gh run list")
    assert "--branch main --event push --status success" in asked
    built = step("release", "images", "docker build")
    assert built.index("RepoDigests") < built.index('--build-arg "BASE_IMAGE=$base"')


def test_what_writes_comments_takes_nothing_of_a_pull_request_but_the_artefact():
    """A fork's code runs in `ci` without a right to write; here the right is, and so none of a fork's code."""
    job = workflow("model-report")["jobs"]["comment"]
    assert workflow("model-report")[True] == {"workflow_run": {"workflows": ["ci"], "types": ["completed"]}}
    checkouts = [one["with"] for one in steps(job) if "checkout@" in one.get("uses", "")]
    assert checkouts == [{"ref": "${{ github.event.repository.default_branch }}", "persist-credentials": False}]
    downloads = [one["with"]["path"] for one in steps(job) if "download-artifact@" in one.get("uses", "")]
    assert downloads == ["${{ runner.temp }}/model-report"]
    assert [one["run"] for one in steps(job) if "run" in one] == [
        'python3 .ci/sticky_comment.py "$RUNNER_TEMP/model-report"'
    ]


def test_the_token_that_approves_comes_from_the_environment_that_people_guard():
    job = workflow("promote")["jobs"]["decide"]
    assert job["environment"] == "${{ inputs.environment }}"
    holders = [file.name for file in FILES if "secrets." in file.read_text()]
    assert holders == ["promote.yml"]


def broken(tmp_path: Path, old: str, new: str) -> Path:
    """A copy of the repository's `.github` with one mistake in promote.yml."""
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    file = tmp_path / ".github" / "workflows" / "promote.yml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    return tmp_path


def checked(by: str, folder: Path) -> int:
    """The exit code of one command of `make workflows`, run in another folder."""
    lines = make("workflows").stdout.replace(".venv/bin/", f"{BIN}/").splitlines()
    command = next(line for line in lines if line.startswith(f"{BIN}/{by}"))
    # actionlint finds the root of a repository by its .git.
    (folder / ".git").mkdir()
    return subprocess.run(command, shell=True, cwd=folder, capture_output=True, timeout=240, check=False).returncode


@pytest.mark.parametrize(
    ("old", "new", "found_by"),
    [
        ("timeout-minutes: 10", "timeout: 10", "check-jsonschema"),
        ("inputs.evidence", "inputs.evidense", "actionlint"),
        ("| tee -a", "| tee $X -a", "actionlint"),
        ('"$REASON (asked', '"${{ inputs.reason }} (asked', "zizmor"),
        ("persist-credentials: false", "fetch-depth: 1", "zizmor"),
    ],
    ids=["unknown key", "unknown input", "unquoted variable", "injection", "credentials on the disk"],
)
def test_each_kind_of_mistake_in_a_workflow_is_found(tmp_path: Path, old: str, new: str, found_by: str):
    assert checked(found_by, broken(tmp_path, old, new)) != 0


def test_the_commands_of_the_documentation_are_those_of_the_makefile():
    text = (ROOT / ".github" / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"make ([a-z-]+)", text))
    assert named >= {f"test-{level}" for level in LEVELS}
    assert [target for target in sorted(named) if make(target).returncode != 0] == []


def test_the_step_of_the_gates_writes_what_the_next_steps_take():
    text = step("model-gates", "gates", "boucle check")
    assert "comment/model-report-$MODEL.md" in text
    assert (
        yaml.safe_load((ROOT / ".github/actions/reports/action.yml").read_text())["runs"]["steps"][1]["with"]["path"]
        == "reports"
    )


def test_what_the_threat_model_names_exists():
    text = (ROOT / "platform" / "docs" / "security.md").read_text()
    tests = set(re.findall(r"\b(\w+/test_\w+\.py)", text))
    assert len(tests) > 15
    assert [name for name in sorted(tests) if not (ROOT / "assets_tests" / name).is_file()] == []
    assert [target for target in set(re.findall(r"`make ([a-z-]+)", text)) if make(target).returncode != 0] == []
    verbs = set(re.findall(r"`boucle ([a-z-]+)", text))
    known = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert verbs - set(known) == set()


@pytest.mark.parametrize("image", ["platform", "serving"])
def test_a_bill_of_materials_names_every_locked_package_with_its_version(tmp_path: Path, image: str):
    planned = make("sbom", f"REPORTS={tmp_path}").stdout.splitlines()
    command = next(line for line in planned if f"sbom-{image}" in line)
    subprocess.run(command.replace(".venv/bin/", f"{BIN}/"), shell=True, cwd=ROOT, check=True, timeout=150)
    written = json.loads((tmp_path / f"sbom-{image}.json").read_text())
    locked = re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / f"requirements-{image}.lock").read_text(), re.MULTILINE)
    found = {(part["name"].lower().replace("_", "-"), part["version"]) for part in written["components"]}
    assert {(name.lower(), version) for name, version in locked} == found
    assert written["metadata"]["component"]["name"] == "boucle"


def test_what_signs_an_image_installs_nothing():
    """A package of the environment could ask for the identity; so bills of materials come from a job without it."""
    signs = [job for _, _, job in jobs() if job["permissions"].get("id-token") == "write"]
    assert signs
    installs = r"make |pip|uv |\./\.github/actions/setup"
    assert [
        one for job in signs for one in steps(job) if re.search(installs, f"{one.get('run')} {one.get('uses')}")
    ] == []


def test_each_commit_of_main_has_a_run_of_ci_to_its_end():
    """In a group that commits share, GitHub cancels all that wait but one; only what ci passed can be released."""
    concurrency = workflow("ci")["concurrency"]
    assert concurrency["group"] == "ci-${{ github.event_name == 'pull_request' && github.ref || github.run_id }}"
    assert concurrency["cancel-in-progress"] == "${{ github.event_name == 'pull_request' }}"


def test_the_newest_dagster_is_tried_too(tmp_path: Path):
    text = next(
        one["run"] for one in steps(workflow("newest")["jobs"]["everything"]) if "make lock" in one.get("run", "")
    )
    loosen = next(line for line in text.splitlines() if line.startswith("sed "))
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    subprocess.run(["bash", "-c", loosen], cwd=tmp_path, check=True, timeout=10)
    assert re.findall(r'"dagster[a-z-]*==', (ROOT / "pyproject.toml").read_text())
    assert re.findall(r'"dagster[a-z-]*(?:==|>=)', (tmp_path / "pyproject.toml").read_text()) != []
    assert re.findall(r'"dagster[a-z-]*==', (tmp_path / "pyproject.toml").read_text()) == []
