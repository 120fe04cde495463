"""Who may ask, how often, and how many at a time."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from starlette.types import Scope

from boucle.contracts.traffic_plan import Role as TrafficRole
from boucle_adapters.tokens import Bearer, Role
from boucle_serving.bearers import may_not_decide, nobody_decides, nobody_looks
from boucle_serving.known_tokens import KnownTokens
from boucle_serving.metrics import ServingMetrics
from boucle_serving.problems import (
    BusyError,
    FieldError,
    ForbiddenError,
    InvalidRequestError,
    TokensUnknownError,
    TooManyRequestsError,
    UnauthorizedError,
)

_CALLERS_REMEMBERED = 10_000
_LONGEST_ADDRESS = 64
ARM = b"x-boucle-arm"
_ARMS = {role.value.encode(): role for role in (TrafficRole.PRODUCTION, TrafficRole.CHALLENGER)}


class Kind(StrEnum):
    """What a request is that asks for no prediction."""

    LOOKS = "looks"
    DECISIONS = "decisions"
    ALERTS = "alerts"


PLACES = {Kind.LOOKS: 16, Kind.DECISIONS: 16, Kind.ALERTS: 4}
"""Requests of a kind at a time. Each may hold a thread for as long as the state store hangs. There are 40, which is
AnyIO's default: whatever hangs in the other kinds, each finds threads for its own."""
Payer = tuple[str, str]
"""Whose budget is spent: an address or an actor, which are not the same where an address reads like a name."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one replica takes. Zero requests per second is no limit of rate.

    The rate is by caller: the owner of the key where keys are required, else the address. What a second allows may
    come at once.
    """

    require_key: bool = False
    requests_per_second: float = 0.0
    concurrent_requests: int = 256
    body_seconds: float = 10.0

    @property
    def by_address(self) -> bool:
        """Whether callers are told apart by their address."""
        return self.requests_per_second > 0 and not self.require_key


