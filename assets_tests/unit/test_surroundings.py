"""What doctor finds around a home: each thing that is wrong is named, with what to do."""

import json
import os
import re
import socket
from collections import namedtuple
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_adapters.settings import Settings
from boucle_adapters.tokens import Role, TokenStore
from boucle_cli import surroundings

ROOT = Path(__file__).parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def without_boucle_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BOUCLE_")]:
        monkeypatch.delenv(name)


def found(settings: Settings) -> dict[str, str]:
    """What is wrong, by the name of the check."""
    return {one["check"]: one["found"] for one in surroundings.surroundings(settings) if not one["ok"]}


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_embedded_home_has_nothing_wrong_around_it(tmp_path: Path):
    assert found(Settings(home=tmp_path)) == {}


def test_a_variable_that_nothing_reads_is_named_with_what_was_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_TOKEN", "s3cret")
    monkeypatch.setenv("BOUCLE_LOG_LEVLE", "debug")
    said = found(Settings(home=tmp_path))["variables are known"]
    assert "Nothing reads BOUCLE_LOG_LEVLE. Did you mean BOUCLE_LOG_LEVEL?" in said


def test_every_variable_that_is_no_setting_and_is_read_somewhere_is_known():
    folders = ("platform", "serving", "dbt_features", "benchmarks", "assets_tests/smoke")
    files = [
        file for folder in folders for ending in ("py", "yml", "sql") for file in (ROOT / folder).rglob(f"*.{ending}")
    ]
    named = {name for file in files for name in re.findall(r"\bBOUCLE_[A-Z_]*[A-Z]\b", file.read_text())}
    settings = {f"BOUCLE_{name.upper()}" for name in Settings.model_fields}
    assert named - settings == set(surroundings.VARIABLES_OF_OTHERS)


def test_stores_that_do_not_answer_are_named_without_their_password(tmp_path: Path):
    port = closed_port()
    database = f"postgresql://boucle@127.0.0.1:{port}/boucle"
    settings = Settings(
        home=tmp_path,
        state_url=database,
        dagster_url=database,
        mlflow_tracking_uri=f"http://127.0.0.1:{port}",
        database_password="s3cret",
    )
    wrong = found(settings)
    assert set(wrong) == {"state store answers", "Dagster's store answers", "model registry answers"}
    assert all(str(port) in said and "Start it" in said and "s3cret" not in said for said in wrong.values())


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(10, 9, 1024**3))
    assert "1.0 GiB are free at" in found(Settings(home=tmp_path))["disk has room"]


def test_a_port_that_another_program_has_is_wrong_where_no_other_is_taken(tmp_path: Path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert found(Settings(home=tmp_path, port=port)) == {}
        wrong = found(Settings(home=tmp_path, port=port, environment="dev"))
        assert f"127.0.0.1:{port}" in wrong["port is free or ours"]
        ours = {"address": f"http://127.0.0.1:{port}", "pid": 1}
        (tmp_path / "serving-replica-1.json").write_text(json.dumps(ours))
        assert found(Settings(home=tmp_path, port=port, environment="dev")) == {}


def test_production_without_anybody_who_may_decide_is_wrong(tmp_path: Path):
    settings = Settings(home=tmp_path, port=0, environment="prod", require_api_key=True)
    assert "approver, caller, operator" in found(settings)["tokens are there"]
    TokenStore(settings.tokens_file).add("user:ada", [Role.APPROVER, Role.OPERATOR, Role.CALLER])
    assert found(settings) == {}


def test_a_sqlalchemy_that_takes_another_driver_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surroundings, "version", lambda name: "2.1.0")
    assert "SQLAlchemy 2.1.0 takes another Postgres driver" in found(Settings(home=tmp_path))["versions fit"]


@pytest.mark.parametrize(
    ("name", "said"), [("dev", "BOUCLE_ENVIRONMENT is dev"), ("", "BOUCLE_ENVIRONMENT is not set")]
)
def test_another_environment_than_the_expected_one_stops_the_start(
    name: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", name)
    with pytest.raises(ConfigurationError, match=f"{said}, but prod is expected.*BOUCLE_ENVIRONMENT=prod"):
        surroundings.environment(Settings(home=tmp_path), expected="prod")
    assert surroundings.environment(Settings(home=tmp_path), expected=name)
