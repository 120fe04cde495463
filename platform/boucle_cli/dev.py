"""`boucle dev`: Dagster UI and daemon, MLflow UI and the API together; one Ctrl-C ends all."""

import time
from contextlib import nullcontext
from dataclasses import dataclass

from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli.output import OUT, show_json, show_table
from boucle_cli.services import Service, free_port, python, running, tool, wait_healthy
from boucle_platform.instance import prepare_dagster_home


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Wanted ports; a taken one is replaced by a free one, 0 asks for any."""

    dagster: int
    mlflow: int
    api: int


def services(settings: Settings, ports: Ports) -> list[Service]:
    """The three services of a home."""
    api, dagster, mlflow = (free_port(wanted) for wanted in (ports.api, ports.dagster, ports.mlflow))
    base = "http://127.0.0.1"
    artifacts = str(settings.home_dir / "mlflow_artifacts")
    return [
        Service(
            name="api",
            command=["env", f"BOUCLE_PORT={api}", python(), "-m", "boucle_serving.main"],
            url=f"{base}:{api}/docs",
            health=f"{base}:{api}/livez",
        ),
        Service(
            name="mlflow",
            command=[
                tool("mlflow"), "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
                "--backend-store-uri", settings.tracking_uri, "--artifacts-destination", artifacts,
            ],
            url=f"{base}:{mlflow}",
            health=f"{base}:{mlflow}/health",
        ),
        Service(
            name="dagster",
            command=[
                tool("dagster"), "dev", "-w", str(settings.project_dir / "workspace.yaml"),
                "--host", "127.0.0.1", "--port", str(dagster),
            ],
            url=f"{base}:{dagster}",
            health=f"{base}:{dagster}/server_info",
        ),
    ]  # fmt: skip


def dev(settings: Settings, ports: Ports, *, as_json: bool) -> None:
    """Run until Ctrl-C or until one of the services ends."""
    quiet_environment()
    prepare_dagster_home(settings)
    Home(settings).state.close()
    logs = settings.home_dir / "logs"
    wanted = services(settings, ports)
    environment = {"BOUCLE_HOME": str(settings.home_dir), "PYTHONUNBUFFERED": "1"}
    with running(wanted, logs=logs, environment=environment) as processes:
        for service, process in zip(wanted, processes, strict=True):
            with nullcontext() if as_json else OUT.status(f"starting {service.name} …"):
                wait_healthy(service, process, logs=logs)
        rows = [{"service": service.name, "address": service.url} for service in wanted]
        if as_json:
            show_json(rows)
        else:
            show_table("boucle is up", rows, empty="")
            OUT.print(f"Logs: {logs}. Ctrl-C ends all.\nNothing landed yet? Materialise `landing` in the Dagster UI.")
        try:
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
        except KeyboardInterrupt:
            OUT.print("ending …")
