"""Whose picks were clicked, out of real segments of lists and feedback: what counts, and from when on."""

from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from boucle.contracts.feedback import FeedbackFields
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.prediction import Fallback
from boucle.contracts.rank import RankedBy, RankedFields, RankFields, RankRecord
from boucle.contracts.rollout import Phase, Rollout
from boucle.contracts.traffic_plan import Arm, Role, Strategy, TrafficPlan
from boucle.contracts.trials import Preferences, Team
from boucle.policy.interleaving import InterleavingPolicy
from boucle_adapters.feedback import read_feedback
from boucle_adapters.rank_facts import preferences, ranked_ids
from boucle_adapters.rank_log import RankSegments
from boucle_adapters.segment_log import FeedbackSegments

MODEL = ModelName("flight_delay")
NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
POLICY = InterleavingPolicy(click_window_hours=2)
OVER = NOON + 2 * HOUR
A, B = Team.A, Team.B
_numbers = count()


def plan(revision: int = 2, *, began_at: datetime = NOON, strategy: Strategy = Strategy.INTERLEAVING) -> TrafficPlan:
    """Version 2 on trial beside version 1."""
    rollout = Rollout(
        model=MODEL,
        challenger=ModelVersion(2),
        production=ModelVersion(1),
        phase=Phase.SHADOW,
        weight=0,
        began_at=began_at,
        phase_began_at=began_at,
    )
    arms = tuple(
        Arm(version=ModelVersion(version), bundle_digest=Digest(str(version) * 64), weight=weight, role=role)
        for version, weight, role in ((1, 100, Role.PRODUCTION), (2, 0, Role.CHALLENGER))
    )
    return TrafficPlan(
        strategy=strategy,
        arms=arms,
        rollout=rollout,
        model=MODEL,
        revision=revision,
        decision_id=revision,
        created_at=NOON,
        created_by="test",
        reason="try it",
    )


def listed(teams: dict[str, Team | None], **changes: Any) -> RankFields:
    """A list of noon, with its items by prediction id."""
    items = [
        RankedFields(
            prediction_id=name,
            entity_key=EntityKey(name),
            as_of=NOON,
            team=team,
            production_proba=0.5,
            challenger_proba=0.5,
        )
        for name, team in teams.items()
    ]
    fields = RankFields(
        schema_version=1,
        rank_id=f"list-{next(_numbers)}",
        request_id="r",
        at=NOON,
        model=MODEL,
        plan_revision=2,
        production=ModelVersion(1),
        challenger=ModelVersion(2),
        ranked_by=RankedBy.BOTH,
        fallback=None,
        items=items,
        latency_ms=1.0,
        replica="one",
    )
    return RankFields(**{**fields, **changes})  # type: ignore[typeddict-item]


def clicked(name: str, *, hours: float = 1, reward: float = 1.0, **changes: Any) -> FeedbackFields:
    """A click that is received so many hours after noon."""
    received = NOON + hours * HOUR
    fields = FeedbackFields(
        schema_version=1,
        prediction_id=name,
        outcome=None,
        reward=reward,
        at=received,
        received_at=received,
        model=MODEL,
        replica="one",
    )
    return FeedbackFields(**{**fields, **changes})  # type: ignore[typeddict-item]


