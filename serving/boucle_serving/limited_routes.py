"""Limits of the routes that are not for predictions: by whom, how often, and how much is read of a body."""

from collections.abc import Callable, Coroutine, Set
from typing import Any

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from boucle_adapters.tokens import Role
from boucle_serving.admission import Admission, Kind
from boucle_serving.body import read_body


def looking(admission: Admission) -> type[APIRoute]:
    """The `route_class` of a router for looks: who may not look is turned away; nothing is read of a body."""

    class LookingRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def admitted(request: Request) -> Response:
                with admission.others(request.scope, Kind.LOOKS):
                    return await answer(request)

            return admitted

    return LookingRoute


def deciding(admission: Admission, roles: Set[Role], *, most: int, kind: Kind = Kind.DECISIONS) -> type[APIRoute]:
    """The `route_class` of a router for decisions, whose requests are admitted before anything of them is read.

    Args:
        admission: Who lets them in.
        roles: Who has none of them is turned away at the door. Which one it must be is for the route to say.
        most: Bytes of a body; what is longer is not read to its end.
        kind: Whose places they take, for as long as their bodies are waited for as well.
    """

    class DecidingRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def admitted(request: Request) -> Response:
                with admission.others(request.scope, kind, roles=roles):
                    body = await read_body(request.receive, most=most, seconds=admission.limits.body_seconds)
                    return await answer(_ReadRequest(request, body))

            return admitted

    return DecidingRoute


class _ReadRequest(Request):
    """A request whose body is here already."""

    def __init__(self, request: Request, body: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._read = body

    async def body(self) -> bytes:
        """What was read within the limits."""
        return self._read
