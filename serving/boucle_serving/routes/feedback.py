"""POST /feedback: outcomes and rewards of predictions, one or many at once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from boucle_serving.body import json_of
from boucle_serving.documented import FEEDBACK_PROBLEMS
from boucle_serving.feedback import DROPPED, KEPT, MAX_ID_LENGTH, MAX_ITEMS, MAX_MODEL_LENGTH, FeedbackService, Kept
from boucle_serving.problems import FieldError, InvalidRequestError, problem_of
from boucle_serving.threads import PredictingThreads

_EXAMPLE = {"prediction_id": "0b5c8a3e8b0d4a0f9f3e2c1d5a6b7c8d", "outcome": 1, "at": "1997-11-02T12:00:00Z"}
_ITEM: dict[str, Any] = {
    "type": "object",
    "description": "Either `outcome` or `reward`.",
    "properties": {
        "prediction_id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
        "outcome": {"type": ["number", "null"], "description": "1 or 0, or the number that was predicted"},
        "reward": {"type": ["number", "null"]},
        "at": {"type": "string", "format": "date-time", "description": "When it happened, with its offset"},
        "model": {"type": ["string", "null"], "minLength": 1, "maxLength": MAX_MODEL_LENGTH},
    },
    "required": ["prediction_id", "at"],
    "oneOf": [
        {"required": [one], "properties": {one: {"type": "number"}, other: {"type": "null"}}}
        for one, other in (("outcome", "reward"), ("reward", "outcome"))
    ],
    "additionalProperties": False,
}
_SEVERAL: dict[str, Any] = {
    "type": "object",
    "properties": {
        "feedback": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_ITEMS,
            "items": {"description": "As by itself; where it is malformed, its error is in place of the answer."},
        }
    },
    "required": ["feedback"],
    "additionalProperties": False,
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": [_ITEM, _SEVERAL]}, "example": _EXAMPLE}},
    }
}
_KEPT: dict[str, Any] = {
    "type": "object",
    "properties": {"prediction_id": {"type": "string"}, "status": {"enum": [KEPT, DROPPED]}},
    "required": ["prediction_id", "status"],
}
_REFUSED: dict[str, Any] = {"type": "object", "properties": {"error": {"type": "object"}}, "required": ["error"]}
_ALL: dict[str, Any] = {
    "type": "object",
    "properties": {"feedback": {"type": "array", "items": {"anyOf": [_KEPT, _REFUSED]}}},
    "required": ["feedback"],
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "What is `kept` is on the disk; it is joined with its prediction later. `dropped` is not.",
        "content": {
            "application/json": {
                "schema": {"anyOf": [_KEPT, _ALL]},
                "example": {"prediction_id": _EXAMPLE["prediction_id"], "status": KEPT},
            }
        },
    }
}

Body = Callable[[Request], AbstractAsyncContextManager[bytes]]


def feedback_router(service: FeedbackService, body: Body, threads: PredictingThreads) -> APIRouter:
    """The route of feedback; `body` lets a request in and reads it, as for predictions."""
    router = APIRouter(tags=["feedback"], responses={**FEEDBACK_PROBLEMS, **_ANSWER})

    @router.post(
        "/feedback",
        summary="Say what became of predictions",
        status_code=HTTPStatus.ACCEPTED,
        response_class=JSONResponse,
        openapi_extra=_BODY,
    )
    async def feedback(request: Request) -> JSONResponse:
        """Keep one item, or up to 1,000 with an error for each that is malformed; what is sent again counts once.

        The newest outcome (reward) of a prediction is in force. Whether the prediction is known is not said here:
        whoever answered may be another replica. Feedback about ids in no log is kept too, and named by the platform.
        """
        async with body(request) as content:
            payload = json_of(content)
            if not isinstance(payload, dict) or "feedback" not in payload:
                answer = _item(await threads.run(service.keep_one, payload))
            else:
                outcomes = await threads.run(service.keep, _items(payload))
                answer = {"feedback": [_item(outcome) for outcome in outcomes]}
        return JSONResponse(answer, status_code=HTTPStatus.ACCEPTED)

    return router


def _items(payload: Mapping[str, object]) -> Sequence[object]:
    items = payload["feedback"]
    if not isinstance(items, list) or len(payload) > 1:
        raise InvalidRequestError(FieldError("feedback", "must be all there is: a list of items"))
    return items


def _item(outcome: Kept | InvalidRequestError) -> dict[str, Any]:
    return outcome._asdict() if isinstance(outcome, Kept) else {"error": problem_of(outcome).document()}
