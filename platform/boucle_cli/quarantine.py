"""`boucle quarantine`: what was set aside, and how it comes back."""

from pathlib import Path
from typing import Annotated

import typer

from boucle.errors import ConfigurationError
from boucle_adapters.settings import Settings
from boucle_cli.context import Json, Model, find_spec, open_home
from boucle_cli.output import OUT, errors_for_people, show_json, show_table

app = typer.Typer(help="Rows that were set aside: counted, shown, and put back once they are mended.")

Period = Annotated[str, typer.Argument(help="The period, for example 1997-04.")]


@app.callback(invoke_without_command=True)
def counted(context: typer.Context, *, as_json: Json = False) -> None:
    """Rows that were set aside: counted, shown, and put back once they are mended."""
    if context.invoked_subcommand is None:
        count(Settings().default_model, as_json=as_json)
    elif as_json:
        raise typer.BadParameter(f"write it after the word: boucle quarantine {context.invoked_subcommand} --json")


@app.command()
def count(model: Model, *, as_json: Json = False) -> None:
    """Rows that were set aside, counted by source, period and reason."""
    from boucle_platform.model_loop.steps.quarantine import quarantine_counts

    with errors_for_people():
        rows = quarantine_counts(open_home(), find_spec(model))
    if as_json:
        show_json(rows)
    else:
        show_table(f"quarantine of {model}", rows, empty="Nothing is in quarantine.")


@app.command()
def show(
    period: Period,
    model: Model,
    *,
    source: Annotated[
        str, typer.Option(help="A source, or 'features' for feature rows; the first source by default.")
    ] = "",
    csv: Annotated[Path | None, typer.Option(help="Also write the rows here, to mend and release them.")] = None,
    as_json: Json = False,
) -> None:
    """The rows of a period that were set aside, each with its line and the reason."""
    from boucle_platform.model_loop.steps.quarantine import quarantined_rows

    with errors_for_people():
        rows = quarantined_rows(open_home(), find_spec(model), period, source=source)
        if csv is not None:
            _write(rows.to_csv(index=False), csv)
    records = [
        {str(name): None if value != value else value for name, value in row.items()}  # noqa: PLR0124 - NaN is no JSON
        for row in rows.to_dict("records")
    ]
    if as_json:
        show_json(records)
    else:
        lines = [_line(record) for record in records]
        show_table(f"quarantine of {model}, {period}", lines, empty=f"Nothing of {period} is in quarantine.")


@app.command()
def release(
    period: Period,
    mended: Annotated[Path, typer.Argument(help="CSV of the mended rows, as `show --csv` writes them.")],
    model: Model,
    *,
    source: Annotated[str, typer.Option(help="Whose rows they are; the first source by default.")] = "",
    as_json: Json = False,
) -> None:
    """Land the period's file again with mended rows in place; it is loaded and checked like any other file."""
    from boucle_platform.model_loop.steps.quarantine import release as land_again

    with errors_for_people():
        done = land_again(open_home(), find_spec(model), period, mended, source=source)
    if as_json:
        show_json(done)
    else:
        OUT.print(
            f"Mended rows in {done['file']}: {done['released']}; rows of it that will be set aside: "
            f"{done['still_set_aside']}. The sensor {model}_landing loads it, or materialise {model}_period for "
            f"{period}.",
            soft_wrap=True,
        )


def _write(text: str, file: Path) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be written: {error.strerror}.") from error


def _line(record: dict[str, object]) -> dict[str, object]:
    """A row as a person reads it: where it stood, what it said, what is wrong with it."""
    from boucle.features.contract import REASON
    from boucle.features.raw_source import LINE

    said = [
        f"{name}={'' if value is None else value}"
        for name, value in record.items()
        if name not in {LINE, REASON, "source_file"}
    ]
    return {"line": record.get(LINE), "row and reason": f"{', '.join(said)}\n{record[REASON]}"}
