"""Log lines: one JSON object each, with what the work is about; Dagster's runs and uvicorn look alike."""

import io
import json
import logging
from collections.abc import Iterator

import dagster as dg
import pytest

from assets_tests.bundles import promote
from assets_tests.scenarios import digest_of
from boucle_adapters.logs import configure_logs, log_context
from boucle_adapters.settings import Settings
from boucle_adapters.sql_state import SqlStateStore
from boucle_platform.instance import dagster_yaml
from boucle_platform.logs import run_config, run_logger

SERVING = logging.getLogger("boucle.serving")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    level = root.level
    yield io.StringIO()
    root.setLevel(level)
    for handler in [one for one in root.handlers if one.get_name() == "boucle"]:
        root.removeHandler(handler)


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def settings(**changes: object) -> Settings:
    return Settings(**{"log_format": "json", **changes})


def test_a_line_is_one_object_with_level_logger_time_and_what_was_given(stream):
    configure_logs(settings(), stream=stream, replica="one")
    SERVING.warning("an answer took %.1f s", 2.5, extra={"prediction_id": "p1", "version": 3})
    (line,) = lines(stream)
    assert {k: line[k] for k in ("level", "logger", "message")} == {
        "level": "WARNING",
        "logger": "boucle.serving",
        "message": "an answer took 2.5 s",
    }
    assert (line["prediction_id"], line["version"], line["replica"]) == ("p1", 3, "one")
    assert line["at"].endswith("+00:00")


def test_an_error_is_one_line_with_its_traceback_inside(stream):
    configure_logs(settings(), stream=stream)
    try:
        raise ValueError("no such\nthing")
    except ValueError:
        SERVING.exception("a request failed")
    (line,) = lines(stream)
    assert "ValueError: no such\nthing" in line["error"]


def test_lines_within_a_context_carry_it_and_those_after_it_do_not(stream):
    configure_logs(settings(), stream=stream)
    with log_context(request_id="r1"), log_context(model="repurchase"):
        logging.getLogger("uvicorn.error").warning("odd")
        SERVING.warning("its own word wins", extra={"model": "flight_delay"})
    SERVING.warning("after")
    odd, own, after = lines(stream)
    assert (odd["request_id"], odd["model"]) == ("r1", "repurchase")
    assert own["model"] == "flight_delay"
    assert "request_id" not in after


def test_levels_are_ours_and_libraries_are_heard_from_warnings_on(stream):
    configure_logs(settings(log_level="debug"), stream=stream)
    SERVING.debug("ours")
    logging.getLogger("sqlalchemy.pool").info("theirs")
    configure_logs(settings(log_level="error"), stream=stream)
    SERVING.warning("not asked for")
    assert [line["message"] for line in lines(stream)] == ["ours"]


def test_text_names_what_a_line_is_about(stream):
    configure_logs(settings(log_format="text"), stream=stream)
    SERVING.warning("odd", extra={"request_id": "r1", "seconds": 2})
    SERVING.warning("plain")
    odd, plain = stream.getvalue().splitlines()
    assert odd.endswith("WARNING boucle.serving: odd request_id=r1")
    assert plain.endswith("WARNING boucle.serving: plain")


def test_each_decision_is_a_line_once_it_is_in_the_ledger(stream, tmp_path):
    configure_logs(settings(), stream=stream)
    state = SqlStateStore.create(f"sqlite:///{tmp_path / 'state.db'}")
    promote(state, version=2, digest=digest_of(2))
    state.close()
    (line,) = [line for line in lines(stream) if line["logger"] == "boucle.ledger"]
    assert line["message"] == "promote: version 2 is better"
    assert (line["model"], line["version"], line["kind"], line["actor"]) == ("repurchase", 2, "promote", "test")


@pytest.fixture
def json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOUCLE_LOG_FORMAT", "json")


def run_of(body: object, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[dict[str, object]]]:
    """A run of one op with Dagster's instance set up as in a home: its id, and the lines."""
    import yaml

    job = dg.JobDefinition(
        name="retrain",
        graph_def=dg.GraphDefinition(name="retrain", node_defs=[dg.op(name="fit")(body)]),
        logger_defs={"console": run_logger(settings())},
        config=run_config(),
    )
    kept = {name: yaml.safe_load(dagster_yaml(Settings()))[name] for name in ("python_logs", "telemetry")}
    with dg.DagsterInstance.ephemeral(settings=kept) as instance:
        result = job.execute_in_process(instance=instance, raise_on_error=False)
    return result.run_id, [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_run_says_what_it_does_with_its_id_and_not_that_its_steps_began(capsys, json_lines):
    def fit(context: dg.OpExecutionContext) -> None:
        context.log.info("fitted on 900 rows")
        logging.getLogger("boucle.ledger").info("reject: worse", extra={"model": "repurchase", "version": 4})

    run_id, said = run_of(fit, capsys)
    assert [line["message"] for line in said] == ["fitted on 900 rows", "reject: worse"]
    assert {(line["run_id"], line["job"], line["step"]) for line in said} == {(run_id, "retrain", "fit")}
    assert (said[1]["model"], said[1]["version"]) == ("repurchase", 4)


def test_a_step_that_fails_is_a_line_with_its_error(capsys, json_lines):
    def fit(context: dg.OpExecutionContext) -> None:
        raise ValueError("the rows are gone")

    run_id, said = run_of(fit, capsys)
    failed = [line for line in said if "the rows are gone" in str(line.get("error"))]
    assert failed
    assert {line["run_id"] for line in said} == {run_id}
