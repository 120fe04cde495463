"""Log lines: text for a terminal, or one JSON object a line; with what the work under way is about.

Code logs through the standard library (`logging.getLogger("boucle...")`, more in `extra=`), so that the lines of
uvicorn and SQLAlchemy look alike. What is about more than one line (a request, a run) is put into the context.
"""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import TextIO

from boucle.contracts.decision import NewDecision
from boucle_adapters.settings import Settings

OURS = ("boucle", "boucle_adapters", "boucle_platform", "boucle_cli")
FIELDS = ("replica", "request_id", "prediction_id", "run_id", "model", "version")
"""What lines are about, where they are about it; text shows these, JSON also whatever else was given."""
_LEDGER = logging.getLogger("boucle.ledger")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(about)s"
_context: ContextVar[Mapping[str, str]] = ContextVar("boucle_log_context", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: str) -> Iterator[None]:
    """Every line that is logged in here carries these fields, also in threads and tasks that take the context along."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def configure_logs(settings: Settings, *, stream: TextIO | None = None, **fields: str) -> logging.Handler:
    """Log to standard error as `BOUCLE_LOG_FORMAT` and `BOUCLE_LOG_LEVEL` say; all lines carry `fields`.

    Calling it again replaces what it did before. Libraries are heard from warnings on. Returns what writes the lines.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.set_name("boucle")
    handler.addFilter(InContext(fields))
    handler.setFormatter(formatter_of(settings))
    root = logging.getLogger()
    for earlier in [one for one in root.handlers if one.get_name() == "boucle"]:
        root.removeHandler(earlier)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for name in OURS:
        logging.getLogger(name).setLevel(settings.log_level.upper())
    return handler


def formatter_of(settings: Settings) -> logging.Formatter:
    """How a line looks."""
    if settings.log_format == "text":
        return logging.Formatter(_TEXT, defaults={"about": ""})
    from pythonjsonlogger.json import JsonFormatter

    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "error"},
        reserved_attrs=[*_reserved(), "about"],
        timestamp="at",
    )


class InContext(logging.Filter):
    """Puts the context, and fields that never change, onto each line; what the line says itself wins."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        """True, with the fields on the record."""
        for name, value in {**self._fields, **_context.get()}.items():
            record.__dict__.setdefault(name, value)
        found = {name: record.__dict__[name] for name in FIELDS if record.__dict__.get(name) not in {None, ""}}
        record.about = "".join(f" {name}={value}" for name, value in found.items())
        return True


def log_decision(new: NewDecision) -> None:
    """A line for a row of the ledger, once it is there: what was decided about which version, by whom, in which run."""
    _LEDGER.info(
        "%s: %s",
        new.kind,
        new.reason,
        extra={
            "model": new.model,
            "version": new.subject_version or new.to_version,
            "actor": new.actor,
            "kind": str(new.kind),
            **({"run_id": new.dagster_run_id} if new.dagster_run_id else {}),
        },
    )


def _reserved() -> list[str]:
    """What the standard library puts on every record."""
    return [*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"]
