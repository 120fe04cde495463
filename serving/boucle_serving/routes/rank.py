"""POST /models/{model}/rank: a list of items for one request, the best first."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic_core import to_json

from boucle.contracts.ids import ModelName
from boucle_serving.body import json_of
from boucle_serving.documented import PREDICTION_PROBLEMS, PROBLEM_SCHEMA
from boucle_serving.problems import FieldError, InvalidRequestError
from boucle_serving.questions import unknown_fields
from boucle_serving.ranking import MAX_ITEMS, RankingService, Wanted

_ITEM = {"description": "A row as /models/{model}/predict takes one."}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "items": {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": _ITEM},
                        "length": {
                            "type": ["integer", "null"],
                            "minimum": 1,
                            "maximum": MAX_ITEMS,
                            "description": "How many are shown at most; by default all",
                        },
                    },
                    "required": ["items"],
                    "additionalProperties": False,
                },
                "example": {
                    "items": [
                        {"flight_id": "UA-1545-EWR-2013-01-01", "as_of": "2013-01-01T08:15:00Z"},
                        {"flight_id": "UA-1714-LGA-2013-01-01", "as_of": "2013-01-01T08:29:00Z"},
                    ],
                    "length": 10,
                },
            }
        },
    }
}
_SHOWN = {
    "type": "object",
    "description": "The row as it was sent, and the answer.",
    "properties": {
        "proba": {"type": "number"},
        "prediction_id": {"type": "string"},
        "position": {"type": "integer", "minimum": 1},
        "model_version": {"type": "integer"},
    },
    "required": ["proba", "prediction_id", "position", "model_version"],
}
_LEFT_OUT = {
    "type": "object",
    "properties": {"index": {"type": "integer", "minimum": 0}, "problem": PROBLEM_SCHEMA},
    "required": ["index", "problem"],
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The list; it is in the rank log already. Its clicks are feedback with a `reward` above 0.",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "model": {"type": "string"},
                        "rank_id": {"type": "string"},
                        "items": {"type": "array", "minItems": 1, "items": _SHOWN},
                        "errors": {"type": "array", "items": _LEFT_OUT},
                    },
                    "required": ["model", "rank_id", "items", "errors"],
                }
            }
        },
    }
}

Body = Callable[[Request], AbstractAsyncContextManager[bytes]]


def rank_router(service: RankingService, body: Body) -> APIRouter:
    """The route of ranked lists; `body` lets a request in and reads it, as for predictions."""
    router = APIRouter(tags=["rank"], responses={**PREDICTION_PROBLEMS, **_ANSWER})

    @router.post("/models/{model}/rank", summary="Rank items", response_class=JSONResponse, openapi_extra=_BODY)
    async def rank(request: Request, model: str) -> Response:
        """Order items by probability, the highest first; equal ones in the order in which they were sent.

        While a version on trial is interleaved, the list is drafted from its order and production's, each item once;
        `proba` and `model_version` are then of the version that picked the item. Who picks first is drawn by the
        `x-request-id`: give each request its own, or none. An item without an answer is in `errors`, by its place.
        """
        async with body(request) as content:
            wanted = _wanted(json_of(content))
            ranked = await service.rank(ModelName(model), request.state.request_id, wanted)
        answer = to_json(ranked.document(), inf_nan_mode="null")  # of a row that was sent with NaN
        return Response(answer, media_type="application/json", headers=ranked.headers())

    return router


def _wanted(payload: object) -> Wanted:
    if not isinstance(payload, dict):
        raise InvalidRequestError(FieldError("body", "must be a JSON object with items, and perhaps length"))
    errors = unknown_fields(payload, {"items", "length"}, "the fields are items and length")
    items, length = payload.get("items"), payload.get("length")
    if not isinstance(items, list):
        errors.append(FieldError("items", "must be a list of rows as /predict takes one"))
    if length is not None and not _is_length(length):
        errors.append(FieldError("length", f"must be a whole number from 1 to {MAX_ITEMS}, not {length!r:.80}"))
    if errors or not isinstance(items, list):
        raise InvalidRequestError(*errors)
    return Wanted(items, length)


def _is_length(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_ITEMS
