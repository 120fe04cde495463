"""The verb `monitoring`: the page of a model's monitoring, or what it shows as JSON."""

from typing import Annotated

import typer

from boucle.stats.performance_history import without_slices
from boucle_cli.context import Json, Model, find_spec, open_home
from boucle_cli.output import errors_for_people, show_json


def monitoring(
    model: Model,
    last: Annotated[int, typer.Option(min=1, help="With --json: so many windows, the newest ones.")] = 60,
    as_json: Json = False,
) -> None:
    """Where the page of a model's monitoring is, drawn anew: performance, estimates, coverage, drift, triggers."""
    from boucle_platform.model_loop.steps.monitoring_page import write_monitoring_page

    with errors_for_people():
        home, spec = open_home(), find_spec(model)
        if as_json:
            show_json(without_slices(home.monitoring.history(spec.name, last=last)).model_dump(mode="json"))
        else:
            typer.echo(str(write_monitoring_page(home, spec)))
