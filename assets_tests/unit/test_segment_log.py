"""The prediction log: nothing that was answered is lost, nothing counts twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import to_json

from assets_tests.records import prediction
from boucle.contracts.feedback import FEEDBACK_STREAM, FeedbackFields
from boucle.contracts.ids import Digest, ModelName, ModelVersion
from boucle.contracts.prediction import PredictionFields, PredictionRecord, SegmentSeal
from boucle.contracts.shadow import ShadowFields, ShadowRecord
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments

MODEL = ModelName("repurchase")
START = datetime(1997, 10, 1, tzinfo=UTC)
END = START + timedelta(days=1)


def record(number: int, *, at: datetime = START, replica: str = "one") -> PredictionFields:
    return prediction(number, at=at, replica=replica, model=MODEL)


def ids(log: SegmentLog) -> list[str]:
    return [found.prediction_id for found in log.read(MODEL, START, END)]


LINE_BYTES = len(to_json(record(0))) + 1


def test_what_is_written_has_the_fields_of_what_is_read():
    assert PredictionFields.__annotations__.keys() == PredictionRecord.model_fields.keys()


def segment(root: Path, number: int, replica: str = "one") -> Path:
    return root / MODEL / replica / f"{number:08d}.jsonl"


def test_what_was_written_is_read_back_in_order_and_nan_is_a_missing_value(tmp_path: Path):
    log = SegmentLog(tmp_path)
    for number in range(3):
        log.append(record(number))
    read = list(SegmentLog(tmp_path).read(MODEL, START, END))
    assert [dict(found) for found in read] == [{**record(number), "features": (1.0, None)} for number in range(3)]


def test_the_window_includes_its_start_and_not_its_end(tmp_path: Path):
    log = SegmentLog(tmp_path)
    moments = (START - timedelta(microseconds=1), START, END - timedelta(microseconds=1), END)
    for number, at in enumerate(moments):
        log.append(record(number, at=at))
    assert ids(log) == ["1", "2"]


@given(
    # In any order: `boucle feed` moves the clock of a home by months, and the first one from the present to the past.
    minutes=st.lists(st.integers(-3 * 1440, 3 * 1440), max_size=30),
    size=st.integers(1, 5),
    torn=st.booleans(),
    sealed=st.booleans(),
)
def test_a_window_holds_each_of_its_records_once_however_they_lie_in_segments(minutes, size, torn, sealed):
    moments = [START + timedelta(minutes=at) for at in minutes]
    with TemporaryDirectory() as folder:
        log = SegmentLog(Path(folder), segment_bytes=size * LINE_BYTES)
        for number, at in enumerate(moments):
            log.append(record(number, at=at))
        if sealed:
            log.close()
        if torn and moments:
            with segment(Path(folder), 1).open("ab") as file:
                file.write(b'{"schema_version":1,"predic')
        assert ids(log) == [str(number) for number, at in enumerate(moments) if START <= at < END]
        log.close()


def test_a_full_segment_is_followed_by_the_next_number(tmp_path: Path):
    log = SegmentLog(tmp_path, segment_bytes=2 * LINE_BYTES)
    for number in range(5):
        log.append(record(number))
    assert [file.name for file in sorted((tmp_path / MODEL / "one").glob("*.jsonl"))] == [
        "00000001.jsonl",
        "00000002.jsonl",
        "00000003.jsonl",
    ]
    assert ids(log) == ["0", "1", "2", "3", "4"]


def test_a_new_process_never_appends_to_the_torn_line_of_a_dead_one(tmp_path: Path):
    SegmentLog(tmp_path).append(record(0))
    with segment(tmp_path, 1).open("ab") as torn:
        torn.write(b'{"schema_version":1,"predic')
    log = SegmentLog(tmp_path)
    log.append(record(1))
    assert ids(log) == ["0", "1"]
    assert log.torn_lines(MODEL) == 1
    assert segment(tmp_path, 2).exists()


def test_a_prediction_that_was_written_twice_counts_once(tmp_path: Path):
    log = SegmentLog(tmp_path)
    log.append(record(0))
    log.append(record(0, replica="two"))
    assert ids(log) == ["0"]


def test_a_missing_segment_is_named(tmp_path: Path):
    log = SegmentLog(tmp_path, segment_bytes=1)
    for number in range(4):
        log.append(record(number))
    assert log.segment_gaps(MODEL) == ()
    segment(tmp_path, 1).unlink()
    segment(tmp_path, 3).unlink()
    assert log.segment_gaps(MODEL) == ("one/00000001.jsonl", "one/00000003.jsonl")


def test_a_log_that_nobody_wrote_is_empty(tmp_path: Path):
    log = SegmentLog(tmp_path)
    assert ids(log) == []
    assert log.segment_gaps(MODEL) == ()
    assert log.torn_lines(MODEL) == 0


def test_threads_and_two_logs_of_one_replica_lose_nothing(tmp_path: Path):
    logs = [SegmentLog(tmp_path, segment_bytes=50 * LINE_BYTES) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 2].append(record(number)), range(2_000)))
    assert sorted(ids(logs[0]), key=int) == [str(number) for number in range(2_000)]
    assert logs[0].torn_lines(MODEL) == 0
    assert logs[0].segment_gaps(MODEL) == ()


def test_a_write_that_fails_raises_and_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    log = SegmentLog(tmp_path)
    log.append(record(0))
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: real_write(descriptor, line[:10]))
    with pytest.raises(OSError, match="10 of"):
        log.append(record(1))
    monkeypatch.undo()
    log.append(record(2))
    assert ids(log) == ["0", "2"]
    assert log.torn_lines(MODEL) == 0
    assert not segment(tmp_path, 2).exists()


def seal(root: Path, number: int) -> SegmentSeal:
    return SegmentSeal.model_validate_json(segment(root, number).with_suffix(".seal.json").read_bytes())


def test_a_closed_segment_says_what_it_holds(tmp_path: Path):
    log = SegmentLog(tmp_path)
    for number, minutes in enumerate((5, 1, 9)):
        log.append(record(number, at=START + timedelta(minutes=minutes)))
    log.close()
    assert seal(tmp_path, 1) == SegmentSeal(
        records=3,
        bytes=segment(tmp_path, 1).stat().st_size,
        sha256=Digest(sha256(segment(tmp_path, 1).read_bytes()).hexdigest()),
        first_at=START + timedelta(minutes=1),
        last_at=START + timedelta(minutes=9),
    )
    assert log.changed_segments(MODEL) == ()


def test_segments_are_closed_by_age_even_when_nobody_asks_any_more(tmp_path: Path):
    now = [0.0]
    log = SegmentLog(tmp_path, segment_seconds=60, timer=lambda: now[0])
    log.append(record(0))
    now[0] = 59.0
    log.sync()
    assert not segment(tmp_path, 1).with_suffix(".seal.json").exists()
    now[0] = 60.0
    log.sync()
    assert seal(tmp_path, 1).records == 1
    log.append(record(1))
    now[0] = 120.0
    log.append(record(2))
    assert segment(tmp_path, 3).exists()


def test_a_record_that_was_changed_or_taken_away_after_its_segment_was_closed_is_named(tmp_path: Path):
    log = SegmentLog(tmp_path, segment_bytes=1)
    for number in range(3):
        log.append(record(number))
    log.close()
    segment(tmp_path, 2).write_bytes(segment(tmp_path, 2).read_bytes().replace(b"0.25", b"0.75"))
    segment(tmp_path, 3).write_bytes(b"")
    assert log.changed_segments(MODEL) == ("one/00000002.jsonl", "one/00000003.jsonl")
    assert log.changed_segments(MODEL, START, END) == ("one/00000002.jsonl", "one/00000003.jsonl")
    assert log.changed_segments(MODEL, END, END + timedelta(days=1)) == ()


def test_the_last_segment_is_missed_too_once_it_was_closed(tmp_path: Path):
    log = SegmentLog(tmp_path, segment_bytes=1)
    for number in range(2):
        log.append(record(number))
    log.close()
    segment(tmp_path, 2).unlink()
    assert log.segment_gaps(MODEL) == ("one/00000002.jsonl",)


def test_what_a_dead_process_left_is_sealed_without_its_torn_end(tmp_path: Path):
    with_torn_end_left_by_a_dead_process(tmp_path)
    log = SegmentLog(tmp_path)
    (sentence,) = log.repair("one")
    assert "00000001.jsonl: the last 27 bytes were torn and are cut off" in sentence
    assert (seal(tmp_path, 1).records, seal(tmp_path, 1).torn_bytes) == (2, 27)
    assert ids(log) == ["0", "1"]
    assert log.torn_lines(MODEL) == 0
    assert log.repair("one") == ()


def with_torn_end_left_by_a_dead_process(root: Path) -> None:
    """Written by a process that then died, so that nobody holds the segment."""
    lines = "".join(to_json(record(number)).decode() + "\n" for number in range(2))
    segment(root, 1).parent.mkdir(parents=True)
    segment(root, 1).write_text(lines + '{"schema_version":1,"predic')


def test_what_another_living_process_writes_is_not_put_in_order(tmp_path: Path):
    living = SegmentLog(tmp_path)
    living.append(record(0))
    with segment(tmp_path, 1).open("ab") as file:
        file.write(b'{"half')  # it is in the middle of a write
    assert SegmentLog(tmp_path).repair("one") == ()
    assert segment(tmp_path, 1).read_bytes().endswith(b'{"half')
    assert not segment(tmp_path, 1).with_suffix(".seal.json").exists()


def test_records_reach_the_disk_by_sync_or_each_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    log = SegmentLog(tmp_path / "later")
    log.append(record(0))
    assert synced == []
    log.sync()
    assert len(synced) == 1
    log.sync()  # nothing new
    assert len(synced) == 1
    SegmentLog(tmp_path / "each", sync_each=True).append(record(0))
    assert len(synced) == 2


def test_a_record_that_must_be_on_the_disk_and_cannot_is_not_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def fails(_descriptor: int) -> None:
        raise OSError("no space left on device")

    log = SegmentLog(tmp_path, sync_each=True)
    log.append(record(0))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no space"):
            log.append(record(1))
    log.append(record(2))
    log.close()
    assert ids(log) == ["0", "2"]


def test_what_cannot_be_brought_to_the_disk_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fails(_descriptor: int) -> None:
        raise OSError("no space left on device")

    log = SegmentLog(tmp_path)
    log.append(record(0))
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fails)
        with pytest.raises(OSError, match="no space"):
            log.sync()
        with pytest.raises(OSError, match="no space"):
            log.close()
    log.close()
    assert seal(tmp_path, 1).records == 1


def feedback(number: int, *, received_at: datetime = START, replica: str = "one") -> FeedbackFields:
    return FeedbackFields(
        schema_version=1,
        prediction_id=str(number),
        outcome=1.0,
        reward=None,
        at=START - timedelta(days=30),
        received_at=received_at,
        model=MODEL,
        replica=replica,
    )


def shadow(number: int, *, proba: float | None = 0.5, digest: str = "1") -> ShadowFields:
    return ShadowFields(
        schema_version=1,
        prediction_id=str(number),
        at=START,
        model=MODEL,
        model_version=ModelVersion(2),
        bundle_digest=Digest(digest * 64),
        plan_revision=1,
        proba=proba,
        error=None if proba is not None else "stalled",
        latency_ms=0.1,
        replica="one",
    )


def test_what_a_shadow_writes_has_the_fields_of_what_is_read():
    assert ShadowFields.__annotations__.keys() == ShadowRecord.model_fields.keys()


def test_feedback_of_all_models_is_one_stream_and_its_windows_are_of_when_it_was_received(tmp_path: Path):
    log = FeedbackSegments(tmp_path)
    moments = (START - timedelta(microseconds=1), START, END)
    for number, moment in enumerate(moments):
        log.append(feedback(number, received_at=moment))
    log.close()
    assert [found.prediction_id for found in log.read(FEEDBACK_STREAM, START, END)] == ["1"]
    found = SegmentSeal.model_validate_json((tmp_path / "all" / "one" / "00000001.seal.json").read_bytes())
    assert (found.records, found.first_at, found.last_at) == (3, moments[0], moments[2])


def test_feedback_that_a_dead_process_left_is_sealed_by_when_it_was_received(tmp_path: Path):
    file = tmp_path / "all" / "one" / "00000001.jsonl"
    file.parent.mkdir(parents=True)
    file.write_bytes(to_json(feedback(0)) + b'\n{"schema_version":1,"predic')
    (sentence,) = FeedbackSegments(tmp_path).repair("one")
    assert "00000001.jsonl: the last 27 bytes were torn" in sentence
    found = SegmentSeal.model_validate_json(file.with_suffix(".seal.json").read_bytes())
    assert (found.records, found.first_at, found.torn_bytes) == (1, START, 27)


def test_each_shadow_of_a_prediction_is_read_once_with_its_answer_or_its_error(tmp_path: Path):
    log = ShadowSegments(tmp_path)
    log.append(shadow(0), shadow(0, digest="2", proba=None), shadow(0))
    read = [(found.bundle_digest[0], found.proba, found.error) for found in log.read(MODEL, START, END)]
    assert read == [("1", 0.5, None), ("2", None, "stalled")]
    assert (tmp_path / MODEL / "one" / "00000001.jsonl").exists()


def test_a_line_of_another_kind_of_record_is_no_record(tmp_path: Path):
    SegmentLog(tmp_path).append(record(0))
    log = ShadowSegments(tmp_path)
    assert list(log.read(MODEL, START, END)) == []
    assert log.torn_lines(MODEL) == 1
