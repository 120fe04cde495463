"""Trials of an unpromoted version in traffic (A/B, interleaving, bandit): what was counted, and how one ended."""

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator

from boucle.contracts.document import Document
from boucle.contracts.ids import ModelVersion
from boucle.contracts.rollout import Scores
from boucle.contracts.verdict import Gate


class Outcome(StrEnum):
    """How a trial stands for the challenger. All but `continue` are final; `invalid` says nothing of versions."""

    CONTINUE = "continue"
    WON = "won"
    LOST = "lost"
    NO_DIFFERENCE = "no_difference"
    INVALID = "invalid"


class TrialResult(Document):
    """An outcome with its reason, as one sentence, and the gates it rests on; `winner` is named where there are several
    arms."""

    schema_version: Literal[1] = 1
    outcome: Outcome
    reason: str
    winner: ModelVersion | None = None
    gates: tuple[Gate, ...] = ()

    @property
    def is_final(self) -> bool:
        """Whether the trial is over."""
        return self.outcome is not Outcome.CONTINUE

    @property
    def asks_for_promotion(self) -> bool:
        """Whether a promotion request follows; nothing is ever promoted by a trial itself."""
        return self.outcome is Outcome.WON


class SideCounts(Document):
    """One side of an A/B test: entities that were assigned to it, and one value for each whose outcome is known.

    One value for an entity, such as that of its first request: several requests of one entity resemble each other, and
    counted singly they make an interval too narrow.
    """

    assigned: int = Field(default=0, ge=0)
    scores: Scores = Scores()

    @model_validator(mode="after")
    def _scored_were_assigned(self) -> Self:
        if self.scores.n > self.assigned:
            raise ValueError(f"{self.scores.n} entities have a score, but only {self.assigned} were assigned")
        return self


class AbCounts(Document):
    """Both sides of an A/B test in the same time."""

    challenger: SideCounts = SideCounts()
    production: SideCounts = SideCounts()


class ArmRewards(Document):
    """One arm of a bandit: requests it answered, those whose reward is known (a floating number where they are
    weighted), and the sum of these rewards, each in [0, 1].

    A reward is known when its window is over, whatever came: see `boucle.policy.bandit.arm_rewards`.
    """

    version: ModelVersion
    answered: int = Field(default=0, ge=0)
    rewarded: float = Field(default=0, ge=0)
    reward_sum: float = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _rewards_fit(self) -> Self:
        if not self.reward_sum <= self.rewarded * (1 + 1e-9) or not self.rewarded <= self.answered * (1 + 1e-9):
            raise ValueError(
                f"arm {self.version}: rewards in [0, 1] of {self.rewarded:g} known among {self.answered} answered "
                f"requests cannot sum to {self.reward_sum:g}"
            )
        return self

    @property
    def pending(self) -> float:
        """Answered requests whose reward is not known yet: they are not zeros."""
        return self.answered - self.rewarded


class Team(StrEnum):
    """Whose pick an item of an interleaved list is: A is production, B the challenger."""

    A = "a"
    B = "b"


class Preference(StrEnum):
    """Whose picks were clicked more often in one request."""

    A = "a"
    B = "b"
    TIE = "tie"


class Preferences(Document):
    """Requests with an interleaved list by who won the clicks; a request without a click is a tie.

    `pending` are those whose clicks may still come, `fallbacks` those that production ranked alone, because the
    challenger gave no answer: neither says anything of a preference.
    """

    challenger: int = Field(default=0, ge=0)
    production: int = Field(default=0, ge=0)
    ties: int = Field(default=0, ge=0)
    pending: int = Field(default=0, ge=0)
    fallbacks: int = Field(default=0, ge=0)

    @property
    def decided(self) -> int:
        """Requests with a preference."""
        return self.challenger + self.production
