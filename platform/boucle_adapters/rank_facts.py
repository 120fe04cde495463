"""What the rank log and the feedback log say of an interleaved trial: which version's picks were clicked."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from boucle.contracts.feedback import FEEDBACK_STREAM
from boucle.contracts.ids import ModelName
from boucle.contracts.rank import RankedBy, RankRecord
from boucle.contracts.traffic_plan import Strategy, TrafficPlan
from boucle.contracts.trials import Preference, Preferences
from boucle.policy.interleaving import InterleavingPolicy, preference
from boucle.ports import FeedbackLog, RankLog
from boucle_adapters.feedback import EARLIEST, LATEST, by_arrival

_COUNTS = {Preference.A: "production", Preference.B: "challenger", Preference.TIE: "ties"}


def preferences(
    rank_log: RankLog,
    feedback_log: FeedbackLog,
    model: ModelName,
    plans: Sequence[TrafficPlan],
    *,
    policy: InterleavingPolicy,
    now: datetime,
) -> Preferences:
    """Requests of one trial by who won the clicks, as they are known at `now`.

    A request counts once its click window is over, whatever came by then: one with a click could still change sides,
    and one without is no tie yet. What is received later changes nothing, so that a request which a look has counted
    stays as it was counted. A click is a reward above 0 about an item of the list; the last reward received within
    the window is in force, so that a reward of 0 takes a click back.

    Args:
        rank_log: The lists of all replicas.
        feedback_log: What was said of their items; its `received_at` and the `at` of lists are of the model's clock
            where the feedback names the model, as it has to where that is not the clock of the default model.
        model: Whose lists.
        plans: The revisions of one rollout; lists of other revisions are left out.
        policy: With the click window.
        now: On the clock of the model.

    Raises:
        ValueError: The plans are not of one rollout.
    """
    start, window = _began_at(plans), timedelta(hours=policy.click_window_hours)
    revisions = {plan.revision for plan in plans if plan.strategy is Strategy.INTERLEAVING}
    lists = [record for record in rank_log.read(model, start, now) if record.plan_revision in revisions]
    drafted = [record for record in lists if record.ranked_by is RankedBy.BOTH]
    settled = [record for record in drafted if record.at + window <= now]
    clicked = _clicked(feedback_log, settled, window, start=start, end=now)
    counts = Counter(_COUNTS[_preferred(record, clicked)] for record in settled)
    return Preferences(
        **counts,
        pending=len(drafted) - len(settled),
        fallbacks=sum(record.fallback is not None for record in lists),
    )


def ranked_ids(
    log: RankLog, models: Iterable[str], start: datetime = EARLIEST, end: datetime = LATEST
) -> Iterator[str]:
    """The prediction ids of all items of lists of these models that were shown in `[start, end)`."""
    for model in models:
        for record in log.read(model, start, end):
            for item in record.items:
                yield item.prediction_id


def _began_at(plans: Sequence[TrafficPlan]) -> datetime:
    rollouts = {plan.rollout.rollout_id if plan.rollout else None: plan.rollout for plan in plans}
    rollout = next(iter(rollouts.values()), None)
    if rollout is None or len(rollouts) != 1:
        raise ValueError(f"Preferences are of one rollout; these {len(plans)} plans are of {list(rollouts)}.")
    return rollout.began_at


def _clicked(
    log: FeedbackLog, lists: Sequence[RankRecord], window: timedelta, *, start: datetime, end: datetime
) -> frozenset[str]:
    """The items of these lists that were clicked within their window, by prediction id."""
    over: Mapping[str, datetime] = {item.prediction_id: record.at + window for record in lists for item in record.items}
    in_time = (
        record
        for record in log.read(FEEDBACK_STREAM, start, end)
        if record.reward is not None and record.received_at < over.get(record.prediction_id, EARLIEST)
    )
    rewards = {record.prediction_id: record.reward for record in by_arrival(in_time)}
    return frozenset(said for said, reward in rewards.items() if reward is not None and reward > 0)


def _preferred(record: RankRecord, clicked: frozenset[str]) -> Preference:
    drafted = [(item.prediction_id, item.team) for item in record.items]
    return preference(drafted, clicked.intersection(item for item, _ in drafted))
