"""The feedback log: what became of predictions, as callers say it: one line of JSON per message."""

from datetime import datetime
from typing import Literal, Self, TypedDict

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelName

FEEDBACK_STREAM = "all"
"""The feedback of all models is one stream: it is known by its prediction, and a model that it names may be wrong."""


class FeedbackRecord(Document):
    """One line of the feedback log.

    Either `outcome` (1 or 0, or a number) or `reward`. `at` is the moment at which it happened, as the caller says it;
    `received_at` the moment at which boucle knew it, on the clock of `model` where that is served, else of the default
    model. `model` is what the caller named, checked by nobody.

    The same prediction, number and `at` is the same feedback, however often it is sent: see `content`.
    """

    schema_version: Literal[1] = 1
    prediction_id: str = Field(min_length=1)
    outcome: FiniteFloat | None
    reward: FiniteFloat | None
    at: AwareDatetime
    received_at: AwareDatetime
    model: ModelName | None
    replica: str

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.outcome is None) == (self.reward is None):
            raise ValueError("feedback has either an outcome or a reward")
        return self

    @property
    def content(self) -> tuple[str, float | None, float | None, datetime]:
        """What was said: equal for a message and its repetitions."""
        return self.prediction_id, self.outcome, self.reward, self.at


class FeedbackFields(TypedDict):
    """The fields of a `FeedbackRecord` as serving writes them, once it has checked what was sent."""

    schema_version: Literal[1]
    prediction_id: str
    outcome: float | None
    reward: float | None
    at: datetime
    received_at: datetime
    model: ModelName | None
    replica: str
