"""What is known of the outcomes of one window of predictions, at one moment."""

from typing import Literal

from pydantic import AwareDatetime, Field

from boucle.contracts.document import Document
from boucle.contracts.ids import Digest, ModelName, PeriodKey


class WindowOutcomes(Document):
    """The predictions whose outcome had to be known in one period, and what was known of them at `known_at`.

    `restatement` 0 is what was known when the period ended, as it was reported then, and stays as it is; each later
    knowledge that differs is one more. `labels_digest` is of what was known, by prediction.

    `due = known + pending`. `void` is of predictions that never get an outcome, `pinned` of testers who chose their
    arm, `without_moment` of callers who gave the features and were not heard of again: none of these is due. `late`
    counts outcomes that became known after the period, `corrected` those that differ from the first statement,
    `disagreeing` those where sources contradict each other, `unusable` feedback that is neither 0 nor 1.

    `unknown_feedback` counts predictions that feedback of this period names and no log holds; `unknown_ids` are some.
    `too_late` counts those that it says anything new of whose window is too old to be restated
    (`outcomes.restate_days`).
    """

    schema_version: Literal[1] = 1
    model: ModelName
    period: PeriodKey
    restatement: int = Field(ge=0)
    known_at: AwareDatetime
    due: int = Field(ge=0)
    known: int = Field(ge=0)
    positives: int = Field(ge=0)
    pending: int = Field(ge=0)
    late: int = Field(ge=0)
    void: int = Field(ge=0)
    corrected: int = Field(ge=0)
    pinned: int = Field(ge=0)
    without_moment: int = Field(ge=0)
    disagreeing: int = Field(ge=0)
    unusable: int = Field(ge=0)
    by_source: dict[str, int]
    unknown_feedback: int = Field(default=0, ge=0)
    unknown_ids: tuple[str, ...] = ()
    too_late: int = Field(default=0, ge=0)
    labels_digest: Digest

    @property
    def coverage(self) -> float | None:
        """Share of the due predictions whose outcome is known; None when none was due."""
        return self.known / self.due if self.due else None
