"""A replica that is watched: lines as JSON, spans sent to a collector that speaks OTLP over HTTP."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from assets_tests.bundles import MODEL, publish_users
from assets_tests.replica import QUESTION, Replica, wait_for
from boucle_adapters.sql_state import SqlStateStore

pytestmark = pytest.mark.integration
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Keeps the spans that arrive: name, ids, attributes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[dict[str, object]] = []
        self.paths: set[str] = set()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        message = ExportTraceServiceRequest.FromString(body)
        self.server.paths.add(self.path)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    values = {one.key: one.value for one in span.attributes}
                    named = {key: getattr(value, value.WhichOneof("value")) for key, value in values.items()}
                    self.server.spans.append({**named, "name": span.name, "trace": span.trace_id.hex()})
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as found:
        yield found
        found.shutdown()


@pytest.fixture
def watched(tmp_path: Path, collector: Collector) -> Iterator[Replica]:
    replica = Replica(
        tmp_path,
        BOUCLE_OTLP_ENDPOINT=collector.address,
        BOUCLE_LOG_FORMAT="json",
        BOUCLE_SLOW_SECONDS="0.0000001",
        OTEL_BSP_SCHEDULE_DELAY="100",
    )
    publish_users(replica.settings.online_dir / MODEL)
    yield replica
    if replica.process is not None and replica.exit_code() is None:
        replica.kill()


def test_a_request_is_a_span_and_a_slow_answer_a_line_and_both_name_prediction_and_version(
    watched: Replica, collector: Collector, tmp_path: Path
):
    state = SqlStateStore.create(watched.settings.state_store_url)
    watched.promote(state, 1)
    said = tmp_path / "said.err"
    with said.open("wb") as errors:
        watched.start(errors=errors)
    wait_for(lambda: watched.version() == 1)
    headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "x-request-id": "r-17"}
    answer = httpx.post(f"{watched.address}/predict", json=QUESTION, headers=headers, timeout=5)
    httpx.get(f"{watched.address}/livez", timeout=5)

    wait_for(lambda: any(span["trace"] == TRACE for span in collector.spans))
    assert collector.paths == {"/v1/traces"}
    (span,) = [span for span in collector.spans if span["trace"] == TRACE]
    assert span["name"] == "POST /predict"
    assert span["boucle.prediction_id"] == answer.json()["prediction_id"]
    assert (span["boucle.model"], span["boucle.model_version"]) == (MODEL, 1)

    watched.promote(state, 2, damaged=True)
    wait_for(lambda: "is not served" in said.read_text())
    state.close()
    watched.stop()
    assert {span["name"] for span in collector.spans} == {"POST /predict"}  # not what machines ask all the time
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    (refused,) = [line for line in lines if "is not served" in line["message"]]
    assert (refused["model"], refused["plan_revision"], refused["level"]) == (MODEL, 2, "WARNING")
    slow = [line for line in lines if line["message"].startswith("an answer took")]
    assert {"request_id", "prediction_id", "model", "version", "replica"} <= set(slow[0])
    assert any(line["message"].startswith("revision 1 is served: version 1") for line in lines)


def test_traces_without_their_packages_end_the_start_with_what_to_install(tmp_path: Path):
    program = """
import sys
sys.modules["opentelemetry.instrumentation.fastapi"] = None
from boucle_serving.main import main
sys.exit(main())
"""
    environment = {
        **os.environ,
        "BOUCLE_HOME": str(tmp_path),
        "BOUCLE_PORT": "0",
        "BOUCLE_OTLP_ENDPOINT": "http://x:4318",
    }
    run = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=150, check=False
    )
    assert run.returncode == 1
    assert "pip install 'boucle[tracing]'" in run.stderr
    assert "Traceback" not in run.stderr
