"""Which corrections the rows of a build may know."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from boucle.features.knowledge import BuildWindow, build_windows

START, END = datetime(1997, 4, 1, tzinfo=UTC), datetime(1997, 5, 1, tzinfo=UTC)
BEFORE, WITHIN, AFTER = (datetime(1997, month, 15, tzinfo=UTC) for month in (3, 4, 6))
moments = st.integers(-40, 80).map(lambda days: START + timedelta(days=days))


def regular(corrections: list[datetime]) -> list[BuildWindow]:
    return [window for window in build_windows(START, END, corrections) if not window.restated]


def test_without_corrections_one_build_makes_the_window():
    assert build_windows(START, END, []) == (BuildWindow(start=START, end=END, known_at=START),)


def test_a_correction_that_landed_before_the_window_is_known_to_all_of_it():
    assert build_windows(START, END, [BEFORE]) == (BuildWindow(start=START, end=END, known_at=START),)


def test_a_correction_counts_only_for_rows_after_its_landing():
    assert regular([WITHIN]) == [
        BuildWindow(start=START, end=WITHIN, known_at=START),
        BuildWindow(start=WITHIN, end=END, known_at=WITHIN),
    ]


def test_a_correction_that_landed_later_changes_no_row_but_restates_the_window():
    assert build_windows(START, END, [AFTER]) == (
        BuildWindow(start=START, end=END, known_at=START),
        BuildWindow(start=START, end=END, known_at=None),
    )


@given(corrections=st.lists(moments), as_of=moments)
def test_a_row_knows_exactly_the_corrections_that_landed_before_its_as_of(corrections: list[datetime], as_of: datetime):
    windows = [window for window in regular(corrections) if window.start < as_of <= window.end]
    assert len(windows) == (START < as_of <= END)
    for window in windows:
        known = {moment for moment in corrections if moment <= window.known_at}
        assert known == {moment for moment in corrections if moment < as_of}
