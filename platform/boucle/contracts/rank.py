"""The rank log: lists that were ranked for a request, one line of JSON each, with the team that picked each item."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self, TypedDict

from pydantic import AwareDatetime, FiniteFloat, model_validator

from boucle.contracts.document import Document
from boucle.contracts.ids import EntityKey, ModelName, ModelVersion
from boucle.contracts.prediction import Fallback
from boucle.contracts.trials import Team


class RankedBy(StrEnum):
    """Whose order a list has."""

    PRODUCTION = "production"
    CHALLENGER = "challenger"
    BOTH = "both"
    """It was drafted from both orders: see `boucle.policy.interleaving.team_draft`."""


class RankedItem(Document):
    """One item of a list that was shown.

    `team` is who picked it: None where both orders began alike, and in a list of one version. `production_proba` and
    `challenger_proba` are the answers of both versions about it; the latter is None where the challenger gave none.
    """

    prediction_id: str
    entity_key: EntityKey | None
    as_of: AwareDatetime
    team: Team | None
    production_proba: FiniteFloat
    challenger_proba: FiniteFloat | None


class RankRecord(Document):
    """One line of the rank log: a list as it was shown, the best item first. Items that were not shown are not in it.

    `challenger` is the version on trial that was to rank this list, alone or with production; None where the plan or
    the draw gave the list to production. `fallback` says why production ranked it alone all the same. `at` is the
    moment of the answer on boucle's clock.
    """

    schema_version: Literal[1] = 1
    rank_id: str
    request_id: str
    at: AwareDatetime
    model: ModelName
    plan_revision: int
    production: ModelVersion
    challenger: ModelVersion | None
    ranked_by: RankedBy
    fallback: Fallback | None
    items: tuple[RankedItem, ...]
    latency_ms: float
    replica: str

    @model_validator(mode="after")
    def _who_ranked_was_to(self) -> Self:
        if self.challenger is None and (self.ranked_by is not RankedBy.PRODUCTION or self.fallback is not None):
            raise ValueError("a list without a challenger is ranked by production, and not in its place")
        if self.fallback is not None and self.ranked_by is not RankedBy.PRODUCTION:
            raise ValueError(f"production ranks in place of a challenger that {self.fallback}, not {self.ranked_by}")
        if self.ranked_by is not RankedBy.BOTH and any(item.team for item in self.items):
            raise ValueError("only a list that both versions ranked has teams")
        return self


class RankedFields(TypedDict):
    """The fields of a `RankedItem` as serving writes them: plain values need no check."""

    prediction_id: str
    entity_key: EntityKey | None
    as_of: datetime
    team: Team | None
    production_proba: float
    challenger_proba: float | None


class RankFields(TypedDict):
    """The fields of a `RankRecord` as serving writes them."""

    schema_version: Literal[1]
    rank_id: str
    request_id: str
    at: datetime
    model: ModelName
    plan_revision: int
    production: ModelVersion
    challenger: ModelVersion | None
    ranked_by: RankedBy
    fallback: Fallback | None
    items: Sequence[RankedFields]
    latency_ms: float
    replica: str
