"""Feedback as the platform reads it: the newest of different messages counts, of equal ones the first."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from assets_tests.records import prediction
from boucle.contracts.feedback import FeedbackFields, FeedbackRecord
from boucle.contracts.ids import ModelName
from boucle_adapters.feedback import prediction_ids, read_feedback
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog

NOON = datetime(1997, 11, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def said(prediction_id: str = "p", outcome: float | None = 1.0, *, hours: float = 0, **changes: Any) -> FeedbackFields:
    """An outcome of the morning that is received so many hours after noon."""
    fields = FeedbackFields(
        schema_version=1,
        prediction_id=prediction_id,
        outcome=outcome,
        reward=None,
        at=NOON - HOUR,
        received_at=NOON + hours * HOUR,
        model=None,
        replica="one",
    )
    return FeedbackFields(**{**fields, **changes})


@pytest.fixture
def log(tmp_path: Path) -> FeedbackSegments:
    return FeedbackSegments(tmp_path)


def outcome(log: FeedbackSegments, **window: datetime) -> float | None:
    return read_feedback(log, known=(), **window).outcomes["p"].outcome


def test_what_is_written_has_the_fields_of_what_is_read():
    assert FeedbackFields.__annotations__.keys() == FeedbackRecord.model_fields.keys()


@pytest.mark.parametrize("changes", [{"outcome": None}, {"reward": 1.0}, {"outcome": float("inf")}])
def test_a_record_says_one_finite_thing(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        FeedbackRecord.model_validate({**said(), **changes})


def test_what_was_received_last_is_in_force_whichever_replica_it_came_to(log: FeedbackSegments):
    log.append(said(outcome=0.0, hours=2, replica="a"))
    log.append(said(outcome=1.0, hours=1, replica="b"))
    assert outcome(log) == 0.0


def test_at_the_same_moment_what_was_written_last_is_in_force(log: FeedbackSegments):
    log.append(said(outcome=1.0), said(outcome=0.0))
    assert outcome(log) == 0.0


def test_a_message_that_is_delivered_again_late_does_not_undo_its_correction(log: FeedbackSegments):
    log.append(said(outcome=1.0, hours=3, replica="a"))
    log.append(said(outcome=1.0, hours=0, replica="b"))
    log.append(said(outcome=0.0, hours=1, replica="b"))
    assert outcome(log) == 0.0


def test_a_correction_back_has_a_moment_of_its_own(log: FeedbackSegments):
    log.append(said(outcome=1.0, hours=0), said(outcome=0.0, hours=1), said(outcome=1.0, hours=2, at=NOON))
    assert outcome(log) == 1.0


def test_a_decision_sees_what_was_received_before_it(log: FeedbackSegments):
    log.append(said(outcome=1.0, hours=0), said(outcome=0.0, hours=1))
    assert outcome(log, end=NOON + HOUR) == 1.0
    assert outcome(log, start=NOON + HOUR) == 0.0


def test_a_reward_corrects_no_outcome(log: FeedbackSegments):
    log.append(said(outcome=1.0), said(outcome=None, reward=7.0, hours=1))
    found = read_feedback(log, known=())
    assert (found.outcomes["p"].outcome, found.rewards["p"].reward) == (1.0, 7.0)


def test_ids_that_are_in_no_prediction_log_are_named(log: FeedbackSegments, tmp_path: Path):
    predictions = SegmentLog(tmp_path / "predictions")
    predictions.append(prediction(1))
    predictions.append(prediction(2, model=ModelName("flight_delay")))
    log.append(*(said(str(number)) for number in (1, 2, 3)))
    assert predictions.streams() == ("flight_delay", "repurchase")
    found = read_feedback(log, known=prediction_ids(predictions, predictions.streams()))
    assert (set(found.outcomes), found.unknown) == ({"1", "2", "3"}, {"3"})


def test_without_feedback_nothing_is_in_force_and_nothing_unknown(log: FeedbackSegments):
    found = read_feedback(log, known=("1",))
    assert (found.outcomes, found.rewards, found.unknown) == ({}, {}, frozenset())


@given(
    said_at=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50)), min_size=1, max_size=8, unique_by=lambda m: m[1])
)
def test_sending_everything_again_changes_nothing(tmp_path_factory: pytest.TempPathFactory, said_at: Any):
    log = FeedbackSegments(tmp_path_factory.mktemp("log"))
    messages = [
        said(outcome=float(value), hours=hours, at=NOON - HOUR * index)
        for index, (value, hours) in enumerate(sorted(said_at, key=lambda message: message[1]))
    ]
    log.append(*messages)
    before = outcome(log)
    assert before == messages[-1]["outcome"]
    for message in messages:
        again = {**message, "received_at": message["received_at"] + 100 * HOUR, "replica": "another"}
        log.append(FeedbackFields(**again))  # type: ignore[typeddict-item]
    assert outcome(log) == before
    log.close()
