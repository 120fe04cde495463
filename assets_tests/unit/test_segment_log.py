"""The prediction log: nothing that was answered is lost, nothing counts twice."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.prediction import PredictionRecord
from boucle_adapters.segment_log import SegmentLog

MODEL = ModelName("repurchase")
START = datetime(1997, 10, 1, tzinfo=UTC)
END = START + timedelta(days=1)


def record(number: int, *, at: datetime = START, replica: str = "one") -> PredictionRecord:
    return PredictionRecord(
        prediction_id=str(number),
        request_id="r",
        at=at,
        model=MODEL,
        entity_key=EntityKey("4"),
        as_of=START,
        features_as_of=START,
        model_version=ModelVersion(1),
        bundle_digest=Digest("0" * 64),
        plan_revision=1,
        assigned_role="production",
        answering_role="production",
        propensity=1.0,
        proba=0.25,
        features=(1.0, None),
        latency_ms=0.1,
        replica=replica,
    )


def ids(log: SegmentLog) -> list[str]:
    return [found.prediction_id for found in log.read(MODEL, START, END)]


def segment(root: Path, number: int, replica: str = "one") -> Path:
    return root / MODEL / replica / f"{number:08d}.jsonl"


def test_what_was_written_is_read_back_in_order(tmp_path: Path):
    log = SegmentLog(tmp_path)
    for number in range(3):
        log.append(record(number))
    assert list(SegmentLog(tmp_path).read(MODEL, START, END)) == [record(number) for number in range(3)]


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
)
def test_a_window_holds_each_of_its_records_once_however_they_lie_in_segments(minutes, size, torn):
    moments = [START + timedelta(minutes=at) for at in minutes]
    with TemporaryDirectory() as folder:
        log = SegmentLog(Path(folder), records_per_segment=size)
        for number, at in enumerate(moments):
            log.append(record(number, at=at))
        if torn and moments:
            with segment(Path(folder), 1).open("ab") as file:
                file.write(b'{"schema_version":1,"predic')
        assert ids(log) == [str(number) for number, at in enumerate(moments) if START <= at < END]
        log.close()


def test_a_full_segment_is_followed_by_the_next_number(tmp_path: Path):
    log = SegmentLog(tmp_path, records_per_segment=2)
    for number in range(5):
        log.append(record(number))
    assert [file.name for file in sorted((tmp_path / MODEL / "one").iterdir())] == [
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
    log = SegmentLog(tmp_path, records_per_segment=1)
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
    logs = [SegmentLog(tmp_path, records_per_segment=50) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: logs[number % 2].append(record(number)), range(2_000)))
    assert sorted(ids(logs[0]), key=int) == [str(number) for number in range(2_000)]
    assert logs[0].torn_lines(MODEL) == 0
    assert logs[0].segment_gaps(MODEL) == ()


def test_a_write_that_fails_raises_and_the_next_record_starts_a_new_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    log = SegmentLog(tmp_path)
    log.append(record(0))
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: real_write(descriptor, line[:10]))
    with pytest.raises(OSError, match="10 of"):
        log.append(record(1))
    monkeypatch.undo()
    log.append(record(2))
    assert ids(log) == ["0", "2"]
    assert segment(tmp_path, 2).exists()
