"""The only reader of the clock.

A replayed history has a time of its own: `boucle feed` writes the moment at which a period was published into
`$BOUCLE_HOME/clock/<model>.json`, and from then on every process of that home counts from that moment for this model.
A model without the file lives in the present.
"""

import json
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from boucle_adapters.atomic_file import replace_bytes


def wall_now() -> datetime:
    """The present, in UTC. For liveness (heartbeats) only: decisions take their time from an injected clock."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class SystemClock:
    """The present."""

    def now(self) -> datetime:
        """The current moment in UTC."""
        return wall_now()


@dataclass
class HomeClock:
    """The time of one model in one home: simulated where its file stands, else the present.

    Whether somebody set it is looked up at most every `look_seconds`: by default with each question.
    """

    file: Path
    look_seconds: float = 0.0
    _looked: float = field(default=-math.inf, init=False)
    _seen_ns: int = field(default=-1, init=False)
    _simulated: datetime | None = field(default=None, init=False)
    _anchor: datetime = field(default_factory=wall_now, init=False)

    def now(self) -> datetime:
        """The current moment in UTC; it goes on from the simulated moment as real seconds pass."""
        if monotonic() - self._looked >= self.look_seconds:
            self._looked = monotonic()
            self._refresh()
        if self._simulated is None:
            return wall_now()
        return self._simulated + (wall_now() - self._anchor)

    @property
    def is_simulated(self) -> bool:
        """Whether somebody set it."""
        return self.file.exists()

    def set(self, moment: datetime) -> None:
        """Make `moment` the present, for every process."""
        content = json.dumps({"now": moment.isoformat(), "wall": wall_now().isoformat()})
        replace_bytes(self.file, content.encode())

    def _refresh(self) -> None:
        # One stat per call: the file is replaced by rename, so its modification time tells when to read it again.
        try:
            seen = self.file.stat().st_mtime_ns
        except FileNotFoundError:
            self._simulated, self._seen_ns = None, -1
            return
        if seen != self._seen_ns:
            content = json.loads(self.file.read_text())
            self._simulated = datetime.fromisoformat(content["now"])
            self._anchor = datetime.fromisoformat(content["wall"])
            self._seen_ns = seen
