"""Which of two rankers is preferred: both in one list, and whose items are clicked.

Team-draft as two captains choose players: in each round both rankers pick their best item that is not in the list yet;
who picks first is drawn anew for each round (Radlinski, Kurup and Joachims 2008, How Does Clickthrough Data Reflect
Retrieval Quality?, CIKM). A click is credit for the team that picked the item, and the team with more of them wins the
request; ties say nothing (Chapelle, Joachims, Radlinski and Yue 2012, Large-Scale Validation and Analysis of
Interleaved Search Evaluation, TOIS 30). Of two equal rankers each wins half of the decided requests, whatever users do
with the first place: the draw sees to that.

Items that both rank alike from the top belong to neither team, and the draft begins after them, as in Lerot (Schuth,
Hofmann, Whiteson and de Rijke 2013): clicks on them would only be credit by the draw, noise that needs more requests.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import takewhile
from statistics import NormalDist
from typing import TypeVar

from pydantic import Field

from boucle.contracts.trials import Preference, Preferences, Team, TrialResult
from boucle.contracts.verdict import Bound, Gate, Verdict
from boucle.policy.ab import TrialLength, decided, measured
from boucle.stats.counts import concentration_for, share_interval

Item = TypeVar("Item", str, int)
ROUNDS = 64
"""So many draws are in one digest; later rounds of a longer list repeat them."""


class InterleavingPolicy(TrialLength):
    """From how much on a preference must be found."""

    min_preference: float = Field(
        default=0.05, gt=0, lt=0.5, description="smallest share of decided requests above a half that is worth a change"
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5, description="how often equal rankers are told apart")
    power: float = Field(default=0.9, gt=0.5, lt=1, description="of the requests asked for, at the least preference")
    min_decided: int = Field(default=100, ge=1, description="requests with a preference, before any is believed")
    click_window_hours: float = Field(default=24, gt=0, description="after which what was not clicked never will be")


def first_team(rollout: str, request_id: str) -> Team:
    """Who picks first in the first round: `first_teams` with one round.

    >>> first_team("search", "r1") == first_teams("search", "r1")[0]
    True
    """
    return first_teams(rollout, request_id)[0]


def first_teams(rollout: str, request_id: str) -> tuple[Team, ...]:
    """Who picks first in each round: fair over requests and rounds, and the same for whoever asks again."""
    digest = blake2b(f"{rollout}/first team/{request_id}".encode(), digest_size=ROUNDS // 8).digest()
    bits = int.from_bytes(digest, "big")
    return tuple(Team.A if bits >> place & 1 else Team.B for place in range(ROUNDS))


def team_draft(
    first: Team | Sequence[Team], ranking_a: Sequence[Item], ranking_b: Sequence[Item], length: int | None = None
) -> list[tuple[Item, Team | None]]:
    """One list of both rankings, each item once, with the team that picked it; None where both begin alike.

    Args:
        first: Who picks first, in every round or round by round (then from the beginning again).
        ranking_a: Best item first.
        ranking_b: Best item first; where it holds other items than `ranking_a`, the list has all of them.
        length: Of the list, at most; None is all items.

    Raises:
        ValueError: A ranking holds an item twice.

    >>> [f"{item} {team}" for item, team in team_draft(Team.A, ["v", "x", "y", "z"], ["v", "x", "z", "y"])]
    ['v None', 'x None', 'y a', 'z b']
    """
    for ranking in (ranking_a, ranking_b):
        if len(set(ranking)) < len(ranking):
            raise ValueError(f"A ranking holds each item once; repeated: {_repeated(ranking)}.")
    firsts = (first,) if isinstance(first, Team) else tuple(first)
    alike = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(ranking_a, ranking_b, strict=False))]
    drafted: dict[Item, Team | None] = dict.fromkeys(alike)
    left = {Team.A: iter(ranking_a), Team.B: iter(ranking_b)}
    for turn in range(2 * max(len(ranking_a), len(ranking_b))):
        begins = firsts[turn // 2 % len(firsts)]
        team = begins if turn % 2 == 0 else _OTHER[begins]
        item = next((one for one in left[team] if one not in drafted), None)
        if item is not None:
            drafted[item] = team
    return list(drafted.items())[:length]


def preference(drafted: Iterable[tuple[Item, Team | None]], clicked: Iterable[Item]) -> Preference:
    """Whose picks got more clicks in one request; several clicks on one item are one.

    Raises:
        ValueError: An item was clicked that is not in the list.
    """
    teams = dict(drafted)
    items = set(clicked)
    if not items <= teams.keys():
        raise ValueError(f"Clicked, but not in the list of this request: {sorted(items - teams.keys())}.")
    credit = Counter(teams[item] for item in items)
    if credit[Team.A] == credit[Team.B]:
        return Preference.TIE
    return Preference.A if credit[Team.A] > credit[Team.B] else Preference.B


def decided_requests_needed(policy: InterleavingPolicy) -> int:
    """Requests with a preference (ties not counted) after which an interval leaves out what is `min_preference` away.

    So after as many a challenger that wins half and `min_preference` has won, with the probability `power`.
    """
    reach = NormalDist().inv_cdf(policy.power)
    low, high = 1, 2
    while not _tells_apart(policy, high, reach):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _tells_apart(policy, middle, reach) else (middle, high)
    return high


def interleaving_gates(policy: InterleavingPolicy, counts: Preferences) -> tuple[Gate, ...]:
    """The share of decided requests that the challenger won, with an interval that holds at every look.

    The interval is that of a sign test whose evidence is a martingale (`boucle.stats.counts.share_interval`), so it is
    exact for any number of looks, and needs no normal law.
    """
    gate = Gate(
        name="preference",
        verdict=Verdict.INCONCLUSIVE,
        measured=None,
        bound=Bound.AT_LEAST,
        limit=0.5,
        unit="share of decided requests",
        sample_size=counts.decided,
        detail=f"{counts.ties} more were ties.",
    )
    if counts.decided < policy.min_decided:
        detail = f"Fewer than {policy.min_decided} requests with a preference: nothing is known yet."
        return (gate.model_copy(update={"detail": detail}),)
    low, high = _interval(policy, counts.challenger, counts.decided)
    return (measured(gate, counts.challenger / counts.decided, low, high),)


def interleaving_outcome(policy: InterleavingPolicy, gates: Sequence[Gate], *, days: float) -> TrialResult:
    """What the gates of this look say, `days` after the trial began."""
    (gate,) = gates
    outcome, reason = decided(policy, gate, min_effect=policy.min_preference, days=days)
    return TrialResult(outcome=outcome, reason=reason, gates=tuple(gates))


_OTHER = {Team.A: Team.B, Team.B: Team.A}


def _interval(policy: InterleavingPolicy, wins: int, n: int) -> tuple[float, float]:
    concentration = concentration_for(0.5, policy.min_preference)
    return share_interval(wins, n, alpha=policy.alpha, center=0.5, concentration=concentration)


def _tells_apart(policy: InterleavingPolicy, n: int, reach: float) -> bool:
    share = 0.5 + policy.min_preference
    unlucky = n * share - reach * math.sqrt(n * share * (1 - share))
    return _interval(policy, max(0, math.floor(unlucky)), n)[0] > 0.5


def _repeated(ranking: Sequence[Item]) -> list[Item]:
    return [item for item, times in Counter(ranking).items() if times > 1]
