"""Which outcome a prediction has, where several sources may say one: arrays in, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    import pandas as pd

Moments = NDArray[np.datetime64]


class OutcomeSource(StrEnum):
    """Where an outcome comes from."""

    LABELS = "labels"
    """The dbt model of labels, made from landed files; joined by (entity, moment of the features)."""
    FEEDBACK = "feedback"
    """`POST /feedback`; joined by prediction id."""


class OutcomeSettings(BaseModel):
    """Where outcomes come from, which source wins, and how long an old window may be restated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: tuple[OutcomeSource, ...] = Field(
        default=(OutcomeSource.LABELS, OutcomeSource.FEEDBACK), min_length=1, description="the first that speaks wins"
    )
    restate_days: int = Field(
        default=120, ge=0, description="a window is looked at again so long after its end, in days; later news wait"
    )


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one source says of each prediction: whether anything, the label (NaN: there never is one), known when."""

    spoke: NDArray[np.bool_]
    label: NDArray[np.float64]
    known_at: Moments

    def of(self, places: NDArray[np.intp]) -> "Said":
        """What was said of some of the predictions."""
        return Said(spoke=self.spoke[places], label=self.label[places], known_at=self.known_at[places])

    def until(self, moment: np.datetime64) -> "Said":
        """What was said up to a moment."""
        spoke = self.spoke & (self.known_at <= moment)
        return Said(spoke=spoke, label=np.where(spoke, self.label, np.nan), known_at=self.known_at)


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """The outcome in force of each prediction: `source` is the place of the source that won, -1 where none spoke."""

    source: NDArray[np.intp]
    label: NDArray[np.float64]
    known_at: Moments
    disagreeing: int


def resolve(said: Sequence[Said]) -> Resolved:
    """The first source that says anything of a prediction wins; silence is not an outcome."""
    source = np.full(len(said[0].spoke), -1, dtype=np.intp)
    label = np.full(len(source), np.nan)
    known_at = np.full(len(source), np.datetime64("NaT"), dtype="datetime64[us]")
    differs = np.zeros(len(source), dtype=np.bool_)
    for place, one in enumerate(said):
        takes = one.spoke & (source < 0)
        again = one.spoke & (source >= 0)
        differs |= again & ~((one.label == label) | (np.isnan(one.label) & np.isnan(label)))
        source[takes], label[takes], known_at[takes] = place, one.label[takes], one.known_at[takes]
    return Resolved(source=source, label=label, known_at=known_at, disagreeing=int(differs.sum()))


def windows_of(
    starts: Sequence[np.datetime64], ends: Sequence[np.datetime64], *, due: "pd.Series", at: "pd.Series"
) -> NDArray[np.intp]:
    """The window each prediction is judged in: where its outcome is due, or where it was asked if that was later.

    Args:
        starts: Of the windows, in their order, without a gap between them.
        ends: Of the same; an outcome that is due at the end of a window belongs to it.
        due: When the outcome must be known.
        at: When it was asked.

    Returns:
        The place of the window; -1 where it is before the first or after the last of them.
    """
    first, last = np.asarray(starts, dtype="datetime64[us]"), np.asarray(ends, dtype="datetime64[us]")
    due_at, asked_at = due.to_numpy(dtype="datetime64[us]"), at.to_numpy(dtype="datetime64[us]")
    by_due = np.searchsorted(last, due_at, side="left")
    by_at = np.searchsorted(first, asked_at, side="right") - 1
    place = np.maximum(by_due, by_at)
    outside = ((due_at <= first[0]) & (asked_at < first[0])) | (place >= len(last)) | (asked_at >= last[-1])
    found: NDArray[np.intp] = np.where(outside | np.isnat(due_at), -1, place).astype(np.intp)
    return found
