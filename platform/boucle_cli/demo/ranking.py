"""Ranked lists of the demo: the flights of a route and day by risk of delay, and clicks on those that were late.

Whether a flight was late is a real outcome. Who looks at a list is a model: a user reads from the top, clicks a late
flight with a probability, and has seen enough after a few clicks. So the version that puts late flights first gets more
of the clicks, and the place in the list counts, as it does with people.
"""

import http.client
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from boucle.contracts.ids import EntityKey, ModelName

if TYPE_CHECKING:
    import pandas as pd

LATE_MINUTES = 15
LEAST_FLIGHTS = 3
CLICK_PROBABILITY = 0.8
MOST_CLICKS = 3
REQUEST_TIMEOUT_SECONDS = 10


class Flight(NamedTuple):
    """A flight, the moment at which it is asked about, and what became of it."""

    flight_id: EntityKey
    as_of: datetime
    is_late: bool


class RouteDay(NamedTuple):
    """The flights of one route (`EWR-ORD`) on one day: what one user sees in one list."""

    route: str
    day: date
    flights: tuple[Flight, ...]


@dataclass
class RankTally:
    """What came of lists: those that were shown, their items, the late ones among these, and the clicks.

    `left_out` are flights without an answer, `unclicked` lists without a click; `failures` are requests by what they
    said, of lists and of feedback.
    """

    lists: int = 0
    shown: int = 0
    late: int = 0
    clicks: int = 0
    unclicked: int = 0
    left_out: int = 0
    failures: Counter[str] = field(default_factory=Counter)


def flights_of(rows: "pd.DataFrame") -> list[tuple[str, date, Flight]]:
    """The flights of a landing file (all columns as text) with their route and local day, in its order.

    Those without an arrival delay, cancelled or diverted, have no outcome and are left out.
    """
    import pandas as pd

    from boucle_platform.defs.flight_delay.schema import LEAD_MINUTES

    flown = rows[rows["arr_delay"] != ""]
    minutes = flown["sched_dep_time"].str[-2:].astype("int64") - LEAD_MINUTES
    asked = pd.to_datetime(flown["time_hour"], utc=True) + pd.to_timedelta(minutes, unit="min")
    days = pd.to_datetime(flown[["year", "month", "day"]].astype("int64")).dt.date
    ids = flown["carrier"] + "-" + flown["flight"] + "-" + flown["origin"] + "-" + days.astype(str)
    is_late = flown["arr_delay"].astype("int64") >= LATE_MINUTES
    return [
        (route, day, Flight(EntityKey(key), as_of.to_pydatetime(), late))
        for route, day, key, as_of, late in zip(
            flown["origin"] + "-" + flown["dest"], days, ids, asked, is_late.tolist(), strict=True
        )
    ]


def route_days(flights: Iterable[tuple[str, date, Flight]], *, at_least: int = LEAST_FLIGHTS) -> list[RouteDay]:
    """The flights by day and route, in this order; those with fewer are no list to rank."""
    groups: defaultdict[tuple[date, str], list[Flight]] = defaultdict(list)
    for route, day, flight in flights:
        groups[day, route].append(flight)
    return [
        RouteDay(route, day, tuple(found)) for (day, route), found in sorted(groups.items()) if len(found) >= at_least
    ]


def clicks(
    late: Sequence[bool],
    rng: random.Random,
    *,
    probability: float = CLICK_PROBABILITY,
    most: int = MOST_CLICKS,
) -> list[int]:
    """The places that a user clicks in a list, from the top.

    >>> clicks([False, True, True, True, True], random.Random(1), probability=1, most=2)
    [1, 2]
    """
    clicked: list[int] = []
    for place, is_late in enumerate(late):
        if len(clicked) == most:
            break
        if is_late and rng.random() < probability:
            clicked.append(place)
    return clicked


def user_of(group: RouteDay, seed: int) -> random.Random:
    """Who looks at this list: the same user whenever it is asked for with the same seed, whatever is in other lists."""
    return random.Random(f"{seed}/{group.route}/{group.day}")  # noqa: S311 - a simulated user, not a secret


def rank_route_days(
    address: str, model: ModelName, entity: str, groups: Iterable[RouteDay], *, seed: int = 7
) -> RankTally:
    """Have the flights of each route and day ranked, let a user look at each list, and send the clicks as feedback.

    Args:
        address: Of a replica that serves the model, such as `http://127.0.0.1:8000`.
        model: Whose lists.
        entity: The name of its entity, such as `flight_id`.
        groups: One list each. Its id is made of route, day and seed, so that who picks first can be worked out again.
        seed: Of the users.

    Returns:
        What was shown and clicked. A request that fails is counted, and the next one sent.
    """
    tally = RankTally()
    caller = _Caller(address, tally.failures)
    for group in groups:
        items = [{entity: flight.flight_id, "as_of": flight.as_of.isoformat()} for flight in group.flights]
        request_id = f"{group.route}.{group.day}.{seed}"
        shown = caller.post(f"/models/{model}/rank", {"items": items}, request_id=request_id)
        if shown is None:
            continue
        clicked = _looked_at(group, [item[entity] for item in shown["items"]], tally, user_of(group, seed))
        tally.left_out += len(shown["errors"])
        # The moment of the click: nobody looks at the list before its last flight can be asked about.
        at = max(flight.as_of for flight in group.flights).isoformat()
        feedback = [
            {"prediction_id": shown["items"][place]["prediction_id"], "reward": 1, "at": at, "model": model}
            for place in clicked
        ]
        if feedback:
            caller.post("/feedback", {"feedback": feedback}, request_id=f"{request_id}.clicks")
    caller.close()
    return tally


def _looked_at(group: RouteDay, order: Sequence[str], tally: RankTally, rng: random.Random) -> list[int]:
    """The places that are clicked in a list; it is counted with what is in it."""
    outcomes = {flight.flight_id: flight.is_late for flight in group.flights}
    late = [outcomes[EntityKey(key)] for key in order]
    clicked = clicks(late, rng)
    tally.lists += 1
    tally.shown += len(late)
    tally.late += sum(late)
    tally.clicks += len(clicked)
    tally.unclicked += not clicked
    return clicked


class _Caller:
    """One kept-alive connection; what fails is counted by what it said."""

    def __init__(self, address: str, failures: Counter[str]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=REQUEST_TIMEOUT_SECONDS)
        self._failures = failures

    def post(self, path: str, document: Mapping[str, object], *, request_id: str) -> dict[str, Any] | None:
        """The answer to a document; None when there is none."""
        headers = {"content-type": "application/json", "x-request-id": request_id}
        try:
            self._connection.request("POST", path, json.dumps(document), headers)
            response = self._connection.getresponse()
            content: dict[str, Any] = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._connection.close()
            self._failures[f"{type(error).__name__}: {error}"] += 1
            return None
        if response.status >= 300:
            self._failures[f"{response.status}: {content.get('detail', '')}"] += 1
            return None
        return content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()
