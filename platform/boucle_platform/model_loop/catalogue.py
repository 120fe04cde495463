"""The models of `defs/`, read from their `defs.yaml` without loading Dagster's definitions."""

from pathlib import Path

import pydantic
import yaml

from boucle.errors import ConfigurationError
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.in_environment import in_environment
from boucle_platform.model_loop.spec import LoopSpec

DEFS = Path(__file__).parents[1] / "defs"
COMPONENT = "boucle_platform.model_loop.component.ModelLoop"


def specs() -> dict[str, LoopSpec]:
    """Every model by name, as this environment runs it.

    Raises:
        ConfigurationError: A `defs.yaml` has a wrong or unknown field; the error names file and field.
    """
    found = {}
    for file in sorted(DEFS.glob("*/defs.yaml")):
        content = yaml.safe_load(file.read_text())
        if content.get("type") == COMPONENT:
            try:
                spec = in_environment(LoopSpec.model_validate(content["attributes"]), Settings())
            except pydantic.ValidationError as error:
                raise ConfigurationError(f"{file.parent.name}/{file.name}: {error}") from error
            found[spec.model] = spec
    return found


def spec_of(model: str) -> LoopSpec:
    """One model. Raises ConfigurationError when there is none of this name."""
    known = specs()
    if model not in known:
        raise ConfigurationError(f"There is no model '{model}'; defs/ declares: {', '.join(known) or 'none'}.")
    return known[model]
