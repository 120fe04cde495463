"""Slow answers, one line for the first in a second: where all are slow, lines would make them slower."""

import logging
from time import monotonic

from boucle.contracts.prediction import PredictionFields

_LOGGER = logging.getLogger("boucle.serving")
_QUIET_SECONDS = 1.0


class SlowAnswers:
    """Notes answers that took at least `seconds`. Lives in one event loop: it has no lock."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._quiet_until = 0.0
        self._unsaid = 0

    def note(self, record: PredictionFields, seconds: float) -> None:
        """Say that this answer took so long, or count it if one was said a moment ago."""
        if monotonic() < self._quiet_until:
            self._unsaid += 1
            return
        others = f"; so did {self._unsaid} others since the last such line" if self._unsaid else ""
        _LOGGER.warning(
            "an answer took %.3f s%s",
            seconds,
            others,
            extra={
                "request_id": record["request_id"],
                "prediction_id": record["prediction_id"],
                "model": record["model"],
                "version": record["model_version"],
                "seconds": round(seconds, 6),
            },
        )
        self._unsaid = 0
        self._quiet_until = monotonic() + _QUIET_SECONDS
