"""What a rollout has shown so far, out of the logs: the facts that `boucle.policy` judges.

Requests of one entity resemble each other, and intervals assume values that do not. So scores, losses and metrics have
one value per entity (its first), and `n` counts entities. Requests are counted singly where it is asked how many of
them failed or were slow: that comes from the machine and the model more than from the entity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from boucle.contracts.ids import EntityKey, ModelVersion
from boucle.contracts.rollout import ArmCounts, Phase, Scores, StepCounts
from boucle.contracts.shadow_report import Latency, ShadowReport
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.contracts.trials import AbCounts, SideCounts
from boucle.policy.bandit import Logged
from boucle.policy.canary import SLOW_FACTOR
from boucle.policy.shadow_report import Shadowed, latency
from boucle.policy.shadow_report import shadow_report as compared
from boucle.policy.traffic import draw
from boucle.stats.metrics import log_loss_rows
from boucle_adapters.log_tables import LogTables, RolloutLogs, newest_run, tables

Floats = NDArray[np.float64]
SIDES = ("challenger", "production")
_UNSEEN = StepCounts(in_shadow=True)
"""A shadow phase without data."""

_ANSWERED = """
    with production as (
        select stage, $slow_factor * quantile_cont(latency_ms, 0.99) as limit_ms
        from answer where not is_challengers group by stage
    )
    select stage, is_challengers, count(*), count(fallback),
        count(*) filter (latency_ms > limit_ms or fallback = 'stalled')
    from answer left join production using (stage) group by stage, is_challengers
"""
_ANSWERED_SCORES = """
    select stage, is_challengers, count(*), avg(score), var_pop(score) from (
        select stage, is_challengers, entity_key, arg_min(proba, (answered_at, prediction_id)) as score
        from answer where fallback is null group by stage, is_challengers, entity_key
    ) group by stage, is_challengers
"""
_SHADOWED = """
    select stage, count(*), count(error), count(*) filter (error = 'stalled')
    from shadow where version = $challenger group by stage
"""
_SHADOWED_SCORES = """
    select stage, count(*), avg(score), var_pop(score), avg(production_score), var_pop(production_score) from (
        select answer.stage, arg_min(shadow.proba, (answered_at, prediction_id)) as score,
            arg_min(answer.proba, (answered_at, prediction_id)) as production_score
        from answer join shadow using (prediction_id)
        where shadow.version = $challenger and answer.version = $production and shadow.proba is not null
        group by answer.stage, entity_key
    ) group by stage
"""
_PAIRS = """
    with pair as (
        select answer.stage, entity_key, prediction_id, answered_at, outcome,
            case when answer.version = $challenger then answer.proba else shadow.proba end as challenger,
            case when answer.version = $challenger then shadow.proba else answer.proba end as production
        from answer join shadow using (prediction_id) join heard using (prediction_id)
        where ((answer.version = $challenger and shadow.version = $production)
            or (answer.version = $production and shadow.version = $challenger))
            and shadow.proba is not null and outcome in (0, 1)
    )
    select stage, first.outcome as outcome, first.challenger as challenger, first.production as production from (
        select stage, arg_min({'outcome': outcome, 'challenger': challenger, 'production': production},
            (answered_at, prediction_id)) as first
        from pair group by stage, entity_key
    )
"""

_ENTITY_VALUES = {
    "loss": "case when outcome in (0, 1) then outcome end",
    "outcome": "outcome",
    "reward": "reward",
}
_ENTITIES = """
    with asked as (
        select entity_key, answered_at, prediction_id, proba, is_challengers, {value} as value,
            first_value(is_challengers) over (partition by entity_key order by answered_at, prediction_id) as side
        from answer left join heard using (prediction_id) where list_contains($stages, stage)
    ), entity as (
        select side, arg_min({{'value': value, 'proba': proba}}, (answered_at, prediction_id))
            filter (value is not null) as first
        from asked where is_challengers = side group by entity_key, side
    )
    select side, first.value as value, first.proba as proba from entity
"""
_DECISIONS = """
    select version, plan_revision, entity_key, fallback is not null as fell_back, propensity, reward,
        dense_rank() over (order by entity_key) as entity,
        (epoch_us($now) - epoch_us(answered_at)) / 3.6e9 as age_hours,
        (epoch_us(rewarded_at) - epoch_us(answered_at)) / 3.6e9 as delay_hours
    from answer left join heard using (prediction_id)
    where list_contains($stages, stage) and answered_at <= $now
    order by answered_at, prediction_id
"""
_SHADOWED_REQUESTS = """
    select answer.proba as production, shadow.proba as challenger, coalesce(error = 'stalled', false) as stalled,
        dense_rank() over (order by entity_key) as entity,
        answer.latency_ms as production_ms, shadow.latency_ms as challenger_ms{features}
    from answer join shadow using (prediction_id)
    where answer.version = $production and shadow.version = $challenger
    order by answered_at, prediction_id
