"""How verbs answer: tables for people, JSON for programs, errors without a traceback."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from boucle.errors import BoucleError

OUT = Console()
ERR = Console(stderr=True)
FAILED, USAGE = 1, 2


def show_json(value: object) -> None:
    """One JSON value on standard output."""
    typer.echo(json.dumps(value, indent=1, default=str))


def show_table(title: str, rows: Sequence[Mapping[str, object]], *, empty: str) -> None:
    """Rows as a table, or a sentence when there is none; the last column holds the words, and only it is wrapped."""
    if not rows:
        OUT.print(empty)
        return
    drawn = Table(title=title, title_justify="left", header_style="bold")
    *figures, words = rows[0]
    for column in figures:
        drawn.add_column(column, no_wrap=True)
    drawn.add_column(words, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row.values()))
    OUT.print(drawn)


@contextmanager
def errors_for_people() -> Iterator[None]:
    """A mistake that boucle names ends the verb with its text and exit code 1; anything else is a defect and shows."""
    try:
        yield
    except BoucleError as error:
        ERR.print(f"[red]{type(error).__name__}[/red]: {escape(str(error))}", highlight=False, markup=True)
        raise typer.Exit(FAILED) from error


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
