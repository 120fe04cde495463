"""What runs log: as serving does, with the run, job and step that each line is of."""

import logging
from typing import Any

import dagster as dg

from boucle_adapters.logs import InContext, configure_logs, formatter_of
from boucle_adapters.settings import Settings

_META = "dagster_meta"
_NOTHING: dict[str, Any] = {}


def configure_code_location(settings: Settings) -> None:
    """JSON lines also for what is done outside runs, by sensors; Dagster's own lines have their own `--log-format`."""
    if settings.log_format == "json":
        configure_logs(settings).addFilter(_is_untold)


def run_config() -> dict[str, Any] | None:
    """What a job's runs are told, so that they log by `run_logger`: Dagster asks for loggers by name."""
    return {"loggers": {"console": {"config": {}}}} if Settings().log_format == "json" else None


def run_logger(settings: Settings) -> dg.LoggerDefinition:
    """Dagster's console logger, as JSON lines; what `boucle`'s own loggers say in a run comes here as well.

    Events of a run are on record in the instance and are not repeated, but for those that say that something failed.
    """

    @dg.logger(config_schema={"log_level": dg.Field(str, default_value=settings.log_level.upper())})
    def console(context: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.Logger("boucle.run", level=context.logger_config["log_level"].upper())
        handler = logging.StreamHandler()
        handler.addFilter(_of_run)
        handler.addFilter(InContext({}))
        handler.setFormatter(formatter_of(settings))
        logger.addHandler(handler)
        return logger

    return console


def _is_untold(record: logging.LogRecord) -> bool:
    """Whether nobody else writes it: what comes from Dagster, or went through the logger of a run, is written."""
    return not record.name.startswith("dagster") and _META not in record.__dict__


def _of_run(record: logging.LogRecord) -> bool:
    """Put the run on the line instead of Dagster's own text; False for events that went well."""
    meta = record.__dict__.pop(_META, _NOTHING)
    event = record.__dict__.pop("dagster_event", None) or meta.get("dagster_event")
    record.__dict__.pop("dagster_event_batch_metadata", None)
    if event is not None and not event.is_failure:
        return False
    if meta:
        record.msg, record.args = meta["orig_message"] or record.msg, ()
        named = {"run_id": meta["run_id"], "job": meta["job_name"], "step": meta["step_key"]}
        record.__dict__.update({name: value for name, value in named.items() if value})
    if event is not None and event.is_step_failure:
        record.__dict__["error"] = event.step_failure_data.error_display_string
    return True
