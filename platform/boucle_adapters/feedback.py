"""What became of predictions, out of the feedback log: which message counts, and which are about no prediction."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter

from boucle.contracts.feedback import FEEDBACK_STREAM, FeedbackRecord
from boucle.ports import FeedbackLog, PredictionLog

EARLIEST = datetime.min.replace(tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """The outcome and the reward in force by prediction id, and the ids among them that are in no prediction log."""

    outcomes: Mapping[str, FeedbackRecord]
    rewards: Mapping[str, FeedbackRecord]
    unknown: frozenset[str]


def read_feedback(
    log: FeedbackLog, *, known: Iterable[str], start: datetime = EARLIEST, end: datetime = LATEST
) -> Feedback:
    """The feedback received in `[start, end)`, by prediction; an outcome corrects an outcome, a reward a reward.

    The same content counts once, when it was first received: a message that is delivered again, also late, changes
    nothing. Otherwise what was received last is in force; of messages that were received at the same moment, the one
    that was written last. So a correction that goes back to an earlier value needs an `at` of its own.

    Args:
        log: The feedback of all replicas.
        known: The ids of the predictions that there are: see `prediction_ids`. It is read once, and not kept.
        start: Feedback received earlier is left out; a message that repeats such a one would count as new.
        end: With the moment of a decision: what was known then.
    """
    arrived = by_arrival(log.read(FEEDBACK_STREAM, start, end))
    outcomes = {record.prediction_id: record for record in arrived if record.outcome is not None}
    rewards = {record.prediction_id: record for record in arrived if record.reward is not None}
    unknown = {*outcomes, *rewards}
    unknown.difference_update(known if unknown else ())
    return Feedback(outcomes=outcomes, rewards=rewards, unknown=frozenset(unknown))


def by_arrival(records: Iterable[FeedbackRecord]) -> list[FeedbackRecord]:
    """Each content once, when it was first received, in the order in which they were: the last one is in force."""
    first: dict[object, FeedbackRecord] = {}
    for record in records:
        said = first.setdefault(record.content, record)
        if record.received_at < said.received_at:
            first[record.content] = record
    return sorted(first.values(), key=attrgetter("received_at"))


def prediction_ids(
    log: PredictionLog, models: Iterable[str], start: datetime = EARLIEST, end: datetime = LATEST
) -> Iterator[str]:
    """The ids of the predictions of these models that were answered in `[start, end)`, one after the other."""
    for model in models:
        for record in log.read(model, start, end):
            yield record.prediction_id