"""


@dataclass(frozen=True, kw_only=True)
class BanditLog:
    """The decisions of a bandit, one place each.

    `entities` is equal for decisions about one entity: errors of estimates are clustered by it. Requests with a reward
    outside [0, 1] are left out, `unusable` says how many: what they earned is not known.
    """

    logged: Logged
    entities: NDArray[np.int64]
    unusable: int


def canary_steps(
    logs: RolloutLogs, plans: Sequence[TrafficPlan], *, slow_factor: float = SLOW_FACTOR
) -> tuple[StepCounts, ...]:
    """What each phase and step of the newest rollout has shown, in the order they began; zeros where nothing was.

    Of the requests that were drawn for an arm, also when another one answered in the end. `failed`: production answered
    for the challenger, which failed, stalled, or was not asked any more. `slow`: slower than `slow_factor` times the
    99th percentile of production in the same step, or stalled. `scores`: what the arm itself answered, one per entity.
    Requests that production fails are answered by nobody and not in the log: its `failed` is 0.

    In the shadow phase (`in_shadow`) the challenger's counts are of its shadows. They were timed by the row, without
    the rest of the request, so no latency is compared there: `slow` are those that stalled, too late for a caller, and
    have failed too. Both sides have the scores of the same requests.

    `loss` is of requests with the scores of both (one answered, the other shadowed) and an outcome of 1 or 0, the first
    of each entity in each step.

    Args:
        logs: Where to look.
        plans: All revisions of the model (`StateStore.plan_history`), or those of one rollout, oldest first.
        slow_factor: As in the model's `CanaryPolicy`.
    """
    run = newest_run(plans)
    if run is None:
        return ()
    with tables(logs, run, shadows=True) as found:
        found.read_feedback()
        shadowed, answered = _shadowed(found), _answered(found, slow_factor)
        losses = _losses(found)
    steps = []
    for stage, (phase, _step) in enumerate(run.stages):
        in_shadow = phase is Phase.SHADOW
        step = shadowed.get(stage, _UNSEEN) if in_shadow else answered.get(stage, StepCounts())
        loss, production_loss = losses.get(stage, (Scores(), None))
        steps.append(step.model_copy(update={"loss": loss, "production_loss": production_loss}))
    return tuple(steps)


def arm_latencies(logs: RolloutLogs, plans: Sequence[TrafficPlan]) -> dict[ModelVersion, Latency]:
    """How long requests took by the version that answered, in the newest step of the newest rollout."""
    run = newest_run(plans)
    if run is None:
        return {}
    with tables(logs, run.newest_stage()) as found:
        answers = found.columns("select version, latency_ms from answer")
    by_version = {
        version: latency(answers["latency_ms"][answers["version"] == version]) for version in _versions_in(answers)
    }
    return {ModelVersion(int(version)): one for version, one in by_version.items() if one is not None}


def ab_counts(
    logs: RolloutLogs, plans: Sequence[TrafficPlan], metric: Literal["loss", "outcome", "reward"]
) -> AbCounts:
    """The entities on both sides of the newest rollout, and one value of each whose outcome or reward is known.

    An entity is on the side of its first request, and its value is that of the first one there that has one. Sides are
    as drawn: also where production answered for a challenger that failed, for that is what its entities get. `loss` is
    the log loss of the answer, for outcomes of 1 or 0. What was only shadowed is not counted.
    """
    run = newest_run(plans)
    if run is None:
        return AbCounts()
    with tables(logs, run) as found:
        found.read_feedback()
        query = _ENTITIES.format(value=_ENTITY_VALUES[metric])
        entities = found.columns(query, stages=run.drawn_stages)
    sides = {side: _side(entities, entities["side"] == (side == "challenger"), metric) for side in SIDES}
    return AbCounts(**sides)


def bandit_log(logs: RolloutLogs, plans: Sequence[TrafficPlan], now: datetime) -> BanditLog:
    """The decisions of the newest rollout that were answered by `now`, with the rewards that were known then.

    The version is the one that was drawn, whose propensity is logged; production may have answered for it. The delay is
    that of the first reward of a request; if it was corrected, the last one counts. In the order of the answers: sums
    of the same log are the same to the last bit, and so are the draws seeded with them.
    """
    run = newest_run(plans)
    if run is None:
        return _decisions({}, np.zeros(0, dtype=np.int64))
    with tables(logs, run) as found:
        found.read_feedback(until=now)
        rows = found.columns(_DECISIONS, now=now, stages=run.drawn_stages)
    draws = {plan.revision: draw(plan) for plan in run.plans}
    drawn = np.array(rows["version"], dtype=np.int64)
    for place in np.flatnonzero(rows["fell_back"]):
        drawn[place] = draws[int(rows["plan_revision"][place])](EntityKey(rows["entity_key"][place])).version
    return _decisions(rows, drawn)


def shadow_report(
    logs: RolloutLogs, plans: Sequence[TrafficPlan], slices: Mapping[str, int], *, bins: int = 4
) -> ShadowReport | None:
    """What the challenger of the newest rollout answered beside production; None where there is no rollout.

    Args:
        logs: Where to look.
        plans: As in `canary_steps`.
        slices: Features by which the figures are given too: the place of each in the contract of production, by name.
        bins: Slices of a feature.
    """
    run = newest_run(plans)
    if run is None:
        return None
    listed = "".join(f", features[{place + 1}] as feature_{place}" for place in slices.values())
    with tables(logs, run, shadows=True, features=bool(slices)) as found:
        rows = found.columns(_SHADOWED_REQUESTS.format(features=listed), **run.versions)
    names = ("production", "challenger", "production_ms", "challenger_ms")
    return compared(
        run.rollout.model,
        Shadowed(
            **{name: _floats(rows[name]) for name in names},
            stalled=np.asarray(rows["stalled"], dtype=np.bool_),
            entity=np.asarray(rows["entity"], dtype=np.int64),
        ),
        production=run.rollout.production,
        challenger=run.rollout.challenger,
        features={name: _floats(rows[f"feature_{place}"]) for name, place in slices.items()},
        bins=bins,
    )


def _answered(found: LogTables, slow_factor: float) -> dict[int, StepCounts]:
    scores = {
        (stage, side): _moments(n, mean, variance) for stage, side, n, mean, variance in found.rows(_ANSWERED_SCORES)
    }
    arms = {
        (stage, side): ArmCounts(requests=n, failed=failed, slow=slow, scores=scores.get((stage, side), Scores()))
        for stage, side, n, failed, slow in found.rows(_ANSWERED, slow_factor=slow_factor)
    }
    return _steps(arms, unseen=StepCounts())


def _shadowed(found: LogTables) -> dict[int, StepCounts]:
    asked = found.rows("select stage, count(*) from answer where not is_challengers group by stage")
    arms = {(stage, False): ArmCounts(requests=n) for stage, n in asked}
    for stage, n, failed, stalled in found.rows(_SHADOWED, challenger=found.run.rollout.challenger):
        arms[stage, True] = ArmCounts(requests=n, failed=failed, slow=stalled)
    for stage, n, mean, variance, other_mean, other_variance in found.rows(_SHADOWED_SCORES, **found.run.versions):
        for side, moments in ((True, (n, mean, variance)), (False, (n, other_mean, other_variance))):
            arms[stage, side] = arms[stage, side].model_copy(update={"scores": _moments(*moments)})
    return _steps(arms, unseen=_UNSEEN)


def _losses(found: LogTables) -> dict[int, tuple[Scores, float]]:
    """By stage, the paired differences of log losses, and production's mean loss."""
    pairs = found.columns(_PAIRS, **found.run.versions)
    losses = {}
    for stage in np.unique(pairs["stage"]):
        at = pairs["stage"] == stage
        challenger, production = (log_loss_rows(pairs["outcome"][at], pairs[side][at]) for side in SIDES)
        losses[int(stage)] = (scores_of(challenger - production), float(production.mean()))
    return losses


