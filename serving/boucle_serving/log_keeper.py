"""The prediction log as serving sees it: written before answers leave, brought to the disk beside the requests."""

import logging
import threading

from boucle.contracts.prediction import PredictionFields
from boucle.ports import PredictionLog
from boucle_serving.metrics import ServingMetrics
from boucle_serving.problems import LogUnavailableError

_LOGGER = logging.getLogger("boucle.serving")
_SEALING_SECONDS = 1.0
"""How often segments are looked at where every record goes to the disk by itself."""


class LogKeeper:
    """Writes to the log, with a thread that syncs it every `sync_seconds`: what a power cut may cost.

    Args:
        log: What is written to.
        metrics: Where written and dropped records are counted.
        replica: Whose segments these are.
        sync_seconds: Zero where the log brings each record to the disk by itself.
        serve_unlogged: Answer when the log cannot be written, and count what was dropped; else withhold such answers.
    """

    def __init__(
        self,
        log: PredictionLog,
        metrics: ServingMetrics,
        *,
        replica: str,
        sync_seconds: float,
        serve_unlogged: bool,
    ) -> None:
        self._log = log
        self._metrics = metrics
        self._replica = replica
        self._seconds = sync_seconds or _SEALING_SECONDS
        self._serve_unlogged = serve_unlogged
        self._unwritten: str | None = None
        self._unsynced: str | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_forever, name="boucle-log", daemon=True)

    def write(self, *records: PredictionFields) -> None:
        """Write records of one model before their answers leave.

        Raises:
            LogUnavailableError: They cannot be written, and such answers are withheld.
        """
        if not records:
            return
        model = records[0]["model"]
        try:
            self._log.append(*records)
        except OSError as error:
            self._metrics.dropped.labels(model).inc(len(records))
            self._not_written(error)
            return
        self._unwritten = None
        self._metrics.logged.labels(model).inc(len(records))

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
            _LOGGER.warning("the prediction log cannot be sealed: %s; the next start does it", error)

    def sync(self) -> None:
        """Bring to the disk what was written."""
        problem = None
        try:
            self._log.sync()
        except OSError as error:
            problem = f"The prediction log cannot be brought to the disk ({error}); a power cut would lose records."
        if problem != self._unsynced:
            _LOGGER.warning("%s", problem or "The prediction log is brought to the disk again.")
        self._unsynced = problem

    def _not_written(self, error: OSError) -> None:
        if self._serve_unlogged:
            self._unwritten = f"Predictions are answered without being logged (BOUCLE_WHEN_LOG_FAILS=serve): {error}."
            return
        self._unwritten = f"Predictions are withheld, because the log cannot be written: {error}."
        raise LogUnavailableError(
            f"What was computed could not be logged ({error}), so it was withheld. Free the disk or mend its "
            "permissions, then ask again."
        ) from error

    def _keep_forever(self) -> None:
        while not self._over.wait(self._seconds):
            self.sync()
