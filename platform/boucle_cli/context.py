"""What verbs take and open. Imports are late: `boucle --help` loads neither Dagster nor pandas."""

from enum import StrEnum
from typing import Annotated, Any

import typer

from boucle_adapters.settings import Settings

Model = Annotated[
    str,
    typer.Argument(
        default_factory=lambda: Settings().default_model, show_default=False, help="The model; repurchase by default."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON value on standard output, for programs.")]
Reason = Annotated[str, typer.Option(help="Why; it goes on record.")]
Port = Annotated[int, typer.Option(min=0, max=65535)]


class Select(StrEnum):
    """Which checks are asked for: every one, the blocking ones, or those of the data, for which nothing is trained."""

    ALL = "all"
    GATES = "gates"
    DATA = "data"


def open_home() -> Any:
    """The home that the environment names."""
    from boucle_adapters.home import Home

    return Home(Settings())


def open_runner() -> Any:
    """What executes jobs in this process."""
    from boucle_platform.instance import Runner

    return Runner(Settings())


def find_spec(model: str) -> Any:
    """What `defs.yaml` says of a model. Raises ConfigurationError for one that is not there."""
    from boucle_platform.model_loop.catalogue import spec_of

    return spec_of(model)


def acting_user() -> str:
    """Who typed the verb, as the ledger names people."""
    import getpass

    return f"user:{getpass.getuser()}"