class World:
    """Lists, feedback about them, and one trial."""

    def __init__(self, root: Path) -> None:
        self.ranks = RankSegments(root / "ranks")
        self.feedback = FeedbackSegments(root / "feedback")

    def found(self, *plans: TrafficPlan, now: datetime = OVER) -> Preferences:
        return preferences(self.ranks, self.feedback, MODEL, plans or (plan(),), policy=POLICY, now=now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_version_with_more_clicked_picks_wins_a_request(world: World):
    world.ranks.append(listed({"a1": A, "b1": B}), listed({"a2": A, "b2": B, "c2": B}), listed({"a3": A, "b3": B}))
    world.feedback.append(clicked("a1"), clicked("b2"), clicked("c2"), clicked("a2"), clicked("a3"), clicked("b3"))
    assert world.found() == Preferences(production=1, challenger=1, ties=1)


def test_several_clicks_on_an_item_are_one(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    world.feedback.append(*(clicked("a", hours=hours) for hours in (0.1, 0.2, 0.3)), clicked("b"))
    assert world.found() == Preferences(ties=1)


def test_a_click_on_what_both_rank_alike_prefers_nobody(world: World):
    world.ranks.append(listed({"x": None, "a": A, "b": B}))
    world.feedback.append(clicked("x"))
    assert world.found() == Preferences(ties=1)


def test_a_request_without_a_click_is_a_tie_once_its_window_is_over_and_pending_before(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    assert world.found(now=OVER - timedelta(microseconds=1)) == Preferences(pending=1)
    assert world.found(now=OVER) == Preferences(ties=1)


def test_a_request_with_a_click_is_pending_too_because_it_may_change_sides(world: World):
    world.ranks.append(listed({"a": A, "b": B, "c": B}))
    world.feedback.append(clicked("a", hours=0.5), clicked("b", hours=1.5), clicked("c", hours=1.5))
    assert world.found(now=NOON + HOUR) == Preferences(pending=1)
    assert world.found() == Preferences(challenger=1)


def test_what_is_received_after_the_window_changes_nothing_that_was_counted(world: World):
    world.ranks.append(listed({"a": A, "b": B}), listed({"d": A, "e": B}))
    world.feedback.append(clicked("a", hours=1.99))
    before = world.found()
    assert before == Preferences(production=1, ties=1)
    world.feedback.append(
        clicked("b", hours=2), clicked("a", hours=2, reward=0), clicked("a", hours=3), clicked("e", hours=2.5)
    )
    assert world.found(now=OVER + 10 * HOUR) == before


def test_a_reward_of_zero_takes_a_click_back_and_is_none_itself(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    world.feedback.append(clicked("a", hours=0.5), clicked("a", hours=1, reward=0), clicked("b", reward=0))
    assert world.found() == Preferences(ties=1)


def test_a_click_that_is_delivered_again_does_not_undo_that_it_was_taken_back(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    first = clicked("a", hours=0.5)
    again = FeedbackFields(**{**first, "received_at": NOON + 1.5 * HOUR})  # type: ignore[typeddict-item]
    world.feedback.append(first, clicked("a", hours=1, reward=0), again)
    assert world.found() == Preferences(ties=1)


def test_an_outcome_is_no_click(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    world.feedback.append(clicked("a", outcome=1.0, reward=None))
    assert world.found() == Preferences(ties=1)


def test_a_click_about_no_list_counts_nowhere(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    world.feedback.append(clicked("somebody else's"))
    assert world.found() == Preferences(ties=1)


def test_clicks_come_to_any_replica_and_lists_from_any(world: World):
    world.ranks.append(listed({"a": A, "b": B}, replica="one"))
    world.ranks.append(listed({"d": A, "e": B}, replica="two"))
    world.feedback.append(clicked("b", replica="two"))
    world.feedback.append(clicked("e", replica="one"))
    assert world.found() == Preferences(challenger=2)


def test_lists_of_other_revisions_are_of_another_trial(world: World):
    world.ranks.append(*(listed({f"a{number}": A, f"b{number}": B}, plan_revision=number) for number in (1, 2, 3, 4)))
    assert world.found(plan(2), plan(3)) == Preferences(ties=2)


def test_a_list_that_production_ranked_alone_is_no_comparison(world: World):
    alone = {"ranked_by": RankedBy.PRODUCTION, "fallback": Fallback.STALLED}
    world.ranks.append(listed({"a": None, "b": None}, **alone), listed({"d": A, "e": B}))
    world.feedback.append(clicked("a"), clicked("e"))
    assert world.found() == Preferences(challenger=1, fallbacks=1)


def test_lists_of_a_drawn_arm_are_no_comparison(world: World):
    failed = {"ranked_by": RankedBy.PRODUCTION, "fallback": Fallback.FAILED}
    world.ranks.append(listed({"a": None}, ranked_by=RankedBy.CHALLENGER), listed({"b": None}, **failed))
    assert world.found(plan(strategy=Strategy.AB)) == Preferences()


def test_without_a_list_there_is_nothing(world: World):
    assert world.found() == Preferences()


def test_plans_that_are_not_of_one_rollout_are_refused(world: World):
    for plans in ((plan(2), plan(3, began_at=NOON + HOUR)), (plan().model_copy(update={"rollout": None}),)):
        with pytest.raises(ValueError, match="one rollout"):
            world.found(*plans)
    with pytest.raises(ValueError, match="0 plans"):
        preferences(world.ranks, world.feedback, MODEL, (), policy=POLICY, now=OVER)


def test_items_of_lists_are_known_to_whoever_looks_for_feedback_about_nothing(world: World):
    world.ranks.append(listed({"a": A, "b": B}))
    world.feedback.append(clicked("b"), clicked("z"))
    found = read_feedback(world.feedback, known=ranked_ids(world.ranks, world.ranks.streams()))
    assert found.unknown == {"z"}


def test_a_torn_list_is_left_out_and_the_next_ones_are_read(world: World, tmp_path: Path):
    world.ranks.append(listed({"a": A}))
    (file,) = (tmp_path / "ranks" / MODEL / "one").glob("*.jsonl")
    file.write_bytes(file.read_bytes() + b'{"schema_version": 1, "rank_\n')
    world.ranks.append(listed({"b": B}))
    assert (len(list(world.ranks.read(MODEL, NOON, OVER))), world.ranks.torn_lines(MODEL)) == (2, 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"challenger": None},
        {"ranked_by": RankedBy.PRODUCTION},
        {"fallback": Fallback.CUT},
        {"challenger": None, "ranked_by": RankedBy.PRODUCTION, "fallback": Fallback.FAILED},
    ],
)
def test_a_record_that_contradicts_itself_is_none(changes: dict[str, Any]):
    with pytest.raises(ValidationError):
        RankRecord.model_validate({**listed({"a": A}), **changes})
