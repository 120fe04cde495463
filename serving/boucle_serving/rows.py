"""What every route that answers predictions has in common: the body, the rows, what is counted."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

from fastapi import Request

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionFields
from boucle.errors import BoucleError, FeatureLookupError
from boucle_serving.admission import Admission
from boucle_serving.body import read_body
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.predictor import ServedModel
from boucle_serving.problems import (
    FieldError,
    InvalidRequestError,
    RowsError,
    TooLargeError,
    UnknownModelError,
    problem_of,
)
from boucle_serving.service import Asked, Prediction, PredictionService
from boucle_serving.threads import PredictingThreads

MAX_ROWS = 1_000
MAX_BATCH_BYTES = 4 * 1024 * 1024
SEVERAL = "several"
"""Version or route of a batch that several arms answered."""


@dataclass(frozen=True)
class Answered:
    """What came of the rows of one request, in their order."""

    outcomes: Sequence[Prediction | BoucleError]

    @property
    def records(self) -> list[PredictionFields]:
        """The answers; all of them where a request is answered as a whole or not at all."""
        return [outcome.record for outcome in self.outcomes if isinstance(outcome, Prediction)]

    def headers(self) -> dict[str, str]:
        """Who answered."""
        versions = {str(record["model_version"]) for record in self.records}
        roles = {record["answering_role"] for record in self.records}
        return {MODEL_VERSION: _one_of(versions), ROUTE: _one_of(roles)}


class RowsService:
    """Answers the rows of one request and counts them."""

    def __init__(
        self,
        service: PredictionService,
        metrics: ServingMetrics,
        admission: Admission,
        threads: PredictingThreads,
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._admission = admission
        self._threads = threads

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
        """Answer each row, an entity as of a moment or one with its features, as a request by itself would be.

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
            asked = await self._threads.run(_asked, payloads, served, request.state.request_id, started)
            outcomes = await self._threads.run(self._outcomes, served, asked, all_or_none=all_or_none)
            counts.update(_counted(*row) for row in zip(asked, outcomes, strict=True))
        except RowsError as error:  # the other rows were asked, and got no answer either
            counts.update(_counted(asked[number], one) for number, one in error.errors.items())
            raise
        except BoucleError as error:
            label = "unknown" if isinstance(error, UnknownModelError) else label
            counts[(NOBODY, NOBODY, int(problem_of(error).status))] += max(len(payloads), 1)
            raise
        finally:
            self._metrics.observe_rows(label, counts, perf_counter() - started)
        return Answered(outcomes)

    def _outcomes(
        self, served: ServedModel, asked: Sequence[Asked | InvalidRequestError], *, all_or_none: bool
    ) -> list[Prediction | BoucleError]:
        outcomes = self._service.predict(served, asked)
        wrong = {number: one for number, one in enumerate(outcomes) if isinstance(one, BoucleError)}
        if len(wrong) == len(outcomes) and all(type(error) is FeatureLookupError for error in wrong.values()):
            raise wrong[0]  # there are no features at all: a status says so better than a thousand rows
        if all_or_none and wrong:
            raise RowsError(wrong)
        self._service.log(served, outcomes)
        return outcomes


def _asked(
    payloads: Sequence[object], served: ServedModel, request_id: str, started: float
) -> list[Asked | InvalidRequestError]:
    asked: list[Asked | InvalidRequestError] = []
    for payload in payloads:
        try:
            question = served.production.questions.read(payload)
        except InvalidRequestError as error:
            asked.append(error)
        else:
            asked.append(Asked(question, served.routes.of(question.entity_key), request_id, started))
    return asked


def _counted(asked: Asked | InvalidRequestError, outcome: Prediction | BoucleError) -> tuple[str, str, int]:
    """Version, role and code of one row."""
    if isinstance(outcome, Prediction):
        return *outcome.found.asked.routed.answered_by, 200
    version, role = asked.routed.answered_by if isinstance(asked, Asked) else (NOBODY, NOBODY)
    return version, role, int(problem_of(outcome).status)


def _one_of(found: set[str]) -> str:
    return next(iter(found), NOBODY) if len(found) < 2 else SEVERAL
