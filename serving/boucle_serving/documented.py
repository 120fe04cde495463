"""What the OpenAPI document says of errors: the problem documents of `boucle_serving.problems`, by kind of route."""

from typing import Any

_SAID = {
    400: "The body is not JSON in UTF-8.",
    401: "A token or key is needed.",
    403: "The token does not allow this.",
    404: "Unknown model, version or entity, or the entity has no features at this as_of.",
    408: "The body did not arrive in time.",
    409: "Things are not as the request supposes: somebody decided otherwise meanwhile, or policy does not allow it.",
    413: "More bytes or rows than are read.",
    422: "Malformed; `errors` names each field. Or as_of is beyond the watermark.",
    429: "The caller asks more often than it may; Retry-After says when it may again.",
    500: "The model's answer was withheld.",
    503: "No model in production yet, features, log or tokens unavailable, or too many requests; `detail` says which.",
}
PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


def _problems(*codes: int) -> dict[int | str, dict[str, Any]]:
    content = {"application/problem+json": {"schema": PROBLEM_SCHEMA}}
    return {code: {"description": _SAID[code], "content": content} for code in codes}


PREDICTION_PROBLEMS = _problems(401, 403, 404, 408, 413, 422, 429, 500, 503)
FEEDBACK_PROBLEMS = _problems(401, 403, 408, 413, 422, 429, 503)
MODEL_PROBLEMS = _problems(401, 404, 422, 429, 503)
ALERT_PROBLEMS = _problems(400, 401, 403, 404, 408, 409, 413, 422, 429, 503)
DECISION_PROBLEMS = _problems(400, 401, 403, 408, 409, 413, 422, 429, 503)
