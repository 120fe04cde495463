"""The workflow on pull requests runs what exists, what is fast, and actions that nobody can exchange."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]


def test_each_push_and_each_pull_request_starts_it():
    assert set(CI[True]) == {"push", "pull_request"}  # YAML reads the key `on` as true


def test_a_pull_request_gets_checks_fast_tests_and_gates_on_a_sample_in_this_order():
    found = commands(CI["jobs"]["fast"])
    wanted = ["make install", "make check", "make test-fast", ".venv/bin/boucle check"]
    assert [next(w for w in wanted if command.startswith(w)) for command in found] == wanted
    assert "if" not in CI["jobs"]["fast"]


def test_loop_and_fault_tests_run_on_main_only():
    job = CI["jobs"]["everything"]
    assert job["if"] == "github.event_name == 'push' && github.ref == 'refs/heads/main'"
    assert [command.split()[:2] for command in commands(job)] == [["make", "test"]]


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_make_target_it_runs_exists(file: Path):
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    asked = {word for job in jobs for text in commands(job) for word in re.findall(r"\bmake ([a-z-]+)", text)}
    assert asked <= TARGETS


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_every_action_is_pinned_to_a_commit_and_says_which_release_that_is(file: Path):
    used = re.findall(r"uses: (.*)", file.read_text())
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", line)] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_no_job_may_write_or_run_for_ever(file: Path):
    workflow = yaml.safe_load(file.read_text())
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert set(job["permissions"].values()) <= {"read"}
        assert job["timeout-minutes"] <= 60
