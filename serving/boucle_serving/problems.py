"""Errors as HTTP sees them: problem documents of RFC 9457, one mapping from our errors to status codes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse

from boucle.errors import (
    ApprovalError,
    AsOfError,
    BoucleError,
    BundleError,
    ConflictError,
    FeatureLookupError,
    NoProductionModelError,
    NotSetUpError,
    StateStoreError,
    UnknownEntityError,
)
from boucle_adapters.online_store import BeyondWatermarkError

_ROWS_SHOWN = 5
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    message: str


class InvalidRequestError(BoucleError):
    """A request is malformed; each field that is wrong is named."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__("; ".join(f"{error.field}: {error.message}" for error in errors))
        self.errors = errors


class TooLargeError(BoucleError):
    """A body with more bytes or rows than are read."""


class RowsError(BoucleError):
    """Rows of a request that is answered as a whole or not at all have no answer: which, and why."""

    def __init__(self, errors: Mapping[int, BoucleError]) -> None:
        shown = [f"row {number}: {error}" for number, error in list(errors.items())[:_ROWS_SHOWN]]
        more = [f"and {len(errors) - _ROWS_SHOWN} rows more"] if len(errors) > _ROWS_SHOWN else []
        super().__init__("; ".join([*shown, *more]))
        self.errors = errors


class TooSlowError(BoucleError):
    """A body that did not arrive in time."""


class TooManyRequestsError(BoucleError):
    """A caller asks more often than it may; `wait_seconds` until it may again."""

    def __init__(self, message: str, wait_seconds: float) -> None:
        super().__init__(message)
        self.wait_seconds = wait_seconds


class BusyError(BoucleError):
    """As many requests as are answered at a time are being answered."""


class UnknownModelError(BoucleError):
    """The path names a model that no traffic plan knows."""


class UnauthorizedError(BoucleError):
    """Nobody knows who asks."""


class TokensUnknownError(BoucleError):
    """Whose a token is cannot be said: the file of tokens was not read yet, or is none."""


class ForbiddenError(BoucleError):
    """The one who asks may not do this."""


class LogUnavailableError(BoucleError):
    """A prediction or feedback could not be written to its log, so the answer was withheld."""


@dataclass(frozen=True)
class Problem:
    """One problem document. `kind` is stable: programs may switch on it."""

    status: HTTPStatus
    kind: str
    title: str
    detail: str
    errors: Sequence[FieldError] = ()
    headers: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """The document itself."""
        content: dict[str, Any] = {
            "type": f"urn:boucle:problem:{self.kind}",
            "title": self.title,
            "status": int(self.status),
            "detail": self.detail,
        }
        if self.errors:
            content["errors"] = [{"field": error.field, "message": error.message} for error in self.errors]
        return content

    def response(self, headers: Mapping[str, str] | None = None, *, path: str = "") -> JSONResponse:
        """The document as an answer; under /v2 `error` says the same to clients of the Open Inference Protocol."""
        content = {**self.document(), **({"error": self.detail} if path.startswith("/v2") else {})}
        return JSONResponse(
            content, status_code=int(self.status), media_type=MEDIA_TYPE, headers={**self.headers, **(headers or {})}
        )


# The first class that fits counts, so the narrower ones come first.
_KINDS: tuple[tuple[type[BoucleError], HTTPStatus, str, str], ...] = (
    (InvalidRequestError, HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "The request is malformed"),
    (TooSlowError, HTTPStatus.REQUEST_TIMEOUT, "too-slow", "The request did not arrive in time"),
    (TooManyRequestsError, HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", "Too many requests"),
    (BusyError, HTTPStatus.SERVICE_UNAVAILABLE, "busy", "Too many requests at a time"),
    (TooLargeError, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", "The request is too large"),
    (UnauthorizedError, HTTPStatus.UNAUTHORIZED, "unauthorized", "A token is needed"),
    (TokensUnknownError, HTTPStatus.SERVICE_UNAVAILABLE, "tokens-unavailable", "Tokens cannot be looked up"),
    (ForbiddenError, HTTPStatus.FORBIDDEN, "forbidden", "The token does not allow this"),
    (ApprovalError, HTTPStatus.CONFLICT, "not-allowed-now", "The decision was not recorded"),
    (ConflictError, HTTPStatus.CONFLICT, "conflict", "Things are not as the request supposes"),
    (StateStoreError, HTTPStatus.SERVICE_UNAVAILABLE, "state-store-unavailable", "The state store cannot be read"),
    (UnknownModelError, HTTPStatus.NOT_FOUND, "unknown-model", "No such model is served here"),
    (UnknownEntityError, HTTPStatus.NOT_FOUND, "unknown-entity", "The entity is not known"),
    (BeyondWatermarkError, HTTPStatus.UNPROCESSABLE_ENTITY, "beyond-watermark", "as_of is not published yet"),
    (AsOfError, HTTPStatus.NOT_FOUND, "no-features-at-as-of", "The entity has no features at this as_of"),
    (FeatureLookupError, HTTPStatus.SERVICE_UNAVAILABLE, "features-unavailable", "Features cannot be read"),
    (NoProductionModelError, HTTPStatus.SERVICE_UNAVAILABLE, "no-production-model", "No model is in production"),
    (LogUnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "log-unavailable", "The log cannot be written"),
    (BundleError, HTTPStatus.INTERNAL_SERVER_ERROR, "invalid-answer", "The model's answer was withheld"),
)


def problem_of(error: BoucleError) -> Problem:
    """The problem document of one of our errors; of several rows, with the status of the first."""
    if isinstance(error, RowsError):
        return replace(problem_of(next(iter(error.errors.values()))), detail=str(error), errors=_fields(error))
    for kind_of_error, status, kind, title in _KINDS:
        if isinstance(error, kind_of_error):
            return Problem(status, kind, title, for_callers(error), _fields(error), _headers(error, status))
    return internal_problem()


def for_callers(error: Exception) -> str:
    """What an answer may say of an error, readiness included: our sentences are written for people.

    What a database says of itself (host, user, file) is for the log.
    """
    if isinstance(error, NotSetUpError):
        return (
            "There is no state store of this release yet: `boucle dev` or `boucle feed` sets it up. The log of this "
            "replica says where it looked."
        )
    if isinstance(error, BoucleError) and not isinstance(error, StateStoreError):
        return str(error)
    return "The state store cannot be used now. The log of this replica says why."


def internal_problem() -> Problem:
    """What a caller learns of an error that we did not foresee: nothing but where to look."""
    return Problem(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "internal-error",
        "Something went wrong here",
        "The request was not answered. The server's log names the cause under the id in the x-request-id header.",
    )


def http_problem(status: int, detail: str) -> Problem:
    """The problem document of a plain HTTP error: no such path, wrong method."""
    code = HTTPStatus(status)
    return Problem(code, code.phrase.lower().replace(" ", "-"), code.phrase, detail)


def _headers(error: BoucleError, status: HTTPStatus) -> Mapping[str, str]:
    if isinstance(error, UnauthorizedError):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, TooManyRequestsError):
        return {"retry-after": str(math.ceil(error.wait_seconds))}
    return {"retry-after": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}


def _fields(error: BoucleError) -> Sequence[FieldError]:
    if isinstance(error, InvalidRequestError):
        return error.errors
    if isinstance(error, RowsError):
        return [
            FieldError(f"row {number}.{field.field}", field.message)
            for number, one in error.errors.items()
            for field in _fields(one)
        ]
    if isinstance(error, AsOfError):
        return (FieldError("as_of", str(error)),)
    return ()