def _steps(arms: dict[tuple[int, bool], ArmCounts], *, unseen: StepCounts) -> dict[int, StepCounts]:
    return {
        stage: unseen.model_copy(
            update={name: arms.get((stage, name == "challenger"), getattr(unseen, name)) for name in SIDES}
        )
        for stage in {stage for stage, _ in arms}
    }


def scores_of(values: Floats) -> Scores:
    """Count, mean and variance of values."""
    return _moments(len(values), float(values.mean()), float(values.var())) if len(values) else Scores()


def _moments(n: int, mean: float, variance: float) -> Scores:
    return Scores(n=n, mean=mean, variance=variance)


def _floats(column: Any) -> Floats:
    """A column with NaN where nothing is."""
    return np.ma.filled(np.ma.asarray(column, dtype=np.float64), np.nan)


def _versions_in(answers: Mapping[str, Any]) -> list[int]:
    return [int(version) for version in np.unique(answers["version"])]


def _side(entities: Mapping[str, Any], here: NDArray[np.bool_], metric: str) -> SideCounts:
    values, scores = (_floats(entities[name])[here] for name in ("value", "proba"))
    known = ~np.isnan(values)
    if metric == "loss" and known.any():
        values[known] = log_loss_rows(values[known], scores[known])
    return SideCounts(assigned=int(here.sum()), scores=scores_of(values[known]))


def _decisions(rows: Mapping[str, Any], drawn: NDArray[np.int64]) -> BanditLog:
    names = ("propensity", "age_hours", "reward", "delay_hours")
    columns = {name: _floats(rows.get(name, ())) for name in names}
    usable = ~((columns["reward"] < 0) | (columns["reward"] > 1))
    return BanditLog(
        logged=Logged(version=drawn[usable], **{name: column[usable] for name, column in columns.items()}),
        entities=np.asarray(rows.get("entity", ()), dtype=np.int64)[usable],
        unusable=int((~usable).sum()),
    )
