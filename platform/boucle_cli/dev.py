"""`boucle dev`: Dagster UI and daemon, MLflow UI, the API and the exporter together; one Ctrl-C ends all."""

from contextlib import nullcontext
from dataclasses import dataclass

import dagster as dg

from boucle_adapters.home import Home
from boucle_adapters.settings import Settings, quiet_environment
from boucle_cli.output import ERR, OUT, show_json, show_table
from boucle_cli.services import Service, free_ports, python, running, tool, wait_for_the_first_end, wait_healthy
from boucle_platform.instance import end_dead_runs, prepare_dagster_home


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Wanted ports; a taken one is replaced by a free one, 0 asks for any."""

    dagster: int
    mlflow: int
    api: int
    metrics: int


def services(settings: Settings, ports: Ports) -> list[Service]:
    """The services of a home."""
    api, dagster, mlflow, metrics = free_ports([ports.api, ports.dagster, ports.mlflow, ports.metrics])
    base = "http://127.0.0.1"
    artifacts = str(settings.home_dir / "mlflow_artifacts")
    return [
        Service(
            name="api",
            command=[python(), "-m", "boucle_serving.main"],
            environment={"BOUCLE_PORT": str(api)},
            url=f"{base}:{api}/models",  # /docs stays blank without a network: its page loads scripts from one
            health=f"{base}:{api}/livez",
        ),
        Service(
            name="mlflow",
            command=[
                tool("mlflow"), "server", "--host", "127.0.0.1", "--port", str(mlflow), "--workers", "1",
                "--backend-store-uri", settings.tracking_uri, "--artifacts-destination", artifacts,
            ],
            # boucle submits no jobs to MLflow: without this it starts eight more processes to wait for some.
            environment={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            url=f"{base}:{mlflow}/#/models",
            health=f"{base}:{mlflow}/health",
        ),
        Service(
            name="dagster",
            command=[
                tool("dagster"), "dev", "-w", str(settings.project_dir / "workspace.yaml"),
                "--host", "127.0.0.1", "--port", str(dagster),
                "--log-format", "json" if settings.log_format == "json" else "colored",
            ],
            url=f"{base}:{dagster}",
            health=f"{base}:{dagster}/server_info",
        ),
        Service(
            name="exporter",
            command=[tool("boucle"), "exporter", "--host", "127.0.0.1", "--port", str(metrics)],
            url=f"{base}:{metrics}/metrics",
            health=f"{base}:{metrics}/metrics",
        ),
    ]  # fmt: skip


def dev(settings: Settings, ports: Ports, *, as_json: bool) -> None:
    """Run until Ctrl-C (or SIGTERM).

    Raises:
        ServiceError: One of the services did not come up or ended by itself; the others are ended too.
    """
    quiet_environment()
    prepare_dagster_home(settings)
    with dg.DagsterInstance.get() as instance:
        end_dead_runs(instance)
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
            wait_for_the_first_end(wanted, processes, logs=logs)
        except KeyboardInterrupt:
            ERR.print("ending …")
