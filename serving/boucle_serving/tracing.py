"""Traces by OpenTelemetry's own instrumentation of FastAPI. Imported only where an endpoint for them is named (ADR 24).

Single predictions go past FastAPI otherwise (ADR 14), so the short way is closed while traces are made.
"""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from boucle.errors import ConfigurationError
from boucle_adapters.settings import Settings
from boucle_serving.middleware import MODEL_VERSION, REQUEST_ID, ROUTE
from boucle_serving.predict_endpoint import Reply

try:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError as error:
    raise ConfigurationError(
        f"Traces are wanted (BOUCLE_OTLP_ENDPOINT), and {error.name} is not installed: pip install 'boucle[tracing]'. "
        "Nothing was started."
    ) from error

if TYPE_CHECKING:
    from fastapi import FastAPI

_NOT_TRACED = "livez,readyz,metrics,health,ping,version"
"""What machines ask all the time."""
_ABOUT = {"prediction_id": "boucle.prediction_id", "model": "boucle.model", "model_version": "boucle.model_version"}


def trace_app(app: "FastAPI", settings: Settings) -> Callable[[], None]:
    """Make a span of each request and send it; returns what sends the last ones and ends.

    Sampling and the like are OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, …).
    """
    about = {"service.name": "boucle-serving", "service.instance.id": settings.replica}
    provider = TracerProvider(resource=Resource.create(about))
    named = f"{settings.otlp_endpoint.rstrip('/')}/v1/traces" if settings.otlp_endpoint else None
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=named)))
    app.state.predict_endpoint.trace(_note)
    FastAPIInstrumentor.instrument_app(
        app,
        tracer_provider=provider,
        excluded_urls=_NOT_TRACED,
        exclude_spans=["receive", "send"],
        http_capture_headers_server_response=[REQUEST_ID, MODEL_VERSION, ROUTE],
    )
    return provider.shutdown


def _note(reply: Reply) -> None:
    """Put on the span of the request which prediction it became."""
    span = trace.get_current_span()
    if reply.status == 200 and span.is_recording():
        answer = json.loads(reply.body)
        span.set_attributes({name: answer[field] for field, name in _ABOUT.items()})
