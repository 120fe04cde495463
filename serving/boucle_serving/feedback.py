"""Feedback: what became of predictions, checked and kept until the platform joins it with the prediction log.

An answer says `kept`, and never whether the prediction is known. A replica cannot know: another one may have given it,
on another machine, or an earlier process weeks ago, and whoever was told "unknown" would send a good outcome again, or
drop it. The join says which ids are in no log (`boucle_adapters.feedback.read_feedback`, `boucle doctor`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from prometheus_client import Counter

from boucle.contracts.feedback import FeedbackFields
from boucle.contracts.ids import ModelName
from boucle.ports import Clock, FeedbackLog
from boucle_serving.log_keeper import LogWords, RecordKeeper
from boucle_serving.metrics import ServingMetrics
from boucle_serving.problems import FieldError, InvalidRequestError, TooLargeError
from boucle_serving.questions import unknown_fields

MAX_ITEMS = 1_000
MAX_ID_LENGTH, MAX_MODEL_LENGTH = 128, 64
KEPT, DROPPED, MALFORMED = "kept", "dropped", "malformed"
_FIELDS = frozenset({"prediction_id", "outcome", "reward", "at", "model"})
_WORDS = LogWords(
    log="feedback log",
    unlogged="Feedback is answered without being kept (BOUCLE_WHEN_LOG_FAILS=serve)",
    withheld="Feedback is refused",
    told="The feedback could not be kept ({error}). Nothing of this request was: send it again, it counts once.",
)


class Said(NamedTuple):
    """One checked item: an outcome or a reward, of a prediction, at a moment (UTC)."""

    prediction_id: str
    outcome: float | None
    reward: float | None
    at: datetime
    model: ModelName | None


class Kept(NamedTuple):
    """What became of one item: `kept`, or `dropped` where BOUCLE_WHEN_LOG_FAILS=serve."""

    prediction_id: str
    status: str


class FeedbackKeeper(RecordKeeper[FeedbackFields]):
    """Keeps the feedback log, and counts what is sent.

    The log is expected to bring each request to the disk by itself: nobody can compute again what a caller has said.
    """

    def __init__(self, log: FeedbackLog, metrics: ServingMetrics, *, replica: str, serve_unlogged: bool) -> None:
        super().__init__(log, _WORDS, replica=replica, sync_seconds=0, serve_unlogged=serve_unlogged)
        self._total = Counter("boucle_feedback_total", "Feedback sent", ("status",), registry=metrics.registry)
        for status in (KEPT, DROPPED, MALFORMED):
            self._total.labels(status)

    def count(self, status: str, items: int = 1) -> None:
        """Count items that came to this."""
        self._total.labels(status).inc(items)

    def _count(self, records: Sequence[FeedbackFields], *, written: bool) -> None:
        self.count(KEPT if written else DROPPED, len(records))


class FeedbackService:
    """Checks feedback and writes it to the log, all of a request in one write."""

    def __init__(self, keeper: FeedbackKeeper, *, clock_of: Callable[[ModelName | None], Clock], replica: str) -> None:
        self._keeper = keeper
        self._clock_of = clock_of
        self._replica = replica

    def keep_one(self, payload: object) -> Kept:
        """Keep one item.

        Raises:
            InvalidRequestError: It is malformed; each field that is wrong is named.
            LogUnavailableError: It could not be kept.
        """
        (outcome,) = self.keep([payload])
        if isinstance(outcome, InvalidRequestError):
            raise outcome
        return outcome

    def keep(self, payloads: Sequence[object]) -> list[Kept | InvalidRequestError]:
        """Keep those items that are well-formed; what came of each, in their order.

        Raises:
            InvalidRequestError: There is none.
            TooLargeError: There are too many; nothing was kept.
            LogUnavailableError: Nothing could be kept.
        """
        if not payloads:
            raise InvalidRequestError(FieldError("feedback", "has no item"))
        if len(payloads) > MAX_ITEMS:
            raise TooLargeError(f"The request has {len(payloads)} items; at most {MAX_ITEMS} are kept at once.")
        items = [_read(payload) for payload in payloads]
        said = [item for item in items if isinstance(item, Said)]
        self._keeper.count(MALFORMED, len(items) - len(said))
        status = KEPT if self._keeper.write(*map(self._record, said)) else DROPPED
        return [Kept(item.prediction_id, status) if isinstance(item, Said) else item for item in items]

    def _record(self, said: Said) -> FeedbackFields:
        return FeedbackFields(
            schema_version=1,
            prediction_id=said.prediction_id,
            outcome=said.outcome,
            reward=said.reward,
            at=said.at,
            received_at=self._clock_of(said.model).now(),
            model=said.model,
            replica=self._replica,
        )


def _read(payload: object) -> Said | InvalidRequestError:
    """One item, or every error in it."""
    if not isinstance(payload, dict):
        return InvalidRequestError(FieldError("body", "must be a JSON object with prediction_id, outcome and at"))
    errors = unknown_fields(payload, _FIELDS, f"the fields are {', '.join(sorted(_FIELDS))}")
    prediction_id = _text(payload, "prediction_id", errors, longest=MAX_ID_LENGTH)
    outcome, reward = _number(payload, "outcome", errors), _number(payload, "reward", errors)
    if (payload.get("outcome") is None) == (payload.get("reward") is None):
        errors.append(FieldError("outcome", "or reward is required, and not both"))
    at = _moment(payload, errors)
    model = None if payload.get("model") is None else _text(payload, "model", errors, longest=MAX_MODEL_LENGTH)
    if errors or at is None:
        return InvalidRequestError(*errors)
    return Said(prediction_id, outcome, reward, at, ModelName(model) if model else None)


def _text(payload: Mapping[str, object], name: str, errors: list[FieldError], *, longest: int) -> str:
    value = payload.get(name)
    if name not in payload:
        errors.append(FieldError(name, "is required"))
    elif not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        errors.append(FieldError(name, f"must be a string of 1 to {longest} printable characters, not {value!r:.80}"))
    else:
        return value
    return ""


def _number(payload: Mapping[str, object], name: str, errors: list[FieldError]) -> float | None:
    value = payload.get(name)
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if math.isfinite(number):
        return number
    errors.append(FieldError(name, f"must be a finite number, not {value!r:.80}"))
    return None


def _moment(payload: Mapping[str, object], errors: list[FieldError]) -> datetime | None:
    """The moment at which it happened. UTC is not assumed: an hour more or less may be another window."""
    value = payload.get("at")
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    wrong = f"must be an ISO 8601 date-time with its offset, such as 1997-11-02T12:00:00Z, not {value!r:.80}"
    errors.append(FieldError("at", wrong if "at" in payload else "is required"))
    return None
