"""What one environment (dev, staging, prod) says: a YAML file of settings, of which none is a secret."""

import os
from pathlib import Path
from typing import Any

import yaml

from boucle.errors import ConfigurationError

VARIABLE = "BOUCLE_ENVIRONMENT"
ENVIRONMENTS = ("dev", "staging", "prod")
GUARDED = ("staging", "prod")
"""Where a password or token that everybody knows stops the start."""
OTHER_PROFILES = ("grafana",)
"""Of compose.yaml, which hands on COMPOSE_PROFILES where nobody said more: `prod,grafana` is prod, `grafana` is dev."""
SECRETS = ("database_password", "database_password_file", "grafana_password_file", "alert_urls")
"""They come from the environment or from a file that it names: what is committed is read by everybody."""
FOLDER = Path("platform", "deploy", "environments")
PROJECT_DIR = Path(__file__).resolve().parents[2]


def environment_file(project: Path, name: str) -> Path:
    """The file of an environment."""
    return project / FOLDER / f"{name}.yaml"


def project_dir() -> Path:
    """Where the project is."""
    return Path(os.environ.get("BOUCLE_PROJECT_DIR") or PROJECT_DIR)


def environment_name(said: str) -> str:
    """Which environment `BOUCLE_ENVIRONMENT` names, where a list of compose's profiles may stand; empty for none."""
    names = [name.strip() for name in said.split(",") if name.strip()]
    return ",".join(name for name in names if name not in OTHER_PROFILES) or ("dev" if names else "")


def environment_values(project: Path) -> dict[str, Any]:
    """What the file of the environment that `BOUCLE_ENVIRONMENT` names says; nothing where it names none.

    Raises:
        ConfigurationError: There is no such environment, or its file is missing or is no list of settings.
    """
    name = environment_name(os.environ.get(VARIABLE, ""))
    if not name:
        return {}
    if name not in ENVIRONMENTS:
        raise ConfigurationError(
            f"{VARIABLE}: there is no environment '{name}'; there are {', '.join(ENVIRONMENTS)}. Nothing was started."
        )
    file = environment_file(project, name)
    values = _read(file)
    if secret := [key for key in SECRETS if key in values]:
        raise ConfigurationError(
            f"{file}: {', '.join(secret)} does not belong into a file that is committed. Set "
            f"BOUCLE_{secret[0].upper()} instead. Nothing was started."
        )
    return values


def _read(file: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigurationError(
            f"{VARIABLE}: the file of the environment, {file}, cannot be read: {error}. Nothing was started."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigurationError(
            f"{file}: it must be `name: value` lines, such as `log_level: info`. Nothing was started."
        )
    return values
