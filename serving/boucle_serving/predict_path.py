"""The way of one prediction, from the bytes of the request to the bytes of the answer.

`PredictPath` is plain ASGI in front of the app: the way through FastAPI's router, dependencies and response classes
costs nearly as much as look-up, score and log together. What it does not answer goes on to the app, whose routes of the
same paths answer by the same `PredictEndpoint`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Generator
from functools import lru_cache
from time import perf_counter
from typing import Any, NamedTuple

from fastapi import FastAPI
from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from boucle.contracts.ids import ModelName
from boucle.errors import BoucleError
from boucle_serving.admission import Admission
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, REQUEST_ID, ROUTE, request_id_of
from boucle_serving.predictor import Predictor
from boucle_serving.problems import (
    MEDIA_TYPE,
    FieldError,
    InvalidRequestError,
    Problem,
    TooLargeError,
    TooSlowError,
    internal_problem,
    problem_of,
)
from boucle_serving.router import route
from boucle_serving.service import PredictionService, answer_of

MAX_BODY_BYTES = 64 * 1024
CLIENT_LEFT = 499
"""Counted, never seen: the caller went away in the middle of its request. Not an error of ours."""
_LOGGER = logging.getLogger("boucle.serving")

Headers = tuple[tuple[bytes, bytes], ...]


class Reply(NamedTuple):
    """An answer as bytes, with the headers that say what it is and who gave it."""

    status: int
    body: bytes
    headers: Headers


async def read_body(receive: Receive, *, most: int, seconds: float) -> bytes:
    """The whole body; what is longer is not read to its end.

    Raises:
        TooLargeError: It has more than `most` bytes.
        TooSlowError: It did not arrive within `seconds`.
        ClientDisconnect: The caller went away.
    """
    steps = receive().__await__()
    try:
        waits_for = next(steps)
    except StopIteration as arrived:
        message = arrived.value
        body: bytes = message.get("body", b"")
        rest: Awaitable[Message] | None = receive() if message.get("more_body", False) else None
    else:
        body, rest = b"", _Begun(steps, waits_for)
    if rest is not None:
        message, body = await _in_time(rest, receive, body, most=most, seconds=seconds)
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > most:
        raise TooLargeError(f"The body has more than {most} bytes; no more are read.")
    return body


async def _in_time(
    first: Awaitable[Message], receive: Receive, body: bytes, *, most: int, seconds: float
) -> tuple[Message, bytes]:
    """The last message and the whole body, for a body that is not here yet."""
    try:
        async with asyncio.timeout(seconds):
            message = await first
            body += message.get("body", b"")
            while message.get("more_body", False) and len(body) <= most:
                message = await receive()
                body += message.get("body", b"")
    except TimeoutError as error:
        raise TooSlowError(f"The body did not arrive within {seconds:g} s. Send it again.") from error
    return message, body


class _Begun:
    """The rest of an awaitable that was tried once, without a time-out, and has to wait for something.

    Nearly every body is here when it is asked for, and a time-out costs as much as the look-up of the features.
    """

    def __init__(self, steps: Generator[Any, Any, Message], waits_for: object) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        try:
            yield self._waits_for
        except BaseException as error:
            self._steps.throw(error)
            raise
        return (yield from self._steps)


def json_of(body: bytes) -> object:
    """The body as JSON. Raises InvalidRequestError."""
    try:
        parsed: object = from_json(body)
    except ValueError as error:
        raise InvalidRequestError(FieldError("body", f"is not JSON: {error}")) from error
    return parsed


class PredictEndpoint:
    """Answers the body of one prediction request, whatever it is, and counts it."""

    def __init__(self, service: PredictionService, metrics: ServingMetrics) -> None:
        self._service = service
        self._metrics = metrics

    @property
    def default_model(self) -> ModelName:
        """The model of the path that names none."""
        return self._service.default_model

    def reply(self, model: ModelName, body: bytes, *, request_id: str, started: float) -> Reply:
        """The answer or the problem document. `started` is `perf_counter()` at the start of the request."""
        version, role = NOBODY, NOBODY
        status = 500
        try:
            payload = json_of(body)
            served = self._service.served(model)
            question = served.production.questions.read(payload)
            routed = route(served, question.entity_key)
            version, role = str(routed.answering.version), routed.answering.role.value
            record = self._service.answer(served, routed, question, request_id=request_id, started=started)
            status = 200
            return Reply(status, to_json(answer_of(question, record)), _answered_by(version, role))
        except BoucleError as error:
            problem = problem_of(error)
            status = int(problem.status)
            return _said(problem, version, role)
        finally:
            self._observe(model, version, role, status, started)

    def unread(self, model: ModelName, error: BoucleError, *, started: float) -> Reply:
        """What is said to a request whose body was not read."""
        problem = problem_of(error)
        self._observe(model, NOBODY, NOBODY, int(problem.status), started)
        return _said(problem, NOBODY, NOBODY)

    def left(self, model: ModelName, *, started: float) -> None:
        """The caller went away before it had asked."""
        self._observe(model, NOBODY, NOBODY, CLIENT_LEFT, started)

    def _observe(self, model: ModelName, version: str, role: str, status: int, started: float) -> None:
        # Whatever people write into a path must not become a time series.
        label = model if self._service.knows(model) else "unknown"
        self._metrics.observe(label, version, role, status, perf_counter() - started)


class PredictPath:
    """Answers `POST /predict` and `POST /models/{model}/predict` of the models that are served."""

    def __init__(self, app: FastAPI, *, endpoint: PredictEndpoint, predictor: Predictor, admission: Admission) -> None:
        self.app = app
        self._endpoint = endpoint
        self._predictor = predictor
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run one request."""
        model = self._model(scope)
        if model is None:
            await self.app(scope, receive, send)
            return
        started, request_id = perf_counter(), request_id_of(scope)
        try:
            reply = await answered(
                self._endpoint, self._admission, model, scope, receive, request_id=request_id, started=started
            )
        except ClientDisconnect:
            return
        except Exception:
            _LOGGER.exception("request %s failed", request_id)
            reply = _said(internal_problem(), NOBODY, NOBODY)
        length = (b"content-length", b"%d" % len(reply.body))
        headers = [*reply.headers, length, (REQUEST_ID.encode(), request_id.encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _model(self, scope: Scope) -> ModelName | None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return None
        path = scope["path"]
        if path == "/predict":
            name = self._endpoint.default_model
        elif path.startswith("/models/") and path.endswith("/predict"):
            name = path[len("/models/") : -len("/predict")]
        else:
            return None
        return name if name in self._predictor.served else None


async def answered(
    endpoint: PredictEndpoint,
    admission: Admission,
    model: ModelName,
    scope: Scope,
    receive: Receive,
    *,
    request_id: str,
    started: float,
) -> Reply:
    """Let a request in, read it, answer it. Raises ClientDisconnect."""
    try:
        admission.enter(scope)
    except BoucleError as error:
        return endpoint.unread(model, error, started=started)
    try:
        body = await read_body(receive, most=MAX_BODY_BYTES, seconds=admission.limits.body_seconds)
        return endpoint.reply(model, body, request_id=request_id, started=started)
    except BoucleError as error:
        return endpoint.unread(model, error, started=started)
    except ClientDisconnect:
        endpoint.left(model, started=started)
        raise
    finally:
        admission.leave()


@lru_cache(maxsize=256)
def _answered_by(version: str, role: str, media_type: str = "application/json") -> Headers:
    said = (("content-type", media_type), (MODEL_VERSION, version), (ROUTE, role))
    return tuple((name.encode(), value.encode()) for name, value in said)


def _said(problem: Problem, version: str, role: str) -> Reply:
    more = tuple((name.encode(), value.encode()) for name, value in problem.headers.items())
    return Reply(int(problem.status), to_json(problem.document()), _answered_by(version, role, MEDIA_TYPE) + more)
