"""Settings: environment to typed values, each default written once, here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import sqlalchemy as sa
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from boucle.errors import ConfigurationError
from boucle_adapters.environment import (
    GUARDED,
    PROJECT_DIR,
    environment_file,
    environment_name,
    environment_values,
    project_dir,
)

# Dagster, MLflow, dbt and Evidently phone home by default; nothing leaves this machine unless the user asked for it.
TELEMETRY_OFF = {
    "DAGSTER_DISABLE_TELEMETRY": "yes",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
# With a server it prints links on standard output, where `--json` has one JSON value and nothing else.
MLFLOW_TELLS_WARNINGS_ONLY = {"MLFLOW_LOGGING_LEVEL": "WARNING", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
# Its defaults wait for minutes (7 retries of 120 s): a registry that is away must not hold up a rollback.
MLFLOW_GIVES_UP = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
# On two cores a two-thread fit of histogram boosting took 85 s, and serving threads fight as well.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
WELL_KNOWN_PASSWORDS = ("boucle", "boucle-dev", "postgres", "password", "changeme", "admin", "secret", "123456")
"""In lower case. `boucle-dev` is that of the stack on a laptop; nobody should meet one in staging or production."""


@contextmanager
def own_environment() -> Iterator[None]:
    """For work in a home that is thrown away: a state store or MLflow server that the environment names has no part.

    A parsed dbt project stays: it holds nothing of a home.
    """
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("BOUCLE_") and name != "BOUCLE_DBT_PARSE_DIR"]:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Settings(BaseSettings):
    """Where a home keeps its state and on which addresses it answers. Variables: `BOUCLE_HOME`, `BOUCLE_PORT`, …

    A variable wins over the file of the environment that `BOUCLE_ENVIRONMENT` names. `platform/docs/serving.md` says
    what those of serving mean, `platform/docs/deployment.md` the others. `shared_socket` is for
    `boucle_serving.workers` alone.
    """

    model_config = SettingsConfigDict(env_prefix="BOUCLE_", frozen=True, extra="forbid", env_ignore_empty=True)

    environment: Literal["", "dev", "staging", "prod"] = ""
    home: Path = Path(".boucle")
    project_dir: Path = PROJECT_DIR
    warehouse_dir: Path | None = None
    dbt_parse_dir: Path | None = None
    state_url: str = ""
    dagster_url: str = ""
    mlflow_store_url: str = ""
    mlflow_tracking_uri: str = ""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"
    otlp_endpoint: str = Field(default="", pattern=r"^(https?://\S+)?$")
    alert_urls: str = Field(default="", repr=False)
    database_password: str = Field(default="", repr=False)
    database_password_file: Path | None = None
    grafana_password_file: Path | None = None
    sensors: Literal["stopped", "running"] = "stopped"
    promotion_mode: Literal["", "semi_automatic", "manual"] = ""
    code_server: str = Field(default="127.0.0.1:4000", pattern=r"^[^:\s]+:\d+$")
    mlflow_allowed_hosts: str = "localhost:*,127.0.0.1:*"
    host: str = "127.0.0.1"
    advertised_host: str = ""
    port: int = Field(default=8000, ge=0, le=65535)
    replica: str = "replica-1"
    default_model: str = "repurchase"
    plan_poll_seconds: float = Field(default=0.1, gt=0)
    replica_timeout_seconds: float = Field(default=3.0, gt=0)
    replica_guard: bool = True
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
        """Read environment and file. Raises ConfigurationError, which names every variable or line that is wrong."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            wrong = "; ".join(_wrong(e["loc"], e["msg"], e["input"]) for e in error.errors())
            raise ConfigurationError(f"{wrong}. Nothing was started.") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then variables, then the file of the environment."""
        file = environment_values(project_dir())
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=file)

    @field_validator("environment", mode="before")
    @classmethod
    def _one_environment(cls, said: str) -> str:
        return environment_name(said)

    @model_validator(mode="after")
    def _no_well_known_password(self) -> Self:
        if self.environment not in GUARDED:
            return self
        urls = filter(_is_server, (self.state_url, self.dagster_url, self.mlflow_store_url))
        asked = [str(sa.make_url(self._with_password(url)).password or "") for url in urls]
        # The database of the stack is made under the password that is given here, whatever the addresses say.
        given = [password] if (password := self._password()) else []
        if why := next(filter(None, map(_known, asked + given)), ""):
            raise ConfigurationError(
                f"BOUCLE_DATABASE_PASSWORD: {self.environment} needs a password of its own for the database; it is "
                f"{why}. Set it, or name a file with it in BOUCLE_DATABASE_PASSWORD_FILE (compose: "
                "DATABASE_PASSWORD_FILE). Nothing was started."
            )
        if (file := self.grafana_password_file) and (why := _known(_password_in(file, "BOUCLE_GRAFANA_PASSWORD_FILE"))):
            raise ConfigurationError(
                f"BOUCLE_GRAFANA_PASSWORD_FILE: {self.environment} needs a password of its own for Grafana; that in "
                f"{file} is {why}. Put another one there (compose: GRAFANA_PASSWORD_FILE). Nothing was started."
            )
        return self

    def _with_password(self, url: str) -> str:
        """The URL with the database's password, where it names a server and no password."""
        if not _is_server(url):
            return url
        parsed = sa.make_url(url)
        if parsed.password is not None or not (password := self._password()):
            return url
        return parsed.set(password=password).render_as_string(hide_password=False)

    def _password(self) -> str:
        if self.database_password or self.database_password_file is None:
            return self.database_password
        return _password_in(self.database_password_file, "BOUCLE_DATABASE_PASSWORD_FILE")

    @property
    def home_dir(self) -> Path:
        """The home as an absolute path."""
        return self.home.expanduser().absolute()

    @property
    def state_store_url(self) -> str:
        """The SQLAlchemy URL of the state store."""
        return self._with_password(self.state_url) or f"sqlite:///{self.home_dir / 'state.db'}"

    @property
    def tracking_uri(self) -> str:
        """MLflow's tracking and registry URI."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.home_dir / 'mlflow.db'}"

    @property
    def traces_wanted(self) -> bool:
        """Whether somebody names a place for traces: us, or OpenTelemetry itself."""
        theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        return bool(self.otlp_endpoint) or any(os.environ.get(name) for name in theirs)

    @property
    def mlflow_store(self) -> str:
        """The SQLAlchemy URL of what the MLflow server keeps."""
        return self._with_password(self.mlflow_store_url) or f"sqlite:///{self.home_dir / 'mlflow.db'}"

    @property
    def dagster_store(self) -> str:
        """The Postgres URL of what Dagster keeps; empty: SQLite files in its home."""
        return self._with_password(self.dagster_url)

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
        folder = self.warehouse_dir.expanduser().absolute() if self.warehouse_dir else self.home_dir
        return folder / "warehouse.duckdb"

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


def _is_server(url: str) -> bool:
    return "://" in url and not url.startswith("sqlite")


def _known(password: str) -> str:
    """Why everybody could know this password; empty when it is one of its own."""
    plain = password.strip().casefold()
    return "not set" if not plain else "one that everybody knows" if plain in WELL_KNOWN_PASSWORDS else ""


def _password_in(file: Path, variable: str) -> str:
    try:
        return file.read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"{variable}: {file} cannot be read ({error.strerror}). Name a file that this user may read. "
            "Nothing was started."
        ) from error


def _wrong(where: tuple[int | str, ...], said: str, value: object) -> str:
    """One wrong setting by the name under which it was given: its variable, or its line in the environment's file."""
    name = "_".join(map(str, where))
    variable = f"BOUCLE_{name.upper()}"
    environment = environment_name(os.environ.get("BOUCLE_ENVIRONMENT", ""))
    project = project_dir()
    in_file = not os.environ.get(variable) and environment and name in environment_values(project)
    place = f"{environment_file(project, environment)}: {name}" if in_file else variable
    return f"{place}: {said} (it is {value!r})"


def quiet_environment() -> None:
    """Switch telemetry off and use one thread per numeric library, unless the user's environment says otherwise."""
    for name, value in {**TELEMETRY_OFF, **MLFLOW_TELLS_WARNINGS_ONLY, **MLFLOW_GIVES_UP, **ONE_THREAD}.items():
        os.environ.setdefault(name, value)
