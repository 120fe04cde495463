"""The workflows of .github as tests need them: jobs, steps, and the commands of each `run:`, one by one."""

import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONS = sorted((ROOT / ".github" / "actions").glob("*/action.yml"))
# What GitHub's runner sets.
RUNNER = {
    "GITHUB_ACTOR": "ada",
    "GITHUB_OUTPUT": "/tmp/output",
    "GITHUB_REF_NAME": "v0.1.0",
    "GITHUB_REPOSITORY": "boucle/boucle",
    "GITHUB_SHA": "a" * 40,
    "GITHUB_STEP_SUMMARY": "/tmp/summary",
    "RUNNER_TEMP": "/tmp/runner",
}
_CONTROL = re.compile(r"[|&;()<>]+")
_VARIABLE = re.compile(r"\$\{(\w+)[^}]*\}|\$(\w+)")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_EXPRESSION = re.compile(r"\$\{\{ (.+?) \}\}")


def workflow(name: str) -> dict[Any, Any]:
    """A workflow by its file name, without the ending. YAML reads its key `on` as True."""
    loaded: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / f"{name}.yml").read_text())
    return loaded


def steps(job: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(job.get("steps", []))


def step(name: str, job: str, word: str) -> str:
    """The text of the one `run:` of a job that has this word in it."""
    (found,) = [text for where, text in run_steps() if where == (name, job) and word in text]
    return found


def run_steps() -> list[tuple[tuple[str, str], str]]:
    """Every `run:` with its file and job; the job of a composite action is `action`."""
    found = [
        ((file.stem, name), one)
        for file in FILES
        for name, job in workflow(file.stem)["jobs"].items()
        for one in steps(job)
    ]
    for file in ACTIONS:
        found += [((file.parent.name, "action"), one) for one in yaml.safe_load(file.read_text())["runs"]["steps"]]
    return [(where, str(one["run"]).strip()) for where, one in found if "run" in one]


def environment(loaded: Mapping[Any, Any], job: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, str]:
    """What a step gets from its workflow, from its job and from itself; expressions as they are written."""
    merged = {**loaded.get("env", {}), **job.get("env", {}), **one.get("env", {})}
    return {name: str(value) for name, value in merged.items()}


def variables(name: str, job: str, word: str, said: Mapping[str, str]) -> dict[str, str]:
    """The environment of the one `run:` of a job that has this word in it, each expression replaced by what is said.

    Raises:
        KeyError: Nothing is said of an expression.
    """
    loaded = workflow(name)
    its = loaded["jobs"][job]
    (found,) = [one for one in steps(its) if word in one.get("run", "")]
    given = environment(loaded, its, found)
    return {key: _EXPRESSION.sub(lambda one: said[one.group(1)], value) for key, value in given.items()}


def shell_variables(text: str) -> set[str]:
    """The variables that a script reads and does not set itself."""
    own = re.findall(r"^\s*(\w+)=", text, re.MULTILINE)
    return {braced or bare for braced, bare in _VARIABLE.findall(text)} - set(own)


def run_step(text: str, folder: Path, *, timeout: float = 240, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A `run:` in a folder that has `.venv` and `.ci`, by the shell that GitHub takes; the summary is `summary.md`."""
    for name, place in ((".venv", Path(sys.executable).parents[1]), (".ci", ROOT / ".ci")):
        if not (folder / name).exists():
            (folder / name).symlink_to(place)
    own = {"GITHUB_STEP_SUMMARY": str(folder / "summary.md"), "RUNNER_TEMP": str(folder), "COLUMNS": "400"}
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder,
        env={**os.environ, **RUNNER, **own, **variables},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass(frozen=True)
class Command:
    """One command of a `run:`, as the shell would start it."""

    file: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {shlex.join(self.words)}"


def all_commands() -> list[Command]:
    """Every command that a workflow or a composite action starts, for each value of a matrix and of an input."""
    found = [command for file in FILES for command in _of_workflow(file)]
    for file in ACTIONS:
        for one in yaml.safe_load(file.read_text())["runs"]["steps"]:
            found += commands_of(file.parent.name, one.get("run", ""), RUNNER)
    return list(dict.fromkeys(found))


def _of_workflow(file: Path) -> Iterator[Command]:
    loaded = workflow(file.stem)
    inputs = ((loaded[True] or {}).get("workflow_dispatch") or {}).get("inputs", {})
    asked = {f"inputs.{name}": [str(value) for value in _values(one)] for name, one in inputs.items()}
    for job in loaded["jobs"].values():
        matrix = {f"matrix.{name}": values for name, values in job.get("strategy", {}).get("matrix", {}).items()}
        known = {**asked, **matrix}
        for values in itertools.product(*known.values()):
            said = dict(zip(known, values, strict=True))
            for one in steps(job):
                given = {name: _said(value, said) for name, value in environment(loaded, job, one).items()}
                yield from commands_of(file.stem, one.get("run", ""), RUNNER | given)


def _values(asked: Mapping[str, Any]) -> list[object]:
    return list(asked.get("options", ["3" if asked.get("type") == "number" else asked.get("default", "x")]))


def _said(text: str, known: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{\s*([\w.-]+).*?\}\}", lambda found: known.get(found.group(1), "x"), text)


def commands_of(file: str, text: str, variables: Mapping[str, str]) -> Iterator[Command]:
    """The simple commands of a script without loops and conditions, its variables replaced."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        redirected = False
        for token in [*lexer, ";"]:
            if _CONTROL.fullmatch(token):
                if not redirected and words:
                    yield Command(file, tuple(words))
                words = [] if ">" not in token and "<" not in token else words
                redirected = ">" in token or "<" in token
            elif not redirected and not (not words and _ASSIGNMENT.match(token)):
                words.append(_VARIABLE.sub(lambda v: variables.get(v.group(1) or v.group(2), v.group()), token))
