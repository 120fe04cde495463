"""POST /predict, POST /models/{model}/predict and /models/{model}/predict/batch."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from boucle.contracts.ids import ModelName
from boucle.errors import BoucleError
from boucle_serving.body import json_of
from boucle_serving.documented import PREDICTION_PROBLEMS
from boucle_serving.predict_endpoint import PredictEndpoint
from boucle_serving.problems import FieldError, InvalidRequestError, problem_of
from boucle_serving.rows import MAX_ROWS, RowsService
from boucle_serving.service import Prediction

_ANSWER: dict[int | str, dict[str, Any]] = {
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
    }
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "The entity key and the moment asked about, or every feature: see GET /models.",
                    "properties": {
                        "user_id": {"type": "string"},
                        "as_of": {"type": "string", "description": "ISO 8601 date or date-time; UTC by default"},
                    },
                },
                "example": {"user_id": "4", "as_of": "1997-10-01"},
            }
        },
    }
}
_BATCH_ROW = {"description": "A row as /predict takes one; where it is malformed, its error is in place of the answer."}
_BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"rows": {"type": "array", "maxItems": MAX_ROWS, "items": _BATCH_ROW}},
                    "required": ["rows"],
                },
                "example": {"rows": [{"user_id": "4", "as_of": "1997-10-01"}]},
            }
        },
    }
}


def predict_router(endpoint: PredictEndpoint, rows: RowsService) -> APIRouter:
    """The routes of boucle's own protocol: one prediction a request, or many with an error for each that fails.

    Most single predictions are answered before they come here: see `predict_protocol`.
    """
    router = APIRouter(tags=["predict"], responses=PREDICTION_PROBLEMS)

    async def predict(request: Request, model: ModelName) -> Response:
        reply = await endpoint.reply(model, request.scope, request.receive, request_id=request.state.request_id)
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.body, reply.status, headers)

    options: dict[str, Any] = {"responses": _ANSWER, "openapi_extra": _BODY, "response_class": JSONResponse}

    @router.post("/predict", summary="Predict with the default model", **options)
    async def predict_default(request: Request) -> Response:
        """Answer for one entity as of one moment, from the features known at that moment."""
        return await predict(request, endpoint.default_model)

    @router.post("/models/{model}/predict", summary="Predict with a model", **options)
    async def predict_model(request: Request, model: str) -> Response:
        """Answer for one entity as of one moment, from the features known at that moment."""
        return await predict(request, ModelName(model))

    @router.post("/models/{model}/predict/batch", summary="Predict many at once", openapi_extra=_BATCH_BODY)
    async def predict_batch(request: Request, model: str) -> Response:
        """Answer row by row, in their order: a row that cannot be answered has its problem in place of the answer."""
        async with rows.body(request) as content:
            payloads = _rows(json_of(content))
            found = await rows.answer(request, ModelName(model), payloads, all_or_none=False)
        body = [_row(outcome) for outcome in found.outcomes]
        content = to_json({"model": model, "rows": body}, inf_nan_mode="null")
        return Response(content, media_type="application/json", headers=found.headers())

    return router


def _rows(payload: object) -> list[object]:
    rows = payload.get("rows") if isinstance(payload, dict) else None
    if not isinstance(rows, list) or not isinstance(payload, dict) or len(payload) > 1:
        raise InvalidRequestError(FieldError("rows", "must be all there is: a list of rows as /predict takes one"))
    return rows


def _row(outcome: Prediction | BoucleError) -> dict[str, Any]:
    return outcome.document() if isinstance(outcome, Prediction) else {"error": problem_of(outcome).document()}
