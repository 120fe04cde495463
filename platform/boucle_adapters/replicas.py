"""Waiting until what was decided is what is served: as the replicas report it, and as they answer."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from boucle.contracts.ids import ModelName
from boucle.ports import StateStore

ANSWER_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Which live replicas serve the revision, and how many seconds the last of them took.

    `asked` are those of them that said so over HTTP as well; the others announce no address that can be reached from
    here. `gone` were live when the waiting began and fell silent: ended, or frozen and not to be trusted.
    """

    revision: int
    served: tuple[str, ...]
    behind: tuple[str, ...]
    asked: tuple[str, ...]
    gone: tuple[str, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether there is a live replica and none is behind."""
        return bool(self.served) and not self.behind

    def sentence(self) -> str:
        """What a person should know."""
        gone = f"; silent since: {', '.join(self.gone)}" if self.gone else ""
        if not self.served and not self.behind:
            return f"no live replica; the plan is served as soon as one starts{gone}"
        if self.behind:
            return f"not on revision {self.revision} after {self.seconds:.1f} s: {', '.join(self.behind)}{gone}"
        said = f"{len(self.served)} replica(s) serve revision {self.revision} after {self.seconds:.2f} s"
        unseen = sorted(set(self.served) - set(self.asked))
        return f"{said} (by their own report alone: {', '.join(unseen)}){gone}" if unseen else f"{said}{gone}"


def wait_until_served(
    state: StateStore, model: ModelName, revision: int, *, timeout_seconds: float, replica_timeout_seconds: float
) -> Followed:
    """Poll until every live replica serves `revision` or a later one, or time is over; without a replica return.

    A replica that reports the revision is asked over HTTP what it serves, until it says the same. One that cannot be
    reached from here is believed; one whose heartbeat expires is named and not waited for.
    """
    start = time.monotonic()
    asked: set[str] = set()
    seen: set[str] = set()
    while True:
        live = state.replicas(max_age_seconds=replica_timeout_seconds)
        seen |= set(live)
        reported = {name for name, revisions in live.items() if revisions.get(model, 0) >= revision}
        contradicted = set()
        if reported - asked:
            addresses = state.addresses(max_age_seconds=replica_timeout_seconds)
            said = {name: served_revision(addresses.get(name, ""), model) for name in sorted(reported - asked)}
            asked |= {name for name, found in said.items() if found is not None and found >= revision}
            contradicted = {name for name, found in said.items() if found is not None and found < revision}
        followed = _compare(live, reported - contradicted, asked, seen, revision, time.monotonic() - start)
        if not followed.behind or followed.seconds > timeout_seconds:
            return followed
        time.sleep(0.02)


def served_revision(address: str, model: ModelName) -> int | None:
    """The revision of the plan that a replica answers by, as it says over HTTP; 0: no plan, None: out of reach."""
    try:
        with urllib.request.urlopen(  # noqa: S310 - an address from our own table
            f"{address}/models/{model}/traffic", timeout=ANSWER_TIMEOUT_SECONDS
        ) as response:
            return int(json.loads(response.read())["revision"])
    except urllib.error.HTTPError:
        return 0
    except (OSError, ValueError, KeyError):
        return None


def _compare(
    live: Mapping[str, object], served: set[str], asked: set[str], seen: set[str], revision: int, seconds: float
) -> Followed:
    return Followed(
        revision=revision,
        served=tuple(sorted(served)),
        behind=tuple(sorted(set(live) - served)),
        asked=tuple(sorted(asked & served)),
        gone=tuple(sorted(seen - set(live))),
        seconds=seconds,
    )
