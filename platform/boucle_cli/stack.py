"""`boucle start SERVICE`: one service of the stack, in this process, for compose.yaml and orchestrators."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import yaml

from boucle.errors import ConfigurationError
from boucle_adapters import healthy
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli.services import tool

WEBSERVER_PORT, MLFLOW_PORT = 3000, 5000
LOCATION = "boucle"


class StackService(StrEnum):
    """What `boucle start` can start; the API is an image of its own."""

    CODE = "code"
    WEBSERVER = "webserver"
    DAEMON = "daemon"
    MLFLOW = "mlflow"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A command, and how its health is asked."""

    command: Sequence[str]
    health: Mapping[str, str]


def start(settings: Settings, service: StackService) -> None:
    """Prepare what the service needs, then become it.

    Raises:
        ConfigurationError: Dagster's services have no common store, or a setting is wrong.
    """
    quiet_environment()
    if service is StackService.MLFLOW:
        os.environ["MLFLOW_BACKEND_STORE_URI"] = settings.mlflow_store
        # boucle submits no jobs to MLflow: without this it starts eight more processes to wait for some.
        os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    else:
        _prepare_dagster(settings, service)
    chosen = command_of(settings, service)
    healthy.note(chosen.health)
    sys.stdout.flush()
    os.execv(chosen.command[0], list(chosen.command))  # noqa: S606 - signals and exit code are the service's own


def command_of(settings: Settings, service: StackService) -> Start:
    """How a service is started with these settings."""
    code_port, level = settings.code_server.rpartition(":")[2], settings.log_level
    if service is StackService.CODE:
        return Start(
            command=[
                tool("dagster"), "api", "grpc", "-m", "boucle_platform.definitions", "--location-name", LOCATION,
                "-h", settings.host, "-p", code_port, "--log-level", level,
            ],
            health={"address": f"127.0.0.1:{code_port}"},
        )  # fmt: skip
    if service is StackService.WEBSERVER:
        return Start(
            command=[
                tool("dagster-webserver"), "-w", str(workspace_file(settings)), "-h", settings.host,
                "-p", str(WEBSERVER_PORT), "--uvicorn-log-level", level, "--dagster-log-level", level,
            ],
            health={"url": f"http://127.0.0.1:{WEBSERVER_PORT}/server_info"},
        )  # fmt: skip
    if service is StackService.DAEMON:
        command = [tool("dagster-daemon"), "run", "-w", str(workspace_file(settings)), "--log-level", level]
        return Start(command=command, health={"heartbeat": "sensors"})
    return Start(
        command=[
            tool("mlflow"), "server", "--host", settings.host, "--port", str(MLFLOW_PORT), "--workers", "1",
            "--artifacts-destination", str(settings.home_dir / "mlflow_artifacts"),
            "--allowed-hosts", settings.mlflow_allowed_hosts,
        ],
        health={"url": f"http://127.0.0.1:{MLFLOW_PORT}/health"},
    )  # fmt: skip


def workspace_file(settings: Settings) -> Path:
    """Where webserver and daemon find the code server; the name of the location is the same in every environment."""
    host, _, port = settings.code_server.rpartition(":")
    server = {"host": host, "port": int(port), "location_name": LOCATION}
    file = Path(tempfile.gettempdir(), "boucle-workspace.yaml")
    file.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))
    return file


def _prepare_dagster(settings: Settings, service: StackService) -> None:
    import dagster as dg

    from boucle_platform import runs_left_behind
    from boucle_platform.instance import prepare_dagster_home

    if not settings.dagster_url:
        raise ConfigurationError(
            f"BOUCLE_DAGSTER_URL: `boucle start {service}` shares runs and events with the other services by Postgres; "
            "set it to postgresql://…, or run them all on this machine with `boucle dev`. Nothing was started."
        )
    prepare_dagster_home(settings)
    if service is StackService.CODE:
        # The first of them: two that set up an empty database at the same moment would be in each other's way.
        with dg.DagsterInstance.get() as instance:
            left = runs_left_behind.runs_of_code_server(instance)
        if left:
            address = f"127.0.0.1:{settings.code_server.rpartition(':')[2]}"
            # It outlives this program, which becomes the code server that it waits for.
            subprocess.Popen([sys.executable, "-m", runs_left_behind.__name__, address, *left], start_new_session=True)
        Home(settings).state.close()
