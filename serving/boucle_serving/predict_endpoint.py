"""Prediction requests, from the bytes of the body to the bytes of the answer."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from time import perf_counter
from typing import NamedTuple

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from boucle.contracts.ids import ModelName
from boucle.contracts.measuring import CLIENT_LEFT
from boucle.contracts.traffic_plan import Role
from boucle.errors import BoucleError
from boucle_serving.admission import ARM, Admission
from boucle_serving.body import json_of, read_body, too_large
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.predictor import ServedModel
from boucle_serving.problems import (
    MEDIA_TYPE,
    FieldError,
    InvalidRequestError,
    LogUnavailableError,
    Problem,
    UnauthorizedError,
    internal_problem,
    problem_of,
)
from boucle_serving.router import Routed
from boucle_serving.service import Asked, Held, Prediction, PredictionService
from boucle_serving.slow import SlowAnswers
from boucle_serving.trial import Scores

MAX_BODY_BYTES = 64 * 1024
_LOGGER = logging.getLogger("boucle.serving")

Headers = tuple[tuple[bytes, bytes], ...]


class Reply(NamedTuple):
    """An answer as bytes, with the headers that say what it is and who gave it."""

    status: int
    body: bytes
    headers: Headers


@dataclass(slots=True, eq=False)
class _Request:
    """A request whose body is here, and whom to tell the reply."""

    body: bytes
    request_id: str
    started: float
    tell: Callable[[Reply], None]
    routed: Routed | None = None
    arm: Role | None = None
    """The one that a tester chose."""


class PredictEndpoint:
    """Answers prediction requests, whatever is in them, and counts them. Lives in one event loop: it has no lock.

    Requests whose bodies are here in the same turn of the event loop are answered together, with one call of the model
    and one write to the log, which cost far more than a row in them does. Nobody waits for a request that is not here.
    """

    def __init__(
        self, service: PredictionService, admission: Admission, metrics: ServingMetrics, slow: SlowAnswers
    ) -> None:
        self._service = service
        self._admission = admission
        self._metrics = metrics
        self._slow = slow
        self._note: Callable[[Reply], None] | None = None
        self._turn: dict[ModelName, list[_Request]] = {}

    def trace(self, note: Callable[[Reply], None]) -> None:
        """Close the short way, which nothing traces; `note` is told each reply in the context of its request."""
        self._note = note

    @property
    def default_model(self) -> ModelName:
        """The model of the path that names none."""
        return self._service.default_model

    @property
    def head_seconds(self) -> float:
        """How long the head of a request may take to arrive."""
        return self._admission.limits.body_seconds

    def model_of(self, path: str) -> ModelName | None:
        """The model that a path asks for a prediction, if `submit` can answer it."""
        if path == "/predict":
            name = self._service.default_model
        elif path.startswith("/models/") and path.endswith("/predict"):
            name = ModelName(path[len("/models/") : -len("/predict")])
        else:
            return None
        # Whose address it is behind a proxy is known to the middlewares; so is the trace that it belongs to.
        is_for_all = self._admission.limits.by_address or self._note is not None
        return name if self._service.serves(name) and not is_for_all else None

    def submit(
        self, model: ModelName, scope: Scope, body: bytes, request_id: str, tell: Callable[[Reply], None]
    ) -> bool:
        """Answer a request that is here; `tell` is called once, soon, from the event loop.

        False, and `tell` is not called, where the app must answer: who tries keys pays for it by its address, and
        whose that is behind a proxy is known to the middlewares.
        """
        started = perf_counter()
        try:
            self._admission.enter(scope, is_peer=True)
        except UnauthorizedError:
            return False
        except BoucleError as error:
            tell(self._refusal(model, error, started))
            return True
        if len(body) > MAX_BODY_BYTES:
            self._admission.leave()
            tell(self._refusal(model, too_large(MAX_BODY_BYTES), started))
            return True
        self._add(model, _Request(body, request_id, started, tell))
        return True

    async def reply(self, model: ModelName, scope: Scope, receive: Receive, *, request_id: str) -> Reply:
        """Let a request in, read it, answer it. Raises ClientDisconnect."""
        started = perf_counter()
        try:
            self._admission.enter(scope)
        except BoucleError as error:
            return self._refusal(model, error, started)
        try:
            arm = self._admission.chosen_arm(scope)
            body = await read_body(receive, most=MAX_BODY_BYTES, seconds=self._admission.limits.body_seconds)
        except BaseException as error:
            self._admission.leave()
            if isinstance(error, BoucleError):
                return self._refusal(model, error, started)
            if isinstance(error, ClientDisconnect):
                self._observe(model, None, CLIENT_LEFT, started)
            raise
        told: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._add(model, _Request(body, request_id, started, told.set_result, arm=arm))
        reply = await told
        if self._note is not None:
            self._note(reply)
        return reply

    def _add(self, model: ModelName, request: _Request) -> None:
        if not self._turn:
            asyncio.get_running_loop().call_soon(self._answer_turn)
        self._turn.setdefault(model, []).append(request)

    def _answer_turn(self) -> None:
        turn, self._turn = self._turn, {}
        for model, requests in turn.items():
            try:
                self._answer(model, requests)
            except Exception:  # noqa: BLE001 - found again, by whom it concerns, and logged there
                for request in requests:
                    self._answer_alone(model, request)

    def _answer_alone(self, model: ModelName, request: _Request) -> None:
        """Answer one of several that could not be answered together: nobody pays for another's request."""
        try:
            self._answer(model, [request])
        except Exception:
            _LOGGER.exception("a request failed", extra={"request_id": request.request_id, "model": model})
            self._tell(request, self._said(model, request, internal_problem()))

    def _answer(self, model: ModelName, requests: Sequence[_Request]) -> None:
        """Answer requests of one model; nobody is told anything if this raises."""
        try:
            served = self._service.served(model)
        except BoucleError as error:
            problem = problem_of(error)
            for request in requests:
                self._tell(request, self._said(model, request, problem))
            return
        outcomes, held = self._service.begin(served, [_asked(served, request) for request in requests])
        replies = self._logged(served, requests, outcomes)
        for number, reply in replies:
            self._tell(requests[number], reply)
        for one in held:
            _Wait(self, served, requests, one).begin()

    def finish(self, served: ServedModel, requests: Sequence[_Request], held: Held, scores: Scores | None) -> None:
        """Answer the requests that waited for a version on trial."""
        try:
            outcomes = self._service.finish(served, held, scores)
            replies = self._logged(served, requests, outcomes)
        except Exception:
            more = {"model": served.plan.model}
            _LOGGER.exception("requests failed that waited for a version on trial", extra=more)
            waited = [found.number for found in held.found]
            model = served.plan.model
            replies = [(number, self._said(model, requests[number], internal_problem())) for number in waited]
        for number, reply in replies:
            self._tell(requests[number], reply)

    def _logged(
        self, served: ServedModel, requests: Sequence[_Request], outcomes: dict[int, Prediction | BoucleError]
    ) -> list[tuple[int, Reply]]:
        """The replies by number, once the predictions among them are in the log."""
        if not outcomes:
            return []
        try:
            self._service.log(served, outcomes.values())
        except LogUnavailableError as error:
            outcomes = {
                number: error if isinstance(outcome, Prediction) else outcome for number, outcome in outcomes.items()
            }
        model = served.plan.model
        return [(number, self._reply(model, requests[number], outcome)) for number, outcome in outcomes.items()]

    def _tell(self, request: _Request, reply: Reply) -> None:
        self._admission.leave()
        try:
            request.tell(reply)
        except Exception:
            more = {"request_id": request.request_id}
            _LOGGER.exception("a request was answered, and nobody could be told", extra=more)

    def _reply(self, model: ModelName, request: _Request, outcome: Prediction | BoucleError) -> Reply:
        if not isinstance(outcome, Prediction):
            return self._said(model, request, problem_of(outcome))
        routed = outcome.found.asked.routed
        self._observe(model, routed, 200, request.started)
        if (seconds := perf_counter() - request.started) >= self._slow.seconds:
            self._slow.note(outcome.record, seconds)
        body = to_json(outcome.document(), inf_nan_mode="null")  # of a row that was sent with NaN
        return Reply(200, body, _headers(*routed.answered_by))

    def _said(self, model: ModelName, request: _Request, problem: Problem) -> Reply:
        self._observe(model, request.routed, int(problem.status), request.started)
        return _problem_reply(problem, request.routed)

    def _refusal(self, model: ModelName, error: BoucleError, started: float) -> Reply:
        """What is said to a request whose body was not read."""
        problem = problem_of(error)
        self._observe(model, None, int(problem.status), started)
        return _problem_reply(problem, None)

    def _observe(self, model: ModelName, routed: Routed | None, status: int, started: float) -> None:
        version, role = routed.answered_by if routed else (NOBODY, NOBODY)
        # Whatever people write into a path must not become a time series.
        label = model if self._service.knows(model) else "unknown"
        self._metrics.observe(label, version, role, status, perf_counter() - started)


