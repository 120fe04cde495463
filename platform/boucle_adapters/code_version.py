"""Which code and which packages made something: commit, digest of the sources, digest of the environment."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions
from pathlib import Path

COMMIT_FILE = "COMMIT"
"""In the project's folder of an image, which has no git: commit and author, a line each, as its builder said."""
SOURCE_FOLDERS = ("platform", "serving", "dbt_features")
SOURCE_SUFFIXES = (".py", ".sql", ".yaml", ".yml")


@dataclass(frozen=True)
class CodeVersion:
    """`commit` and `author` (an e-mail address) are empty where neither git nor `COMMIT_FILE` knows them.

    `dirty`: sources differ from the commit.
    """

    commit: str
    author: str
    dirty: bool
    source_digest: str

    @property
    def label(self) -> str:
        """The commit, marked when the tree is dirty, or the digest of the sources."""
        if not self.commit:
            return f"sources-{self.source_digest[:12]}"
        return f"{self.commit[:12]}-dirty" if self.dirty else self.commit[:12]


@cache
def code_version(project_dir: Path) -> CodeVersion:
    """The code in `project_dir` now; read once per process."""
    commit = _git(project_dir, "rev-parse", "HEAD")
    if not commit:
        commit, author = _told(project_dir / COMMIT_FILE)
        digest = tree_digest(project_dir, SOURCE_FOLDERS)
        return CodeVersion(commit=commit, author=author, dirty=False, source_digest=digest)
    dirty = bool(_git(project_dir, "status", "--porcelain", "--", *SOURCE_FOLDERS))
    author = _git(project_dir, "log", "-1", "--format=%ae")
    return CodeVersion(
        commit=commit, author=author, dirty=dirty, source_digest=tree_digest(project_dir, SOURCE_FOLDERS)
    )


@cache
def environment_digest() -> str:
    """SHA-256 over the sorted `name==version` of every installed distribution."""
    packages = sorted(f"{name}=={version}" for name, version in installed_packages().items())
    return hashlib.sha256("\n".join(packages).encode()).hexdigest()


@cache
def installed_packages() -> Mapping[str, str]:
    """Version of every installed distribution, by name; read once per process."""
    found = (item.metadata for item in distributions())  # `name` and `version` would each read and parse it again
    return {metadata["Name"].lower(): metadata["Version"] for metadata in found}


def source_files(project_dir: Path) -> dict[str, str]:
    """SHA-256 of every source file that `source_digest` covers, by its path in the project."""
    return {
        str(file.relative_to(project_dir)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in _sources(project_dir, SOURCE_FOLDERS)
    }


def tree_digest(root: Path, folders: tuple[str, ...]) -> str:
    """SHA-256 over the paths and contents of the source files below `folders`."""
    digest = hashlib.sha256()
    for file in _sources(root, folders):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def _sources(root: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders:
        for file in sorted((root / folder).rglob("*")):
            hidden = any(part.startswith(".") or part in {"target", "logs"} for part in file.relative_to(root).parts)
            if file.suffix in SOURCE_SUFFIXES and file.is_file() and not hidden:
                yield file


def _told(file: Path) -> tuple[str, str]:
    """Commit and author of a file with a line each; empty where it does not say."""
    lines = [*(file.read_text().splitlines() if file.is_file() else ()), "", ""]
    return lines[0].strip(), lines[1].strip()


def _git(directory: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(directory), *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
