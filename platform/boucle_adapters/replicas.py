"""Waiting until what was decided is what is served."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from boucle.contracts.ids import ModelName
from boucle.ports import StateStore


@dataclass(frozen=True, kw_only=True)
class Followed:
    """Which live replicas serve the revision, and how many seconds the last of them took."""

    revision: int
    served: tuple[str, ...]
    behind: tuple[str, ...]
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether there is a live replica and none is behind."""
        return bool(self.served) and not self.behind

    def sentence(self) -> str:
        """What a person should know."""
        if not self.served and not self.behind:
            return "no live replica; the plan is served as soon as one starts"
        if self.behind:
            return f"not on revision {self.revision} after {self.seconds:.1f} s: {', '.join(self.behind)}"
        return f"{len(self.served)} replica(s) serve revision {self.revision} after {self.seconds:.2f} s"


def wait_until_served(
    state: StateStore, model: ModelName, revision: int, *, timeout_seconds: float, replica_timeout_seconds: float
) -> Followed:
    """Poll until every live replica serves `revision` or a later one, or time is over; without a replica return."""
    start = time.monotonic()
    while True:
        live = state.replicas(max_age_seconds=replica_timeout_seconds)
        followed = _compare(live, model, revision, time.monotonic() - start)
        if not followed.behind or followed.seconds > timeout_seconds:
            return followed
        time.sleep(0.02)


def _compare(live: Mapping[str, Mapping[ModelName, int]], model: ModelName, revision: int, seconds: float) -> Followed:
    served = tuple(sorted(name for name, revisions in live.items() if revisions.get(model, 0) >= revision))
    behind = tuple(sorted(set(live) - set(served)))
    return Followed(revision=revision, served=served, behind=behind, seconds=seconds)
