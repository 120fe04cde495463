"""Which window a prediction is judged in, and which source is believed."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from boucle.features.outcomes import OutcomeSettings, OutcomeSource, Said, resolve, windows_of

NAN = float("nan")
STARTS, ENDS = ("1997-05-01", "1997-06-01"), ("1997-06-01", "1997-07-01")


def window(due: str, at: str) -> int:
    (place,) = windows_of(
        [np.datetime64(text) for text in STARTS],
        [np.datetime64(text) for text in ENDS],
        due=pd.Series([datetime.fromisoformat(due)]),
        at=pd.Series([datetime.fromisoformat(at)]),
    )
    return int(place)


@pytest.mark.parametrize(
    ("due", "at", "expected"),
    [
        ("1997-05-31", "1997-05-02", 0),
        ("1997-06-01", "1997-05-02", 0),  # known when the period ends
        ("1997-06-01 00:00:01", "1997-05-02", 1),
        ("1997-05-31", "1997-06-01", 1),  # asked when its outcome was known already
        ("1997-05-31", "1997-07-01", -1),
        ("1997-07-02", "1997-06-15", -1),
        ("1997-05-01", "1997-04-15", -1),  # of the window before
        ("1997-05-01", "1997-05-01", 0),
    ],
)
def test_a_prediction_is_judged_where_its_outcome_is_due_or_where_it_was_asked_later(due: str, at: str, expected: int):
    assert window(due, at) == expected


def said(*labels: float | None) -> Said:
    """A source that says these labels, None: nothing, NaN: that there never is one."""
    spoke = np.array([label is not None for label in labels])
    values = np.array([NAN if label is None else label for label in labels])
    return Said(spoke=spoke, label=values, known_at=np.full(len(labels), np.datetime64("1997-06-01"), "datetime64[us]"))


def test_the_first_source_that_speaks_is_believed():
    found = resolve([said(1, None, NAN, None, 0), said(0, 1, 1, None, 0)])
    assert found.source.tolist() == [0, 1, 0, -1, 0]
    assert found.label[[0, 1, 4]].tolist() == [1, 1, 0]
    assert np.isnan(found.label[[2, 3]]).all()
    assert found.disagreeing == 2  # the first and the third: one says that there is none


def test_what_was_said_later_is_not_known_yet():
    assert said(1).until(np.datetime64("1997-05-31")).spoke.tolist() == [False]
    assert said(1).until(np.datetime64("1997-06-01")).spoke.tolist() == [True]


def test_labels_are_believed_before_feedback_unless_a_model_says_otherwise():
    assert OutcomeSettings().sources == (OutcomeSource.LABELS, OutcomeSource.FEEDBACK)
