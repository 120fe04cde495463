"""POST /predict, POST /models/{model}/predict and /models/{model}/predict/batch."""

from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionRecord
from boucle.errors import BoucleError
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.problems import FieldError, InvalidRequestError, UnknownModelError, problem_of
from boucle_serving.router import route
from boucle_serving.rows import MAX_BATCH_BYTES, MAX_ROWS, RowsService, body_of, json_of
from boucle_serving.service import PredictionService, Question, answer_of, parse_question

_MAX_BODY_BYTES = 64 * 1024
_CLIENT_LEFT = 499
"""Counted, never seen: the caller went away in the middle of its request. Not an error of ours."""
_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"type": "object"}}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The answer; it is in the prediction log already.",
        "content": {
            "application/json": {
                "example": {
                    "user_id": "4",
                    "as_of": "1997-10-01",
                    "proba": 0.1875,
                    "prediction_id": "0b5c8a3e8b0d4a0f9f3e2c1d5a6b7c8d",
                    "model": "repurchase",
                    "model_version": 3,
                }
            }
        },
    },
    404: {"description": "Unknown model or entity, or the entity has no features at this as_of.", **_PROBLEM},
    413: {"description": "More bytes or rows than are read.", **_PROBLEM},
    422: {"description": "Malformed; `errors` names each field. Or as_of is beyond the watermark.", **_PROBLEM},
    503: {"description": "No model in production yet, or features or log unavailable; `detail` helps.", **_PROBLEM},
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "The entity key under the name that GET /models gives, and the moment asked about.",
                    "properties": {
                        "user_id": {"type": "string"},
                        "as_of": {"type": "string", "description": "ISO 8601 date or date-time; UTC by default"},
                    },
                    "required": ["as_of"],
                },
                "example": {"user_id": "4", "as_of": "1997-10-01"},
            }
        },
    }
}
_ROW_SCHEMA = _BODY["requestBody"]["content"]["application/json"]["schema"]
_BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"rows": {"type": "array", "maxItems": MAX_ROWS, "items": _ROW_SCHEMA}},
                    "required": ["rows"],
                },
                "example": {"rows": [{"user_id": "4", "as_of": "1997-10-01"}]},
            }
        },
    }
}


def predict_router(service: PredictionService, rows: RowsService, metrics: ServingMetrics) -> APIRouter:
    """The routes of boucle's own protocol: one prediction a request, or many with an error for each that fails."""
    router = APIRouter(tags=["predict"])
    options: dict[str, Any] = {"responses": _RESPONSES, "openapi_extra": _BODY, "response_class": JSONResponse}

    @router.post("/predict", summary="Predict with the default model", **options)
    async def predict_default(request: Request) -> Response:
        """Answer for one entity as of one moment, from the features known at that moment."""
        return await _predict(service, metrics, service.default_model, request)

    @router.post("/models/{model}/predict", summary="Predict with a model", **options)
    async def predict_model(request: Request, model: str) -> Response:
        """Answer for one entity as of one moment, from the features known at that moment."""
        return await _predict(service, metrics, ModelName(model), request)

    @router.post("/models/{model}/predict/batch", summary="Predict many at once", openapi_extra=_BATCH_BODY)
    async def predict_batch(request: Request, model: str) -> Response:
        """Answer row by row, in their order: a row that cannot be answered has its problem in place of the answer."""
        payloads = _rows(json_of(await body_of(request, most=MAX_BATCH_BYTES)))
        answered = await rows.answer(request, ModelName(model), payloads, all_or_none=False)
        body = [_row(*row) for row in zip(answered.questions, answered.results, strict=True)]
        return JSONResponse({"model": model, "rows": body}, headers=answered.headers())

    return router


def _rows(payload: object) -> list[object]:
    rows = payload.get("rows") if isinstance(payload, dict) else None
    if not isinstance(rows, list) or not isinstance(payload, dict) or len(payload) > 1:
        raise InvalidRequestError(FieldError("rows", "must be all there is: a list of rows as /predict takes one"))
    return rows


def _row(question: Question | BoucleError, result: PredictionRecord | BoucleError) -> dict[str, Any]:
    if isinstance(question, BoucleError):
        return {"error": problem_of(question).document()}
    if isinstance(result, BoucleError):
        return {"error": problem_of(result).document()}
    return answer_of(question, result)


async def _predict(service: PredictionService, metrics: ServingMetrics, model: ModelName, request: Request) -> Response:
    started = perf_counter()
    label, version, role = str(model), NOBODY, NOBODY
    status = 500
    try:
        payload = json_of(await body_of(request, most=_MAX_BODY_BYTES))
        served = service.served(model)
        question = parse_question(payload, served.production.contract)
        routed = route(served, question.entity_key)
        version, role = str(routed.answering.version), routed.answering.role.value
        record = service.answer(served, routed, question, request_id=request.state.request_id, started=started)
        status = 200
        return JSONResponse(answer_of(question, record), headers={MODEL_VERSION: version, ROUTE: role})
    except BoucleError as error:
        label = "unknown" if isinstance(error, UnknownModelError) else label
        problem = problem_of(error)
        status = int(problem.status)
        return problem.response({MODEL_VERSION: version, ROUTE: role})
    except ClientDisconnect:
        status = _CLIENT_LEFT
        return Response(status_code=status)
    finally:
        metrics.observe(label, version, role, status, perf_counter() - started)
