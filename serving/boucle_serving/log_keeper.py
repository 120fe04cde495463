"""Logs as serving sees them: written before answers leave, brought to the disk beside the requests."""

import logging
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from boucle.contracts.ids import ModelName
from boucle.contracts.prediction import PredictionFields
from boucle.contracts.shadow import ShadowFields
from boucle.ports import PredictionLog, RecordLog, ShadowLog
from boucle_serving.metrics import ServingMetrics
from boucle_serving.problems import LogUnavailableError

_LOGGER = logging.getLogger("boucle.serving")
_SEALING_SECONDS = 1.0
"""How often segments are looked at where every record goes to the disk by itself."""
_NEWEST = 256
_Fields = TypeVar("_Fields")


@dataclass(frozen=True, kw_only=True)
class LogWords:
    """What is said of a log: its name, and what happens while it cannot be written."""

    log: str
    unlogged: str
    withheld: str
    told: str
    """To the caller, with `{error}`."""


PREDICTION_WORDS = LogWords(
    log="prediction log",
    unlogged="Predictions are answered without being logged (BOUCLE_WHEN_LOG_FAILS=serve)",
    withheld="Predictions are withheld",
    told="What was computed could not be logged ({error}), so it was withheld. Free the disk or mend its permissions, "
    "then ask again.",
)


_SHADOW_WORDS = LogWords(
    log="shadow log", unlogged="Shadow answers are not kept", withheld="Shadow answers are withheld", told="{error}"
)


class RecordKeeper(ABC, Generic[_Fields]):
    """Writes to a log, with a thread that syncs it every `sync_seconds`: what a power cut may cost.

    Args:
        log: What is written to.
        words: What is said of it.
        replica: Whose segments these are.
        sync_seconds: Zero where the log brings each record to the disk by itself.
        serve_unlogged: Answer when the log cannot be written, and count what was dropped; else withhold such answers.
    """

    def __init__(
        self,
        log: RecordLog[_Fields, Any],
        words: LogWords,
        *,
        replica: str,
        sync_seconds: float,
        serve_unlogged: bool,
    ) -> None:
        self._log = log
        self._words = words
        self._replica = replica
        self._seconds = sync_seconds or _SEALING_SECONDS
        self._serve_unlogged = serve_unlogged
        self._unwritten: str | None = None
        self._unsynced: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._keep_forever, name=f"boucle-{words.log.replace(' ', '-')}", daemon=True
        )

    def write(self, *records: _Fields) -> bool:
        """Write records of one stream before their answers leave; False when they were dropped.

        Raises:
            LogUnavailableError: They cannot be written, and such answers are withheld.
        """
        if not records:
            return True
        try:
            self._log.append(*records)
        except OSError as error:
            self._count(records, written=False)
            self._not_written(error)
            return False
        self._unwritten = None
        self._count(records, written=True)
        return True

    def problems(self) -> tuple[str, ...]:
        """What is not as it should be, a sentence each."""
        return tuple(problem for problem in (self._unwritten, self._unsynced) if problem)

    def start(self) -> None:
        """Put in order what a dead process left, then keep the log."""
        try:
            for sentence in self._log.repair(self._replica):
                _LOGGER.warning("%s", sentence)
        except OSError as error:
            _LOGGER.warning("segments of an earlier process cannot be sealed: %s", error)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, then close and seal the log."""
        self._over.set()
        self._thread.join(timeout=5)
        try:
            self._log.close()
        except OSError as error:
            _LOGGER.warning("the %s cannot be sealed: %s; the next start does it", self._words.log, error)

    def sync(self) -> None:
        """Bring to the disk what was written."""
        name, problem = self._words.log, None
        try:
            self._log.sync()
        except OSError as error:
            problem = f"The {name} cannot be brought to the disk ({error}); a power cut would lose records."
        if problem != self._unsynced:
            _LOGGER.warning("%s", problem or f"The {name} is brought to the disk again.")
        self._unsynced = problem

    @abstractmethod
    def _count(self, records: Sequence[_Fields], *, written: bool) -> None:
        """Count records that were written or dropped; whoever keeps a log says how."""

    def _not_written(self, error: OSError) -> None:
        words = self._words
        _LOGGER.warning("the %s cannot be written: %s", words.log, error)
        if self._serve_unlogged:
            self._unwritten = f"{words.unlogged}: {error}."
            return
        self._unwritten = f"{words.withheld}, because the log cannot be written: {error}."
        raise LogUnavailableError(words.told.format(error=error.strerror or "see the log of this replica")) from error

    def _keep_forever(self) -> None:
        while not self._over.wait(self._seconds):
            self.sync()


class LogKeeper(RecordKeeper[PredictionFields]):
    """Keeps the prediction log, and counts its records by model."""

    def __init__(
        self, log: PredictionLog, metrics: ServingMetrics, *, replica: str, sync_seconds: float, serve_unlogged: bool
    ) -> None:
        super().__init__(
            log, PREDICTION_WORDS, replica=replica, sync_seconds=sync_seconds, serve_unlogged=serve_unlogged
        )
        self._metrics = metrics
        self.newest: deque[PredictionFields] = deque(maxlen=_NEWEST)
        """A few of the newest records, for whoever looks at what is answered beside the requests."""

    def _count(self, records: Sequence[PredictionFields], *, written: bool) -> None:
        counter = self._metrics.logged if written else self._metrics.dropped
        counter.labels(records[0]["model"]).inc(len(records))
        self.newest.extend(records)


class ShadowKeeper(RecordKeeper[ShadowFields]):
    """Keeps the shadow log. Nobody waits for what is in it: what cannot be written is dropped, and counted."""

    def __init__(self, log: ShadowLog, metrics: ServingMetrics, *, replica: str, sync_seconds: float) -> None:
        super().__init__(log, _SHADOW_WORDS, replica=replica, sync_seconds=sync_seconds, serve_unlogged=True)
        self._skipped = metrics.shadow_skipped

    def skipped(self, model: ModelName, shadows: int) -> None:
        """Count shadows that were not scored, or not written."""
        self._skipped.labels(model).inc(shadows)

    def _count(self, records: Sequence[ShadowFields], *, written: bool) -> None:
        if not written:
            self.skipped(records[0]["model"], len(records))
