"""The short way of single predictions: from the bytes of a connection to the endpoint and back, on uvicorn's parser.

A task, the middlewares, FastAPI's router and two messages cost more than look-up, score and log together. So a
`POST /predict` or `/models/{model}/predict` whose body is here is given to the `PredictEndpoint` as soon as it is read,
and its answer is one write. Everything else goes through the app, whose routes of the same paths ask the same endpoint.

A plain request that came whole (`boucle_serving.plain_head`) does not even need the parser. Whatever is not quite plain
does, and means there what it always meant.
"""

import asyncio
from functools import lru_cache, partial
from typing import Any, cast

from starlette.types import Scope
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from boucle.contracts.ids import ModelName
from boucle_serving.admission import ARM
from boucle_serving.ids import new_id
from boucle_serving.middleware import REQUEST_ID, request_id_of
from boucle_serving.plain_head import MOST_HEAD_BYTES, plain_head
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
        self._in_message = False
        self._asking = False
        """A plain request waits for its answer; what comes meanwhile is kept."""
        self._later = b""
        self._ends = False
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the caller its time to say something."""
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Read; a head has its time to be whole, the body of a prediction a moment."""
        if self._asking:
            self._later += data
            self.flow.pause_reading()
            return
        if self._is_between_requests() and self._asked_plainly(data):
            return
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

    def shutdown(self) -> None:
        """End the connection, after the answer that is being made."""
        if self._asking:
            self._ends = True
        else:
            super().shutdown()

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if nothing was asked since; plain requests do not set the timer anew each time."""
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self._asking or left > 0:
            self._keep_alive(max(left, 1.0))
        else:
            super().timeout_keep_alive_handler()

    def on_message_begin(self) -> None:
        """The parser is in the middle of a request from here on."""
        self._in_message = True
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """Answer the prediction that is whole now."""
        self._in_message = False
        held = self._held
        super().on_message_complete()
        if held is None or held[0].more_body:
            return
        cycle, app, model = held
        self._forget()
        scope = cast("Scope", cycle.scope)
        request_id = request_id_of(scope)
        tell = partial(self._write, cycle, request_id)
        if not self._endpoint.submit(model, scope, bytes(cycle.body), request_id, tell):
            super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the app see that the caller went away."""
        self._let_go()
        self._later = b""
        if self._head_deadline is not None:
            self._head_deadline.cancel()
        super().connection_lost(exc)

    def _is_between_requests(self) -> bool:
        """Whether the parser waits for the first byte of a request: it is in the middle of none."""
        is_idle = self.cycle is None or (self.cycle.response_complete and not self.pipeline)
        return is_idle and not self._in_message and not self.flow.write_paused

    def _asked_plainly(self, data: bytes) -> bool:
        """Hand a plain request to the endpoint; False if it is none, or not for the endpoint to answer."""
        end = data.find(b"\r\n\r\n")
        head = plain_head(data[:end]) if 0 < end <= MOST_HEAD_BYTES else None
        if head is None or len(data) - end - 4 != head.content_length:
            return False
        model = self._endpoint.model_of(head.path)
        if model is None:
            return False
        request_id = head.request_id or new_id()
        self._asking = True
        scope = {"type": "http", "headers": head.headers, "client": self.client}
        if not self._endpoint.submit(model, scope, data[end + 4 :], request_id, partial(self._answer, request_id)):
            self._asking = False
            return False
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None
        return True

    def _answer(self, request_id: str, reply: Reply) -> None:
        """Tell the caller, then go on with what came meanwhile."""
        self._asking = False
        if self.transport.is_closing():
            return
        self.transport.write(_response(self.server_state.default_headers, request_id, reply, ends=self._ends))
        self.server_state.total_requests += 1
        if self._ends:
            self.transport.close()
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive(self.timeout_keep_alive)
        if self._later:
            later, self._later = self._later, b""
            self.flow.resume_reading()
            self.data_received(later)

    def _keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

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
        if any(name == ARM for name, _ in scope["headers"]):  # a tester's, whose token is looked up
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
        self.transport.write(_response(cycle.default_headers, request_id, reply, ends=not cycle.keep_alive))
        cycle.response_started = cycle.response_complete = True
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()


def _response(default_headers: list[tuple[bytes, bytes]], request_id: str, reply: Reply, *, ends: bool) -> bytes:
    """A whole answer as it goes over the connection."""
    return b"%b%b%bcontent-length: %d\r\n%b: %b\r\n%b\r\n%b" % (
        STATUS_LINE[reply.status],
        _lines(tuple(default_headers)),
        _lines(reply.headers),
        len(reply.body),
        REQUEST_ID.encode(),
        request_id.encode(),
        b"connection: close\r\n" if ends else b"",
        reply.body,
    )


@lru_cache(maxsize=256)
def _lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
