"""Mended rows go back to the lines that they came from, and nothing else of the file changes."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boucle.errors import LandingError
from boucle.features.quarantine import with_mended_rows

COLUMNS = ("customer", "amount")


def rows(lines: dict[int, str]) -> pd.DataFrame:
    """A row of text per line, with its amount."""
    return pd.DataFrame(
        {"line_number": list(lines), "customer": [f"c{line}" for line in lines], "amount": list(lines.values())}
    )


LANDED = rows({2: "1.00", 3: "-2.00", 4: "3.00", 5: "four"})
SET_ASIDE = rows({3: "-2.00", 5: "four"}).assign(reason="amount")


def mend(mended: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    return with_mended_rows(LANDED, SET_ASIDE, mended, COLUMNS)


def test_mended_rows_replace_their_lines_and_the_rest_stays():
    found, changed = mend(rows({5: "4.00", 3: "2.00"}))
    assert changed == 2
    assert found["amount"].tolist() == ["1.00", "2.00", "3.00", "4.00"]
    assert found["line_number"].tolist() == [2, 3, 4, 5]


def test_a_row_that_was_left_as_it_was_is_not_counted():
    found, changed = mend(rows({3: "2.00", 5: "four"}))
    assert (changed, found["amount"].tolist()) == (1, ["1.00", "2.00", "3.00", "four"])


def test_line_numbers_may_be_text_as_a_csv_has_them():
    assert mend(rows({3: "2.00"}).astype(str))[1] == 1


@given(st.sets(st.integers(2, 60), min_size=1), st.data())
def test_only_set_aside_lines_ever_change(lines: set[int], data: st.DataObject):
    bad = data.draw(st.sets(st.sampled_from(sorted(lines)), min_size=1))
    landed = rows({line: "bad" if line in bad else "good" for line in sorted(lines)})
    found, changed = with_mended_rows(
        landed, rows(dict.fromkeys(bad, "bad")), rows(dict.fromkeys(bad, "mended")), COLUMNS
    )
    assert changed == len(bad)
    assert found["amount"].tolist() == ["mended" if line in bad else "good" for line in sorted(lines)]


@pytest.mark.parametrize(
    ("mended", "words"),
    [
        (rows({4: "9.00"}), "Line 4 is not in quarantine; lines there: 3, 5"),
        (pd.concat([rows({3: "2.00"}), rows({3: "5.00"})]), "Line 3 is there twice"),
        (rows({3: "-2.00"}), "No row differs from what was set aside"),
        (rows({3: "2.00"}).assign(line_number="three"), "'three' is not a line_number"),
        (rows({3: "2.00"}).assign(line_number="3.7"), r"'3\.7' is not a line_number"),
        (rows({3: "2.00"}).assign(line_number="inf"), "'inf' is not a line_number"),
    ],
    ids=["another line", "twice", "unchanged", "no number", "between two lines", "infinite"],
)
def test_what_does_not_fit_is_refused(mended: pd.DataFrame, words: str):
    with pytest.raises(LandingError, match=words):
        mend(mended)


def test_a_file_that_was_sent_again_since_is_not_patched():
    landed = rows({2: "1.00", 3: "7.00"})
    with pytest.raises(LandingError, match="the file was sent again since"):
        with_mended_rows(landed, SET_ASIDE, rows({3: "2.00"}), COLUMNS)