class Admission:
    """Lets requests in, or raises what the caller is told. Lives in one event loop: it has no lock."""

    def __init__(
        self, limits: Limits, tokens: KnownTokens, metrics: ServingMetrics, *, timer: Callable[[], float] = monotonic
    ) -> None:
        self.limits = limits
        self._tokens = tokens
        self._metrics = metrics
        self._timer = timer
        self._inside = 0
        self._others: Counter[Kind] = Counter()
        self._budgets: OrderedDict[Payer, tuple[float, float]] = OrderedDict()

    def enter(self, scope: Scope, *, is_peer: bool = False) -> None:
        """Let one request in; `leave` must follow.

        Args:
            scope: The request.
            is_peer: Whether its address is the peer's, which may be a proxy: nobody is charged for an unknown key then.

        Raises:
            UnauthorizedError: A key is required, and there is none, or nobody knows it.
            ForbiddenError: The key is not for predictions.
            TooManyRequestsError: The caller's rate is above the limit.
            TokensUnknownError: Tokens cannot be looked up now.
            BusyError: As many requests as are answered at a time are being answered.
        """
        limits = self.limits
        self._expect_room(self._inside, limits.concurrent_requests, "requests")
        if limits.require_key:
            self._expect_caller(scope, is_peer=is_peer)
        elif limits.requests_per_second:
            self._spend(_address(scope))
        self._inside += 1

    @contextmanager
    def others(self, scope: Scope, kind: Kind, *, roles: Set[Role] = frozenset()) -> Iterator[None]:
        """Hold a place for a request that asks for no prediction, until the block ends.

        Each kind has places of its own: what hangs in one stops no other.

        Args:
            scope: The request.
            kind: What it is.
            roles: Who may decide, one of them is enough; nobody where it is to look.

        Raises:
            UnauthorizedError: A token is needed, and there is none, or nobody knows it.
            ForbiddenError: The token has none of the roles.
            TooManyRequestsError: The caller's rate is above the limit.
            TokensUnknownError: Tokens cannot be looked up now.
            BusyError: As many requests of its kind as are answered at a time are being answered.
        """
        self._expect_room(self._others[kind], PLACES[kind], kind)
        needs_token = bool(roles) or self.limits.require_key
        bearer = self._bearer(_token(scope["headers"])) if needs_token else None
        self._spend(_actor(bearer) if bearer else _address(scope))
        if needs_token:
            self._expect_right(bearer, roles)
        self._others[kind] += 1
        try:
            yield
        finally:
            self._others[kind] -= 1

    def may_look(self, scope: Scope) -> bool:
        """Whether a probe, which is always answered, may be told as much as who looks; it takes no place."""
        if not self.limits.require_key:
            return True
        token, address = _token(scope["headers"]), _address(scope)
        try:
            self._expect_budget(address)  # whoever tried too many keys gets no more tried
            is_known = self._bearer(token) is not None
            if token and not is_known:
                self._spend(address)
        except (TooManyRequestsError, TokensUnknownError):
            return False
        return is_known

    def chosen_arm(self, scope: Scope) -> TrafficRole | None:
        """The arm that the caller wants to be answered by, where it says so (`x-boucle-arm`) and may choose.

        Raises:
            UnauthorizedError: There is no token, or nobody knows it.
            ForbiddenError: The token is not a tester's.
            InvalidRequestError: There is no arm of this name.
        """
        said = next((value for name, value in scope["headers"] if name == ARM), None)
        if said is None:
            return None
        bearer = self._bearer(_token(scope["headers"]))
        if bearer is None:
            raise UnauthorizedError("Choosing an arm needs `Authorization: Bearer …` and a tester's token.")
        if Role.TESTER not in bearer.roles:
            raise ForbiddenError(f"The token of '{bearer.actor}' may not choose an arm: make one with --role tester.")
        if said not in _ARMS:
            raise InvalidRequestError(
                FieldError(ARM.decode(), f"must be {' or '.join(_ARMS.values())}, not {said!r:.80}")
            )
        return _ARMS[said]

    def leave(self) -> None:
        """The request that was let in is answered."""
        self._inside -= 1

    def _expect_room(self, inside: int, most: int, kind: str) -> None:
        if inside >= most:
            self._metrics.refused.labels("concurrency").inc()
            raise BusyError(f"{inside} {kind} are being answered, which is the limit. Ask again in a second.")

    def _expect_right(self, bearer: Bearer | None, roles: Set[Role]) -> None:
        if bearer is not None and (not roles or roles & bearer.roles):
            return
        self._metrics.refused.labels("key").inc()
        if bearer is not None:
            raise may_not_decide(bearer, roles)
        raise nobody_decides() if roles else nobody_looks()

    def _expect_caller(self, scope: Scope, *, is_peer: bool) -> None:
        bearer = self._bearer(_token(scope["headers"]))
        if bearer is None:
            if not is_peer:
                self._spend(_address(scope))  # trying keys is not free
                self._metrics.refused.labels("key").inc()
            raise UnauthorizedError(
                "Predictions need the header `Authorization: Bearer …` and a key that "
                "`boucle token service:NAME --role caller` made."
            )
        self._spend(_actor(bearer))
        if Role.CALLER not in bearer.roles:
            self._metrics.refused.labels("key").inc()
            raise ForbiddenError(f"The token of '{bearer.actor}' is not for predictions: make one with --role caller.")

    def _bearer(self, token: str) -> Bearer | None:
        return self._tokens.bearer(token) if token else None

    def _spend(self, payer: Payer) -> None:
        """Take one from a budget (a token bucket that a second fills), where the rate has a limit."""
        if not self.limits.requests_per_second:
            return
        self._budgets[payer] = (self._expect_budget(payer) - 1, self._timer())
        self._budgets.move_to_end(payer)
        if len(self._budgets) > _CALLERS_REMEMBERED:
            self._budgets.popitem(last=False)

    def _expect_budget(self, payer: Payer) -> float:
        """What is left of a budget, one at least. Raises TooManyRequestsError."""
        per_second = self.limits.requests_per_second
        now, most = self._timer(), max(1.0, per_second)
        left, at = self._budgets.get(payer, (most, now))
        left = min(most, left + (now - at) * per_second)
        if left >= 1 or not per_second:
            return left
        self._metrics.refused.labels("rate").inc()
        wait = (1 - left) / per_second
        raise TooManyRequestsError(
            f"'{payer[1]}' may send {per_second:g} requests a second; ask again in {wait:.2f} s.", wait
        )


def _token(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The bearer token of a request; empty where there is none."""
    said = next((value.decode("latin-1") for name, value in headers if name == b"authorization"), "")
    scheme, _, token = said.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _actor(bearer: Bearer) -> Payer:
    return "actor", bearer.actor


def _address(scope: Scope) -> Payer:
    client = scope.get("client")
    # A proxy may hand on whatever the caller says it is, as long as a head may be.
    return "address", str(client[0])[:_LONGEST_ADDRESS] if client else "unknown"
