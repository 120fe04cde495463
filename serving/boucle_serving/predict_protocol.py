"""The short way of single predictions: from the bytes of a connection to the endpoint and back, on uvicorn's parser.

A task, the middlewares, FastAPI's router and two messages cost more than look-up, score and log together. So a
`POST /predict` or `/models/{model}/predict` whose body is here is given to the `PredictEndpoint` as soon as it is read,
and its answer is one write. Everything else goes through the app, whose routes of the same paths ask the same endpoint.
"""

import asyncio
from functools import lru_cache, partial
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from boucle.contracts.ids import ModelName
from boucle_serving.middleware import REQUEST_ID, request_id_of
from boucle_serving.predict_endpoint import Headers, PredictEndpoint, Reply

_BODY_SECONDS = 0.01
"""Clients that write head and body apart do so at once; a body that takes longer goes the way of the app."""


class PredictProtocol(HttpToolsProtocol):
    """uvicorn's protocol for an app with a `PredictEndpoint` in `app.state.predict_endpoint`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._endpoint: PredictEndpoint = config.app.state.predict_endpoint  # type: ignore[union-attr]
        self._held: tuple[RequestResponseCycle, Any, ModelName] | None = None
        self._body_deadline: asyncio.TimerHandle | None = None
        self._head_deadline: asyncio.TimerHandle | None = None
        self._reading = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the caller its time to say something."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read; a head has its time to be whole, the body of a prediction a moment."""
        self._reading = True
        super().data_received(data)
        self._reading = False
        if self._held is not None and self._body_deadline is None:
            self._body_deadline = self.loop.call_later(_BODY_SECONDS, self._let_go)
        if self.cycle is None or (self.cycle.response_complete and self.timeout_keep_alive_task is None):
            self._expect_head()
        elif self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def on_message_complete(self) -> None:
        """Answer the prediction that is whole now."""
        held = self._held
        super().on_message_complete()
        if held is None or held[0].more_body:
            return
        cycle, _, model = held
        self._forget()
        scope = cast("Scope", cycle.scope)
        request_id = request_id_of(scope)
        self._endpoint.submit(model, scope, bytes(cycle.body), request_id, partial(self._write, cycle, request_id))

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the app see that the caller went away."""
        self._let_go()
        if self._head_deadline is not None:
            self._head_deadline.cancel()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        model = self._model(cycle)
        if model is None:
            super()._start_asgi_task(cycle, app)
        else:
            self._held = (cycle, app, model)

    def _model(self, cycle: RequestResponseCycle) -> ModelName | None:
        """The model of a prediction that may go the short way."""
        scope = cycle.scope
        if scope["method"] != "POST" or not self._reading or self.flow.write_paused or cycle.waiting_for_100_continue:
            return None
        return self._endpoint.model_of(scope["path"])

    def _let_go(self) -> None:
        """Hand what is held to the app."""
        held = self._held
        self._forget()
        if held is not None:
            super()._start_asgi_task(held[0], held[1])

    def _forget(self) -> None:
        self._held = None
        if self._body_deadline is not None:
            self._body_deadline.cancel()
            self._body_deadline = None

    def _expect_head(self) -> None:
        """Close the connection unless a whole head comes in time; more bytes of one do not put it off."""
        if self._head_deadline is None and not self.transport.is_closing():
            self._head_deadline = self.loop.call_later(self._endpoint.head_seconds, self.transport.close)

    def _write(self, cycle: RequestResponseCycle, request_id: str, reply: Reply) -> None:
        if cycle.disconnected or self.transport.is_closing():
            return
        self.transport.write(
            b"%b%b%bcontent-length: %d\r\n%b: %b\r\n%b\r\n%b"
            % (
                STATUS_LINE[reply.status],
                _lines(tuple(cycle.default_headers)),
                _lines(reply.headers),
                len(reply.body),
                REQUEST_ID.encode(),
                request_id.encode(),
                b"" if cycle.keep_alive else b"connection: close\r\n",
                reply.body,
            )
        )
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


@lru_cache(maxsize=256)
def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
