"""Settings: environment to typed values, each default written once, here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from boucle.errors import ConfigurationError

# Dagster, MLflow, dbt and Evidently phone home by default; nothing leaves this machine unless the user asked for it.
TELEMETRY_OFF = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
MLFLOW_TELLS_WARNINGS_ONLY = {"MLFLOW_LOGGING_LEVEL": "WARNING"}
# Its defaults wait for minutes (7 retries of 120 s): a registry that is away must not hold up a rollback.
MLFLOW_GIVES_UP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
# On two cores a two-thread fit of histogram boosting took 85 s, and serving threads fight as well.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


@contextmanager
def own_environment() -> Iterator[None]:
    """For work in a home that is thrown away: a state store or MLflow server that the environment names has no part."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("BOUCLE_")]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Settings(BaseSettings):
    """Where a home keeps its state and on which addresses it answers. Variables: `BOUCLE_HOME`, `BOUCLE_PORT`, …

    `platform/docs/serving.md` says what those of serving mean. `shared_socket` is for `boucle_serving.workers` alone.
    """

    model_config = SettingsConfigDict(env_prefix="BOUCLE_", frozen=True, extra="ignore")

    home: Path = Path(".boucle")
    project_dir: Path = Path(__file__).resolve().parents[2]
    state_url: str = ""
    mlflow_tracking_uri: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    otlp_endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$")
    alert_urls: str = Field(default="", repr=False)
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    replica: str = "replica-1"
    default_model: str = "repurchase"
    plan_poll_seconds: float = Field(default=0.1, gt=0)
    replica_timeout_seconds: float = Field(default=3.0, gt=0)
    workers: int = Field(default=1, ge=1, le=64)
    shared_socket: int | None = None
    require_api_key: bool = False
    requests_per_second: float = Field(default=0.0, ge=0)
    concurrent_requests: int = Field(default=256, ge=1)
    body_seconds: float = Field(default=10.0, gt=0)
    trial_seconds: float = Field(default=0.1, gt=0)
    slow_seconds: float = Field(default=1.0, gt=0)
    log_sync_seconds: float = Field(default=1.0, ge=0)
    log_segment_bytes: int = Field(default=16 * 1024 * 1024, ge=1)
    log_segment_seconds: float = Field(default=3_600.0, gt=0)
    when_log_fails: Literal["refuse", "serve"] = "refuse"

    def __init__(self, **values: Any) -> None:
        """Read the environment. Raises ConfigurationError, which names every variable that is wrong."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = (
                f"BOUCLE_{'_'.join(map(str, e['loc'])).upper()}: {e['msg']} (it is {e['input']!r})"
                for e in error.errors()
            )
            raise ConfigurationError("; ".join(wrong) + ". Nothing was started.") from error

    @property
    def home_dir(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    @property
    def state_store_url(self) -> str:
        """The SQLAlchemy URL of the state store."""
        return self.state_url or f"sqlite:///{self.home_dir / 'state.db'}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home_dir / 'mlflow.db'}"

    @property
    def traces_wanted(self) -> bool:
        """Whether somebody names a place for traces: us, or OpenTelemetry itself."""
        theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        return bool(self.otlp_endpoint) or any(os.environ.get(name) for name in theirs)

    def clock_file(self, model: str) -> Path:
        """The simulated time of a model, where it has one."""
        return self.home_dir / "clock" / f"{model}.json"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own directory: runs, events, schedules."""
        return self.home_dir / "dagster"

    @property
    def landing_dir(self) -> Path:
        """Where source systems put their files: `<landing>/<model>/<source>/<period>.csv`."""
        return self.home_dir / "landing"

    @property
    def warehouse_file(self) -> Path:
        """The DuckDB file, opened by one Dagster step at a time."""
        return self.home_dir / "warehouse.duckdb"

    @property
    def tokens_file(self) -> Path:
        """Who may decide over HTTP: digests of bearer tokens, with actor and roles."""
        return self.home_dir / "tokens.json"

    @property
    def bundles_dir(self) -> Path:
        """Release bundles by digest."""
        return self.home_dir / "bundles"

    @property
    def online_dir(self) -> Path:
        """Online snapshots: `<online>/<model>/<digest>/`."""
        return self.home_dir / "online"

    @property
    def log_dir(self) -> Path:
        """The prediction log: `<log>/<model>/<replica>/<segment>.jsonl`."""
        return self.home_dir / "prediction_log"

    @property
    def feedback_dir(self) -> Path:
        """The feedback log, of all models together: `<log>/all/<replica>/<segment>.jsonl`."""
        return self.home_dir / "feedback_log"

    @property
    def shadow_dir(self) -> Path:
        """What shadows would have answered: `<log>/<model>/<replica>/<segment>.jsonl`."""
        return self.home_dir / "shadow_log"

    @property
    def rank_dir(self) -> Path:
        """Lists that were ranked: `<log>/<model>/<replica>/<segment>.jsonl`."""
        return self.home_dir / "rank_log"

    @property
    def data_dir(self) -> Path:
        """Immutable Parquet snapshots, quarantine, training sets, reports: `<data>/<model>/...`."""
        return self.home_dir / "data"


def quiet_environment() -> None:
    """Switch telemetry off and use one thread per numeric library, unless the user's environment says otherwise."""
    for name, value in {**TELEMETRY_OFF, **MLFLOW_TELLS_WARNINGS_ONLY, **MLFLOW_GIVES_UP, **ONE_THREAD}.items():
        os.environ.setdefault(name, value)
