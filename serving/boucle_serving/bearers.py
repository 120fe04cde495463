"""Who asks: the bearer of a token, as a dependency of routes."""

from collections.abc import Callable, Set
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
            raise may_not_decide(bearer, {role})
        return bearer

    return allowed


def nobody_decides() -> UnauthorizedError:
    """What is said to who wants to decide without a token that somebody made."""
    return UnauthorizedError(
        "This needs the header `Authorization: Bearer …` and a token that `boucle token` made. Nothing changed."
    )


def may_not_decide(bearer: Bearer, roles: Set[Role]) -> ForbiddenError:
    """What is said to who has none of the roles that decide this."""
    has, needs = ", ".join(sorted(bearer.roles)) or "nothing", " or ".join(sorted(roles))
    return ForbiddenError(f"'{bearer.actor}' may act as {has}, not as {needs}. Nothing changed.")


def nobody_looks() -> UnauthorizedError:
    """What is said to who wants to look without a token, where one is required."""
    return UnauthorizedError(
        "Looking needs the header `Authorization: Bearer …` and a token of any role; "
        "`boucle token service:NAME --role viewer` makes one that may only look."
    )


def _bearer_of(tokens: TokenStore, authorization: str) -> Bearer | None:
    scheme, _, token = authorization.partition(" ")
    return tokens.bearer(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
