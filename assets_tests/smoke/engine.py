"""A container engine: the one that answers `docker info`, else one that a helper program starts and removes again."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
HELPER = Path(os.environ.get("BOUCLE_CONTAINERS") or ROOT.parent / "shared" / "tools" / "containers")
"""`up` starts an engine with stand-ins for the base images, `env` prints what points to it, `down` ends it."""


class NoEngineError(Exception):
    """There is no container engine; the text says why, and what to do."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"`docker info` does not answer, and {why}: no image was built, no service was started. "
            "Install Docker and run `make smoke` again before you trust the stack."
        )


@dataclass(frozen=True)
class Engine:
    """Where `docker` goes; `private`: it has stand-ins for the base images, and no registry."""

    private: bool
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def docker(self, *words: str, timeout: float = 60, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run `docker`; an unexpected end is an AssertionError with what it said."""
        command = ["docker", *words]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    def build(self, images: Mapping[str, str]) -> None:
        """Build images from their Dockerfiles, at the same time."""
        # The host's network: a private engine has no bridge to the package index.
        words = ["build", "--network", "host", *(("-q",) if not os.environ.get("CI") else ())]
        if base := self.environment.get("BASE_IMAGE"):
            words += ["--build-arg", f"BASE_IMAGE={base}"]
        running = {
            tag: subprocess.Popen(
                ["docker", *words, "-f", file, "-t", tag, "."],
                cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for tag, file in images.items()
        }  # fmt: skip
        said = {tag: process.communicate(timeout=900)[0] for tag, process in running.items()}
        failed = [f"{tag}:\n{said[tag][-5000:]}" for tag, process in running.items() if process.returncode]
        assert not failed, "\n".join(failed)


@contextmanager
def found() -> Iterator[Engine]:
    """The engine. One that the helper started is removed again.

    Raises:
        NoEngineError: There is neither one nor a helper that starts one.
    """
    if _answers(os.environ):
        yield Engine(private="boucle-containers" in os.environ.get("DOCKER_HOST", ""))
        return
    if not os.access(HELPER, os.X_OK):
        raise NoEngineError(f"there is no helper at {HELPER} (BOUCLE_CONTAINERS names one)")
    try:
        if said := _helper("up"):
            raise NoEngineError(f"`{HELPER} up` started none ({said})")
        yield Engine(private=True, environment=_environment())
    finally:
        _helper("down")


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        done = subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _helper(*words: str) -> str:
    """Why it failed, in its last words; empty when it did what it should."""
    sys.stderr.write(f"smoke: {HELPER.name} {' '.join(words)} …\n")
    try:
        done = subprocess.run([str(HELPER), *words], capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"exit code {done.returncode}: {(done.stdout + done.stderr)[-500:].strip()}" if done.returncode else ""


def _environment() -> dict[str, str]:
    script: Sequence[str] = ["bash", "-c", f'eval "$("{HELPER}" env)"; env -0']
    done = subprocess.run(script, capture_output=True, text=True, timeout=30, check=True)
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
