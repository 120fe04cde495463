"""Services of the stack: how each is started and asked, and what an environment changes of a model."""

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

from boucle.errors import ConfigurationError
from boucle.policy.approval import PromotionMode
from boucle_adapters import healthy
from boucle_adapters.environment import ENVIRONMENTS, environment_file
from boucle_adapters.settings import Settings
from boucle_cli.stack import StackService, command_of, start, workspace_file
from boucle_platform.instance import STORE_VARIABLE, dagster_yaml, prepare_dagster_home
from boucle_platform.model_loop.catalogue import spec_of
from boucle_platform.model_loop.in_environment import in_environment, sensor_status

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def without_boucle_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BOUCLE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def answering() -> Iterator[str]:
    """A server that answers 200 on `/well` and 503 elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/well" else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_service_that_answers_is_well(answering: str):
    assert healthy.problem({"url": f"{answering}/well"}) == ""
    assert healthy.problem({"address": answering.removeprefix("http://")}) == ""


def test_a_service_that_answers_with_an_error_or_not_at_all_is_not_well(answering: str):
    assert "503" in healthy.problem({"url": f"{answering}/ill"})
    with socket.socket() as bound:  # bound and not listening: nobody else takes the port, nobody answers
        bound.bind(("127.0.0.1", 0))
        assert "does not answer" in healthy.problem({"address": f"127.0.0.1:{bound.getsockname()[1]}"})


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("path", "code"), [("/well", 0), ("/ill", 1)])
def test_the_health_check_of_a_container_is_an_exit_code(answering: str, path: str, code: int):
    environment = {**os.environ, "BOUCLE_PORT": answering.rpartition(":")[2]}
    command = [sys.executable, "-m", "boucle_adapters.healthy", path]
    assert subprocess.run(command, env=environment, timeout=150, check=False, capture_output=True).returncode == code


@pytest.mark.timeout(240)
def test_the_health_check_asks_at_the_port_that_the_file_of_the_environment_has(answering: str, tmp_path: Path):
    file = environment_file(tmp_path, "prod")
    file.parent.mkdir(parents=True)
    file.write_text(f"port: {answering.rpartition(':')[2]}")
    own = {"BOUCLE_ENVIRONMENT": "prod", "BOUCLE_PROJECT_DIR": str(tmp_path), "BOUCLE_PORT": ""}
    command = [sys.executable, "-m", "boucle_adapters.healthy", "/well"]
    done = subprocess.run(command, env={**os.environ, **own}, timeout=150, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_dagsters_services_need_a_common_store(tmp_path: Path):
    for service in (StackService.CODE, StackService.WEBSERVER, StackService.DAEMON):
        with pytest.raises(ConfigurationError, match=f"BOUCLE_DAGSTER_URL: `boucle start {service}` shares"):
            start(Settings(home=tmp_path), service)


def test_no_command_holds_the_password():
    settings = Settings(dagster_url="postgresql://boucle@db/dagster", database_password="s3cret")
    commands = [command_of(settings, service).command for service in StackService]
    assert "s3cret" not in json.dumps(commands)


def test_the_shared_store_of_dagster_is_named_in_its_file_and_its_password_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(STORE_VARIABLE, "")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("BOUCLE_HOME", "")
    settings = Settings(home=tmp_path, dagster_url="postgresql://boucle@db/dagster", database_password="s3cret")
    text = (prepare_dagster_home(settings) / "dagster.yaml").read_text()
    assert yaml.safe_load(text)["storage"]["custom"]["config"]["postgres_url"] == {"env": STORE_VARIABLE}
    assert os.environ[STORE_VARIABLE] == "postgresql://boucle:s3cret@db/dagster"


def test_both_stores_of_dagster_keep_the_pool_of_the_warehouse():
    for settings in (Settings(), Settings(dagster_url="postgresql://boucle@db/dagster")):
        assert yaml.safe_load(dagster_yaml(settings))["concurrency"]["pools"]["default_limit"] == 1


def test_webserver_and_daemon_find_the_code_server_under_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (entry,) = yaml.safe_load(workspace_file(Settings(code_server="code:4000")).read_text())["load_from"]
    embedded = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert entry["grpc_server"] == {"host": "code", "port": 4000, "location_name": embedded["location_name"]}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_that_is_shipped_can_be_read(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", name)
    settings = Settings(database_password="of-its-own")
    assert settings.state_url
    assert settings.dagster_url
    assert settings.sensors == "running"


def test_production_asks_a_person_where_a_model_moves_by_itself(monkeypatch: pytest.MonkeyPatch):
    assert spec_of("repurchase").promotion.mode is PromotionMode.AUTOMATIC
    monkeypatch.setenv("BOUCLE_ENVIRONMENT", "prod")
    monkeypatch.setenv("BOUCLE_DATABASE_PASSWORD", "of-its-own")
    assert spec_of("repurchase").promotion.mode is PromotionMode.SEMI_AUTOMATIC


def test_an_environment_never_asks_fewer_people_than_the_model(tmp_path: Path):
    spec = spec_of("repurchase")
    for mode in (PromotionMode.MANUAL, PromotionMode.RISK_BASED):
        asked = spec.model_copy(update={"promotion": spec.promotion.model_copy(update={"mode": mode})})
        assert in_environment(asked, Settings(promotion_mode="semi_automatic")).promotion.mode is mode


def test_sensors_run_by_default_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch):
    assert sensor_status() is dg.DefaultSensorStatus.STOPPED
    monkeypatch.setenv("BOUCLE_SENSORS", "running")
    assert sensor_status() is dg.DefaultSensorStatus.RUNNING
