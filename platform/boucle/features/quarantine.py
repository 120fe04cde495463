"""Rows that were set aside and mended by a person: back into the file that they came in."""

from collections.abc import Sequence

import pandas as pd

from boucle.errors import LandingError
from boucle.features.raw_source import LINE

_UNCHANGED = "Nothing was changed."


def with_mended_rows(
    landed: pd.DataFrame, set_aside: pd.DataFrame, mended: pd.DataFrame, columns: Sequence[str]
) -> tuple[pd.DataFrame, int]:
    """The landed rows, with mended ones in place of those that were set aside.

    Args:
        landed: Text of every row of the landing file, with `line_number`.
        set_aside: Text of the rows in quarantine, with `line_number`.
        mended: Text of those that a person mended, with `line_number`; others may be missing or unchanged.
        columns: The columns of the file.

    Returns:
        All rows in the order of the file, and how many of them are other than before.

    Raises:
        LandingError: A line is not in quarantine or there twice, the landing file is no longer the one that the rows
            came in, or no row was changed.
    """
    new, old, rows = (_by_line(frame, columns) for frame in (mended, set_aside, landed))
    if twice := sorted(set(new.index[new.index.duplicated()])):
        raise LandingError(f"Line {_listed(twice)} is there twice among the mended rows. {_UNCHANGED}")
    if strange := [line for line in new.index if line not in old.index]:
        raise LandingError(
            f"Line {_listed(strange)} is not in quarantine; lines there: {_listed(old.index.tolist())}. {_UNCHANGED}"
        )
    if moved := [line for line in new.index if line not in rows.index or not rows.loc[line].equals(old.loc[line])]:
        raise LandingError(
            f"Line {_listed(moved)} of the landing file is not the row that was set aside: the file was sent again "
            f"since. Load it, then mend what is set aside of it. {_UNCHANGED}"
        )
    changed = [line for line in new.index if not new.loc[line].equals(old.loc[line])]
    if not changed:
        raise LandingError(f"No row differs from what was set aside: mend at least one. {_UNCHANGED}")
    rows.loc[changed] = new.loc[changed]
    return rows.reset_index(), len(changed)


def _by_line(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    lines = frame[LINE].astype(str)
    if not (readable := lines.str.fullmatch(r"\d{1,9}")).all():
        raise LandingError(f"'{lines[~readable].iloc[0]}' is not a {LINE}. {_UNCHANGED}")
    return frame[list(columns)].astype(object).set_axis(pd.Index(lines.astype("int64"), name=LINE))


def _listed(lines: Sequence[int], limit: int = 10) -> str:
    shown = ", ".join(str(line) for line in lines[:limit])
    return shown if len(lines) <= limit else f"{shown} and {len(lines) - limit} more"
