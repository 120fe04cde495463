"""Who asks: the bearer of a token, as a dependency of routes."""

from collections.abc import Callable
from typing import Annotated

from fastapi import Header

from boucle_adapters.tokens import Bearer, Role, TokenStore
from boucle_serving.problems import ForbiddenError, UnauthorizedError


def with_role(tokens: TokenStore, role: Role) -> Callable[[str], Bearer]:
    """A dependency that lets in those who have this role, to decide."""

    def allowed(authorization: Annotated[str, Header()] = "") -> Bearer:
        bearer = _bearer_of(tokens, authorization)
        if bearer is None:
            raise nobody_decides()
        if role not in bearer.roles:
            roles = ", ".join(sorted(bearer.roles)) or "nothing"
            raise ForbiddenError(f"'{bearer.actor}' may act as {roles}, not as {role}. Nothing changed.")
        return bearer

    return allowed


def nobody_decides() -> UnauthorizedError:
    """What is said to who wants to decide without a token that somebody made."""
    return UnauthorizedError(
        "This needs the header `Authorization: Bearer …` and a token that `boucle token` made. Nothing changed."
    )


def who_may_look(tokens: TokenStore, *, required: bool) -> Callable[[str], None]:
    """A dependency that lets in everybody, or, where a token is required, whoever has one: each role may look."""
    looks = looks_in(tokens, required=required)

    def allowed(authorization: Annotated[str, Header()] = "") -> None:
        if not looks(authorization):
            raise UnauthorizedError(
                "Looking needs the header `Authorization: Bearer …` and a token of any role; "
                "`boucle token service:NAME --role viewer` makes one that may only look."
            )

    return allowed


def looks_in(tokens: TokenStore, *, required: bool) -> Callable[[str], bool]:
    """A dependency that says whether the caller may look."""

    def may(authorization: Annotated[str, Header()] = "") -> bool:
        return not required or _bearer_of(tokens, authorization) is not None

    return may


def _bearer_of(tokens: TokenStore, authorization: str) -> Bearer | None:
    scheme, _, token = authorization.partition(" ")
    return tokens.bearer(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
