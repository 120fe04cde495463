"""POST /predict and POST /models/{model}/predict."""

import json
from time import perf_counter
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from boucle.contracts.ids import ModelName
from boucle.errors import BoucleError
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import MODEL_VERSION, NOBODY, ROUTE
from boucle_serving.problems import FieldError, InvalidRequestError, UnknownModelError, problem_of
from boucle_serving.router import route
from boucle_serving.service import PredictionService, parse_question

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


def predict_router(service: PredictionService, metrics: ServingMetrics) -> APIRouter:
    """The routes that answer one prediction each."""
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

    return router


async def _predict(service: PredictionService, metrics: ServingMetrics, model: ModelName, request: Request) -> Response:
    started = perf_counter()
    label, version, role = str(model), NOBODY, NOBODY
    status = 500
    try:
        payload = await _payload(request)
        served = service.served(model)
        question = parse_question(payload, served.production.contract)
        routed = route(served, question.entity_key)
        version, role = str(routed.answering.version), routed.answering.role.value
        body = service.answer(served, routed, question, request_id=request.state.request_id, started=started)
        status = 200
        return JSONResponse(body, headers={MODEL_VERSION: version, ROUTE: role})
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


async def _payload(request: Request) -> object:
    body = await request.body()
    if len(body) > _MAX_BODY_BYTES:
        raise InvalidRequestError(FieldError("body", f"has {len(body)} bytes; at most {_MAX_BODY_BYTES} are read"))
    try:
        parsed: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(FieldError("body", f"is not JSON: {error}")) from error
    return parsed