class _Wait:
    """Requests that wait for a version on trial, until it answers or their time is over."""

    def __init__(
        self, endpoint: PredictEndpoint, served: ServedModel, requests: Sequence[_Request], held: Held
    ) -> None:
        self._endpoint = endpoint
        self._served = served
        self._requests = requests
        self._held = held
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Wait; called in the event loop, as is everything here but `_done`."""
        loop = asyncio.get_running_loop()
        answer = self._held.answer
        self._timer = loop.call_later(self._held.trial.budget_seconds, self._too_late, answer)
        answer.add_done_callback(partial(self._done, loop))

    def _done(self, loop: asyncio.AbstractEventLoop, answer: "Future[Scores | None]") -> None:
        if not answer.cancelled():
            with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(self._end, answer.result())

    def _too_late(self, answer: "Future[Scores | None]") -> None:
        answer.cancel()
        self._end(None)

    def _end(self, scores: Scores | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._endpoint.finish(self._served, self._requests, self._held, scores)


def _asked(served: ServedModel, request: _Request) -> Asked | InvalidRequestError:
    try:
        question = served.production.questions.read(json_of(request.body))
    except InvalidRequestError as error:
        return error
    chosen = served.routes.pinned(request.arm) if request.arm else served.routes.of(question.entity_key)
    if chosen is None:
        return InvalidRequestError(FieldError(ARM.decode(), f"no version is {request.arm} of this model now"))
    request.routed = chosen
    return Asked(question, request.routed, request.request_id, request.started)


def _problem_reply(problem: Problem, routed: Routed | None) -> Reply:
    version, role = routed.answered_by if routed else (NOBODY, NOBODY)
    more = tuple((name.encode(), value.encode()) for name, value in problem.headers.items())
    return Reply(int(problem.status), to_json(problem.document()), _headers(version, role, MEDIA_TYPE) + more)


@lru_cache(maxsize=256)
def _headers(version: str, role: str, media_type: str = "application/json") -> Headers:
    said = (("content-type", media_type), (MODEL_VERSION, version), (ROUTE, role))
    return tuple((name.encode(), value.encode()) for name, value in said)
