"""Limits of the routes that are not for predictions: by whom, how often, and how much is read of a body."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from boucle_serving.admission import Admission
from boucle_serving.body import read_body


def limited(admission: Admission, *, most: int = 0, needs_token: bool = False) -> type[APIRoute]:
    """The `route_class` of a router whose requests are admitted before anything of them is read.

    Args:
        most: Bytes of a body; what is longer is not read to its end.
        needs_token: Whether a request without a token that somebody made is turned away at the door. Which role it
            must have is for the route to say.
    """

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def admitted(request: Request) -> Response:
                admission.enter_others(request.scope, needs_token=needs_token)
                try:
                    body = await read_body(request.receive, most=most, seconds=admission.limits.body_seconds)
                    return await answer(_ReadRequest(request, body))
                finally:
                    admission.leave()

            return admitted

    return LimitedRoute


class _ReadRequest(Request):
    """A request whose body is here already."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._read = body

    async def body(self) -> bytes:
        """What was read within the limits."""
        return self._read
