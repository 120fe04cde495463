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
NONE = (
    f"`docker info` does not answer, and there is no helper at {HELPER} (BOUCLE_CONTAINERS names one): no image "
    "was built, no service was started. Install Docker and run `make smoke` again before you trust the stack."
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
        words = ("build", "--network", "host", *(("-q",) if not os.environ.get("CI") else ()))
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
def found() -> Iterator[Engine | None]:
    """The engine, or None where there is neither one nor a helper. One that the helper started is removed again."""
    if _answers(os.environ):
        yield Engine(private="boucle-containers" in os.environ.get("DOCKER_HOST", ""))
        return
    if not os.access(HELPER, os.X_OK):
        yield None
        return
    try:
        _helper("up")
        yield Engine(private=True, environment=_environment())
    finally:
        _helper("down")


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        done = subprocess.run(["docker", "info"], env=environment, capture_output=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _helper(*words: str) -> None:
    sys.stderr.write(f"smoke: {HELPER.name} {' '.join(words)} …\n")
    done = subprocess.run([str(HELPER), *words], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{HELPER} {' '.join(words)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def _environment() -> dict[str, str]:
    script: Sequence[str] = ["bash", "-c", f'eval "$("{HELPER}" env)"; env -0']
    done = subprocess.run(script, capture_output=True, text=True, timeout=30, check=True)
    return dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
