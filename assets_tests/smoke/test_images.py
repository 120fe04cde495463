"""The two images by themselves: who runs in them, what is in them, what they refuse."""

import os
import subprocess

import pytest

from assets_tests.smoke.engine import Engine
from assets_tests.smoke.stack import PLATFORM, SERVING

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(1500)]

BASE = os.environ.get("BASE_IMAGE", "python:3.11-slim-bookworm")
LIMIT_BYTES = 350 * 1024 * 1024


def size(engine: Engine, image: str) -> int:
    return int(engine.docker("image", "inspect", "-f", "{{.Size}}", image).stdout)


def alone(engine: Engine, image: str, *words: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """A command in an image by itself, as strict as the stack runs it."""
    given = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    strict = ("--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    return engine.docker("run", *strict, *given, image, *words, timeout=120, check=False)


def test_neither_image_runs_as_root(engine: Engine):
    users = {engine.docker("image", "inspect", "-f", "{{.Config.User}}", image).stdout for image in (PLATFORM, SERVING)}
    assert users == {"10001:10001\n"}


def test_serving_adds_at_most_350_mb_to_its_base(engine: Engine):
    if engine.docker("image", "inspect", BASE, check=False).returncode:  # BuildKit keeps what it built on to itself
        engine.docker("pull", "--quiet", BASE, timeout=300)
    assert size(engine, SERVING) - size(engine, BASE) <= LIMIT_BYTES


def test_serving_holds_no_orchestrator_and_no_registry(engine: Engine):
    absent = ["dagster", "mlflow", "dbt", "evidently", "duckdb", "pandas", "boucle_platform", "boucle_cli"]
    code = f"from importlib.util import find_spec; print([n for n in {[*absent, 'onnxruntime']} if find_spec(n)])"
    assert alone(engine, SERVING, "python", "-c", code).stdout.strip() == "['onnxruntime']"


@pytest.mark.parametrize(("password", "said"), [("boucle-dev", "one that everybody knows"), ("", "not set")])
def test_production_does_not_start_with_a_default_password(engine: Engine, password: str, said: str):
    tried = alone(
        engine, PLATFORM, "doctor", "--only", "settings", BOUCLE_ENVIRONMENT="prod", BOUCLE_DATABASE_PASSWORD=password
    )
    assert tried.returncode == 1
    assert said in " ".join(tried.stderr.split())
    assert "Nothing was started" in " ".join(tried.stderr.split())


@pytest.mark.parametrize(
    ("words", "variables", "said"),
    [
        (("--profile", "prod"), {"BOUCLE_ENVIRONMENT": "dev"}, "BOUCLE_ENVIRONMENT is dev, but prod is expected"),
        ((), {"COMPOSE_PROFILES": "prod"}, "prod needs a password of its own for the database"),
    ],
    ids=["a flag beside other settings", "a variable"],
)
def test_a_profile_of_compose_is_the_environment_or_an_error(
    engine: Engine, words: tuple[str, ...], variables: dict[str, str], said: str
):
    free = {name: value for name, value in engine.environment.items() if name != "BOUCLE_ENVIRONMENT"}
    one = Engine(engine.private, {**free, "COMPOSE_PROJECT_NAME": "boucle-profile", **variables})
    services = ("settings", *(("profile-prod",) if words else ()))
    try:
        up = one.docker(
            "compose", *words, "up", "--wait", "--no-build", "--pull", "never", *services, timeout=120, check=False
        )
        logs = one.docker("compose", "--profile", "prod", "logs", "--no-log-prefix", check=False).stdout
        assert up.returncode != 0
        assert said in " ".join(logs.split())
    finally:
        one.docker("compose", "--profile", "prod", "down", "--volumes", check=False)
