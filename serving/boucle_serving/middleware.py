"""Headers of every answer, and the last resort for errors, as plain ASGI: a few microseconds a request."""

import logging
import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from boucle_adapters.logs import log_context
from boucle_serving.ids import new_id
from boucle_serving.problems import internal_problem

REQUEST_ID = "x-request-id"
MODEL_VERSION = "x-boucle-model-version"
ROUTE = "x-boucle-route"
NOBODY = "none"
"""Version and route of an answer that no model gave."""

_ANSWERED_BY_NOBODY = [(name.encode(), NOBODY.encode()) for name in (MODEL_VERSION, ROUTE)]
_LOGGER = logging.getLogger("boucle.serving")
# What is echoed ends in other people's logs: no spaces, no control characters, not longer than a trace id needs.
PLAIN_ID = re.compile(rb"[A-Za-z0-9._:\-]{1,128}")


class AnswerHeaders:
    """Give each request an id (the caller's if it is a plain one) and each answer the three headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = _completed(message.get("headers", ()), request_id)
            await send(message)

        with log_context(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception:
                if started:
                    raise
                _LOGGER.exception("a request failed")
                await internal_problem().response()(scope, receive, send_with_headers)


def _completed(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    complete = [*headers, (REQUEST_ID.encode(), request_id.encode())]
    present = {name for name, _ in complete}
    return complete + [header for header in _ANSWERED_BY_NOBODY if header[0] not in present]


def request_id_of(scope: Scope) -> str:
    """The caller's id for its request if it is a plain one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and PLAIN_ID.fullmatch(value):
            return str(value, "ascii")
    return new_id()
