"""Settings come from the environment; a wrong one stops the start with its name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boucle.errors import ConfigurationError
from boucle_adapters.settings import TELEMETRY_OFF, WELL_KNOWN_PASSWORDS, Settings, quiet_environment


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


@pytest.mark.timeout(240)
def test_a_wrong_value_ends_a_verb_with_a_message_and_no_traceback(tmp_path: Path):
    environment = {**os.environ, "BOUCLE_HOME": str(tmp_path), "BOUCLE_PORT": "many"}
    command = [str(Path(sys.executable).with_name("boucle")), "status"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
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


def environment(project: Path, name: str, text: str) -> Path:
    file = project / "platform" / "deploy" / "environments" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.fixture
def prod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BOUCLE_PROJECT_DIR", str(tmp_path))
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", "prod")
    return environment(tmp_path, "prod", "port: 9000\nlog_level: error\n")


def test_the_file_of_the_environment_says_what_no_variable_says(prod: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_LOG_LEVEL", "debug")
    assert (Settings().port, Settings().log_level) == (9000, "debug")


def test_a_wrong_line_of_the_file_is_refused_with_the_file_its_name_and_its_value(prod: Path):
    prod.write_text("port: many\nlog_levle: info\n")
    with pytest.raises(ConfigurationError, match=rf"{prod}: port: .*it is 'many'.*{prod}: log_levle: .*Nothing was"):
        Settings()


def test_a_wrong_line_is_not_blamed_on_a_variable_that_is_empty(prod: Path, monkeypatch: pytest.MonkeyPatch):
    prod.write_text("log_level: loud\n")
    monkeypatch.setenv("BOUCLE_LOG_LEVEL", "")  # as compose.yaml passes what nobody set
    with pytest.raises(ConfigurationError, match=rf"^{prod}: log_level: "):
        Settings()


def test_a_wrong_variable_is_not_blamed_on_the_file(prod: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_PORT", "many")
    with pytest.raises(ConfigurationError, match=r"^BOUCLE_PORT: "):
        Settings()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- port", "must be `name: value` lines"),
        ("port: [", "cannot be read"),
        ("database_password: s3cret", "does not belong into a file that is committed"),
    ],
)
def test_a_file_that_is_no_list_of_settings_stops_the_start(prod: Path, text: str, said: str):
    prod.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        Settings()


def test_an_environment_that_is_none_stops_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", "production")
    with pytest.raises(ConfigurationError, match="no environment 'production'; there are dev, staging, prod"):
        Settings()


@pytest.mark.parametrize(
    ("profiles", "environment"), [("prod,grafana", "prod"), ("grafana", "dev"), (" grafana , staging", "staging")]
)
def test_compose_hands_its_profiles_on_and_one_of_them_is_the_environment(
    profiles: str, environment: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", profiles)
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", "of-its-own")
    settings = Settings()
    assert (settings.environment, settings.code_server) == (environment, "code:4000")


def test_two_environments_at_once_are_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", "dev,prod")
    with pytest.raises(ConfigurationError, match="no environment 'dev,prod'"):
        Settings()


def test_the_password_is_put_where_an_address_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "password").write_text("a@b/:\n")
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    settings = Settings(state_url="postgresql://boucle@db/boucle", dagster_url="postgresql://boucle:own@db/dagster")
    assert settings.state_store_url == "postgresql://boucle:a%40b%2F%3A@db/boucle"
    assert settings.dagster_store == "postgresql://boucle:own@db/dagster"
    assert Settings().state_store_url.startswith("sqlite:///")


def test_a_password_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD_FILE", str(tmp_path / "gone"))
    with pytest.raises(ConfigurationError, match=r"BOUCLE_DATABASE_PASSWORD_FILE: .*gone cannot be read"):
        _ = Settings(state_url="postgresql://boucle@db/boucle").state_store_url


@pytest.mark.parametrize("name", ["staging", "prod"])
@pytest.mark.parametrize(
    ("password", "said"),
    [("", "not set"), ("boucle-dev", "one that everybody knows"), (" Admin\n", "one that everybody knows")],
)
def test_no_default_password_in_staging_or_production(
    name: str, password: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", name)
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", password)
    with pytest.raises(ConfigurationError, match=f"BOUCLE_DATABASE_PASSWORD: {name} needs .* it is {said}"):
        Settings()
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", "of-its-own")
    assert Settings().environment == name


def test_the_database_is_not_made_under_a_known_password_when_the_addresses_have_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "password").write_text("boucle-dev\n")
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    own = "postgresql://boucle:of-its-own@db/boucle"
    urls = {"state_url": own, "dagster_url": own, "mlflow_store_url": own}
    assert Settings(environment="dev", **urls).environment == "dev"
    with pytest.raises(ConfigurationError, match=r"one that everybody knows.*compose: DATABASE_PASSWORD_FILE"):
        Settings(environment="prod", **urls)


@pytest.mark.parametrize("name", ["staging", "prod"])
def test_where_strangers_call_they_need_a_key_and_have_a_budget(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", name)
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", "of-its-own")
    found = Settings()
    assert found.require_api_key
    assert found.requests_per_second > 0


@pytest.mark.parametrize(("password", "said"), [("\n", "not set"), ("boucle-dev\n", "one that everybody knows")])
def test_grafana_has_no_default_password_in_production(
    password: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "grafana"
    file.write_text(password)
    monkeypatch.setenv("BOUCLE_GRAFANA_PASSWORD_FILE", str(file))
    assert Settings(environment="dev").grafana_password_file == file
    with pytest.raises(ConfigurationError, match=f"BOUCLE_GRAFANA_PASSWORD_FILE: prod needs .* is {said}"):
        Settings(environment="prod")
    file.write_text("of-its-own\n")
    assert Settings(environment="prod").environment == "prod"


def test_the_password_of_the_stack_on_a_laptop_is_one_that_production_refuses():
    shipped = Path(__file__).parents[2] / "platform" / "deploy" / "environments" / "dev-database-password"
    assert shipped.read_text().strip() in WELL_KNOWN_PASSWORDS


def test_a_password_is_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", "s3cret")
    assert "s3cret" not in repr(Settings())
