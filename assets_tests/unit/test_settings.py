"""Settings come from the environment; a wrong one stops the start with its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_adapters.settings import TELEMETRY_OFF, Settings, quiet_environment


@pytest.fixture(autouse=True)
def without_boucle_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BOUCLE_")]:
        monkeypatch.delenv(name)


def test_without_a_word_the_home_is_here_and_everything_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    assert settings.home_dir == tmp_path / ".boucle"
    assert settings.state_store_url == f"sqlite:///{tmp_path / '.boucle' / 'state.db'}"
    assert settings.tracking_uri == f"sqlite:///{tmp_path / '.boucle' / 'mlflow.db'}"
    logs = ("log_dir", "feedback_dir", "shadow_dir", "rank_dir")
    places = ("landing_dir", "warehouse_file", "bundles_dir", "online_dir", "data_dir", "dagster_home", *logs)
    assert all(getattr(settings, name).is_relative_to(settings.home_dir) for name in places)


def test_servers_replace_the_files_of_the_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_STATE_URL", "postgresql://db/boucle")
    monkeypatch.setenv("BOUCLE_MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert (Settings().state_store_url, Settings().tracking_uri) == ("postgresql://db/boucle", "http://mlflow:5000")


def test_a_home_below_the_users_own_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("BOUCLE_HOME", "~/shop")
    assert Settings().home_dir == tmp_path / "shop"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BOUCLE_PORT", "70000"),
        ("BOUCLE_PORT", "-1"),
        ("BOUCLE_PORT", "many"),
        ("BOUCLE_PLAN_POLL_SECONDS", "0"),
        ("BOUCLE_REPLICA_TIMEOUT_SECONDS", "-3"),
    ],
)
def test_a_wrong_value_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"{name}: .*it is .*{value}"):
        Settings()


@pytest.mark.timeout(60)
def test_a_wrong_value_ends_a_verb_with_a_message_and_no_traceback(tmp_path: Path):
    environment = {**os.environ, "BOUCLE_HOME": str(tmp_path), "BOUCLE_PORT": "many"}
    command = [str(Path(sys.executable).with_name("boucle")), "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 1
    assert "BOUCLE_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_telemetry_is_off_unless_the_user_asked_for_it(monkeypatch: pytest.MonkeyPatch):
    for name in TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "false")
    quiet_environment()
    assert os.environ["DAGSTER_DISABLE_TELEMETRY"] == "yes"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
