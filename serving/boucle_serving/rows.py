"""What every route that answers predictions has in common: the body, the rows, what is counted."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionFields
from boucle.errors import BoucleError, BundleError
from boucle_serving.admission import Admission
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.predict_path import read_body
from boucle_serving.predictor import ServedModel
from boucle_serving.problems import (
    FieldError,
    InvalidRequestError,
    RowsError,
    TooLargeError,
    UnknownModelError,
    problem_of,
)
from boucle_serving.questions import Question
from boucle_serving.router import route
from boucle_serving.service import PredictionService

MAX_ROWS = 1_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
SEVERAL = "several"
"""Version or route of a batch that several arms answered."""


@dataclass(frozen=True)
class Answered:
    """The rows of one request: what was asked and what came of it, in order."""

    served: ServedModel
    questions: Sequence[Question | BoucleError]
    results: Sequence[PredictionFields | BoucleError]

    @property
    def records(self) -> list[PredictionFields]:
        """The answers; all of them where a request is answered as a whole or not at all."""
        return [result for result in self.results if not isinstance(result, BoucleError)]

    def headers(self) -> dict[str, str]:
        """Who answered."""
        versions = {str(record["model_version"]) for record in self.records}
        roles = {record["answering_role"] for record in self.records}
        return {MODEL_VERSION: _one_of(versions), ROUTE: _one_of(roles)}


class RowsService:
    """Answers the rows of one request and counts them."""

    def __init__(self, service: PredictionService, metrics: ServingMetrics, admission: Admission) -> None:
        self._service = service
        self._metrics = metrics
        self._admission = admission

    @property
    def default_model(self) -> ModelName:
        """The model of routes that name none."""
        return self._service.default_model

    def served(self, model: ModelName) -> ServedModel:
        """What is served of this model. Raises NoProductionModelError or UnknownModelError."""
        return self._service.served(model)

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Let a request in, read its body, and hold its place until the block ends.

        Raises:
            BoucleError: It is not let in, or its body is too large or too slow.
        """
        self._admission.enter(request.scope)
        try:
            seconds = self._admission.limits.body_seconds
            yield await read_body(request.receive, most=MAX_BATCH_BYTES, seconds=seconds)
        finally:
            self._admission.leave()

    async def answer(
        self, request: Request, model: ModelName, payloads: Sequence[object], *, all_or_none: bool
    ) -> Answered:
        """Answer each row of the form `{<entity>: key, "as_of": moment}`, as one request would be.

        It runs beside the event loop: a large batch must not hold up single requests.

        Raises:
            BoucleError: One of those that `boucle_serving.problems` maps to a status; nothing was answered.
        """
        started = perf_counter()
        counts: Counter[tuple[str, str, int]] = Counter()
        label = str(model)
        try:
            served = self._service.served(model)
            if not payloads:
                raise InvalidRequestError(FieldError("body", "has no row"))
            if len(payloads) > MAX_ROWS:
                raise TooLargeError(f"The request has {len(payloads)} rows; at most {MAX_ROWS} are answered at once.")
            answered = await run_in_threadpool(
                self._answered, served, payloads, request.state.request_id, started, all_or_none=all_or_none
            )
            counts.update(_counted(served, *row) for row in zip(payloads, answered.results, strict=True))
        except RowsError as error:  # the other rows were asked, and got no answer either
            counts.update(_counted(served, payloads[number], one) for number, one in error.errors.items())
            raise
        except BoucleError as error:
            label = "unknown" if isinstance(error, UnknownModelError) else label
            counts[(NOBODY, NOBODY, int(problem_of(error).status))] += max(len(payloads), 1)
            raise
        finally:
            self._metrics.observe_rows(label, counts, perf_counter() - started)
        return answered

    def _answered(
        self, served: ServedModel, payloads: Sequence[object], request_id: str, started: float, *, all_or_none: bool
    ) -> Answered:
        questions = [_question(payload, served) for payload in payloads]
        results = self._service.answer_rows(
            served, questions, request_id=request_id, started=started, all_or_none=all_or_none
        )
        return Answered(served, questions, results)


def _question(payload: object, served: ServedModel) -> Question | InvalidRequestError:
    try:
        return served.production.questions.read(payload)
    except InvalidRequestError as error:
        return error


def _counted(served: ServedModel, payload: object, result: PredictionFields | BoucleError) -> tuple[str, str, int]:
    """Version, role and code of one row; what a version answered that could not leave is the version's own error."""
    if not isinstance(result, BoucleError):
        return str(result["model_version"]), result["answering_role"], 200
    status = int(problem_of(result).status)
    question = _question(payload, served)
    if not isinstance(result, BundleError) or isinstance(question, InvalidRequestError):
        return NOBODY, NOBODY, status
    arm = route(served, question.entity_key).answering
    return str(arm.version), arm.role.value, status


def _one_of(found: set[str]) -> str:
    return next(iter(found), NOBODY) if len(found) < 2 else SEVERAL
