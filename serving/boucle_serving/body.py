"""The body of a request: read within limits, parsed as JSON."""

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

from pydantic_core import from_json
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from boucle_serving.problems import FieldError, InvalidRequestError, TooLargeError, TooSlowError


async def read_body(receive: Receive, *, most: int, seconds: float) -> bytes:
    """The whole body; what is longer is not read to its end.

    Raises:
        TooLargeError: It has more than `most` bytes.
        TooSlowError: It did not arrive within `seconds`.
        ClientDisconnect: The caller went away.
    """
    steps = receive().__await__()
    try:
        waits_for = next(steps)
    except StopIteration as arrived:
        message = arrived.value
        body: bytes = message.get("body", b"")
        rest: Awaitable[Message] | None = receive() if message.get("more_body", False) else None
    else:
        body, rest = b"", _Begun(steps, waits_for)
    if rest is not None:
        message, body = await _in_time(rest, receive, body, most=most, seconds=seconds)
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if len(body) > most:
        raise too_large(most)
    return body


def too_large(most: int) -> TooLargeError:
    """What is said of a body with more than `most` bytes."""
    return TooLargeError(f"The body has more than {most} bytes; no more are read.")


async def _in_time(
    first: Awaitable[Message], receive: Receive, body: bytes, *, most: int, seconds: float
) -> tuple[Message, bytes]:
    """The last message and the whole body, for a body that is not here yet."""
    try:
        async with asyncio.timeout(seconds):
            message = await first
            body += message.get("body", b"")
            while message.get("more_body", False) and len(body) <= most:
                message = await receive()
                body += message.get("body", b"")
    except TimeoutError as error:
        raise TooSlowError(f"The body did not arrive within {seconds:g} s. Send it again.") from error
    return message, body


class _Begun:
    """The rest of an awaitable that was tried once, without a time-out, and has to wait for something.

    Nearly every body is here when it is asked for, and a time-out costs as much as the look-up of the features.
    """

    def __init__(self, steps: Generator[Any, Any, Message], waits_for: object) -> None:
        self._steps = steps
        self._waits_for = waits_for

    def __await__(self) -> Generator[Any, Any, Message]:
        try:
            yield self._waits_for
        except BaseException as error:
            self._steps.throw(error)
            raise
        return (yield from self._steps)


def json_of(body: bytes) -> object:
    """The body as JSON. Raises InvalidRequestError."""
    try:
        parsed: object = from_json(body)
    except ValueError as error:
        raise InvalidRequestError(FieldError("body", f"is not JSON: {error}")) from error
    return parsed
