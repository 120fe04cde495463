"""Of every `run:` of the workflows it is written here who runs it without GitHub, day or night, or why nobody can."""

import re
import tomllib
from pathlib import Path

import pytest

from assets_tests.workflows import (
    FILES,
    ROOT,
    RUNNER,
    environment,
    run_step,
    run_steps,
    shell_variables,
    step,
    steps,
    workflow,
)

TESTS = ROOT / "assets_tests"
# (file, job): what its `run:` begins with, and the test that runs the text of the step itself.
RUN_BY_A_TEST = {
    ("reports", "action"): {"python3 .ci/junit_summary.py": "unit/test_workflow_steps.py"},
    ("release", "allowed"): {"python3 .ci/release_notes.py": "unit/test_workflow_steps.py"},
    ("model-report", "comment"): {"python3 .ci/sticky_comment.py": "unit/test_ci_scripts.py"},
    ("promote", "decide"): {'.venv/bin/boucle "$DECISION"': "contract/test_remote_decisions.py"},
    ("model-gates", "gates"): {'.venv/bin/boucle check "$MODEL"': "loop/test_boucle_check.py"},
    ("ci", "data"): {
        ".venv/bin/boucle check repurchase": "loop/test_boucle_check.py",
        ".venv/bin/boucle check flight_delay": "loop/test_boucle_check.py",
    },
}
# Nothing but make: `make test` runs the same targets, each level by itself or together with others.
PARTS_OF_MAKE_TEST = {
    ("setup", "action"): {"make install"},
    ("ci", "checks"): {"make check"},
    ("ci", "core"): {"make test-core"},
    ("ci", "data"): {"make test-data test-dbt test-assets"},
    ("ci", "integration"): {"make test-integration ARGS="},
    ("ci", "long"): {'make "test-$LEVEL" ARGS='},
    ("newest", "everything"): {"make test ARGS="},
}
ANOTHER_TARGET = {
    ("ci", "supply-chain"): {"make sbom": "unit/test_workflows.py"},
    ("release", "materials"): {"make sbom": "unit/test_workflows.py"},
}
CANNOT = {
    ("smoke", "smoke"): {
        "docker info": "needs a container engine",
        "make smoke": "needs a container engine; people type the same command",
    },
    ("ci", "supply-chain"): {"make audit": "asks a database of vulnerabilities on the internet"},
    ("newest", "everything"): {"mkdir -p reports": "resolves from the package index, differently each week"},
    ("release", "allowed"): {"gh run list": "asks GitHub for the runs of a commit"},
    ("release", "images"): {"name=": "pushes to a registry"},
    ("release", "release"): {"python3 .ci/release_notes.py": "makes a release on GitHub"},
}


def known() -> list[tuple[tuple[str, str], str]]:
    tables = (RUN_BY_A_TEST, PARTS_OF_MAKE_TEST, ANOTHER_TARGET, CANNOT)
    return [(where, begin) for table in tables for where, begins in table.items() for begin in begins]


def test_of_every_step_it_is_known_who_runs_it():
    unknown = [
        (where, text)
        for where, text in run_steps()
        if sum(place == where and text.startswith(begin) for place, begin in known()) != 1
    ]
    assert unknown == []


def test_nothing_is_said_of_a_step_that_is_gone():
    gone = [
        (place, begin)
        for place, begin in known()
        if not any(place == where and text.startswith(begin) for where, text in run_steps())
    ]
    assert gone == []


def test_where_only_the_target_of_make_is_known_nothing_else_is_run():
    only_make = [
        (where, begin) for table in (PARTS_OF_MAKE_TEST, ANOTHER_TARGET) for where in table for begin in table[where]
    ]
    more = [
        (place, text)
        for place, text in run_steps()
        if any(place == where and text.startswith(begin) for where, begin in only_make)
        and not re.fullmatch(r"make [^;&|<>\n]+", text)
    ]
    assert more == []


def test_every_variable_that_a_step_reads_is_set_by_the_workflow_or_by_the_runner():
    missing = [
        (file, name, variable)
        for file, loaded in [(file.stem, workflow(file.stem)) for file in FILES]
        for name, job in loaded["jobs"].items()
        for one in steps(job)
        for variable in sorted(read_by(one.get("run", "")) - {*RUNNER, *environment(loaded, job, one)})
    ]
    assert missing == []


def read_by(text: str) -> set[str]:
    """The variables of a script, and the one that GitHub's own command line wants."""
    return shell_variables(text) | ({"GH_TOKEN"} if re.search(r"^\s*gh ", text, re.MULTILINE) else set())


def test_each_test_named_here_takes_the_text_of_the_step_from_the_workflow():
    for (file, job), begins in RUN_BY_A_TEST.items():
        for test in begins.values():
            assert re.search(rf'\bstep\("{file}", "{job}"', (TESTS / test).read_text()), (file, job, test)


JUNIT = '<testsuites><testsuite tests="2" failures="1" time="2"><testcase classname="a" name="b"><failure/></testcase>'


@pytest.mark.parametrize(
    ("written", "words"),
    [(f"{JUNIT}</testsuite></testsuites>", "- failed: `a::b`"), ("", "No JUnit file was written")],
    ids=["a test failed", "no test ended"],
)
def test_the_summary_of_a_job_says_what_failed(tmp_path: Path, written: str, words: str):
    if written:
        (tmp_path / "reports").mkdir()
        (tmp_path / "reports" / "core.xml").write_text(written)
    done = run_step(step("reports", "action", "junit_summary"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert words in (tmp_path / "summary.md").read_text()


def test_a_tag_shows_its_notes_and_one_that_is_not_the_package_s_version_ends_the_job(tmp_path: Path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    text = step("release", "allowed", "release_notes")
    done = run_step(text, tmp_path, GITHUB_REF_NAME=f"v{version}")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "summary.md").read_text() == done.stdout != ""
    other = run_step(text, tmp_path, GITHUB_REF_NAME="v99.0.0")
    assert other.returncode == 1, "tee ends well: what fails before it must count"
    assert "make them the same" in other.stderr
