"""What a rollout has shown so far, out of the logs: the facts that `boucle.policy` judges.

Requests of one entity resemble each other, and intervals assume values that do not. So scores, losses and metrics have
one value per entity (its first), and `n` counts entities. Requests are counted singly where it is asked how many of
them failed or were slow: that comes from the machine and the model more than from the entity.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from boucle.contracts.rollout import ArmCounts, Phase, Scores, StepCounts
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.policy.canary import SLOW_FACTOR
from boucle.stats.metrics import log_loss_rows
from boucle_adapters.log_tables import LogTables, RolloutLogs, newest_run, tables

Floats = NDArray[np.float64]

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


def canary_steps(
    logs: RolloutLogs, plans: Sequence[TrafficPlan], *, slow_factor: float = SLOW_FACTOR
) -> tuple[StepCounts, ...]:
    """What each phase and step of the newest rollout has shown, in the order they began; zeros where nothing was.

    Of the requests that were drawn for an arm, also when another one answered in the end. `failed`: production answered
    for the challenger, which failed, stalled, or was not asked any more. `slow`: slower than `slow_factor` times the
    99th percentile of production in the same step, or stalled. `scores`: what the arm itself answered, one per entity.
    Requests that production fails are answered by nobody and not in the log: its `failed` is 0.

    In the shadow phase the challenger's counts are of its shadows. They were timed by the row, without the rest of the
    request, so no latency is compared there: `slow` are those that stalled (they came too late for a caller), of
    production none. Both sides have the scores of the same requests.

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
        step = (shadowed if phase is Phase.SHADOW else answered).get(stage, StepCounts())
        loss, production_loss = losses.get(stage, (Scores(), None))
        steps.append(step.model_copy(update={"loss": loss, "production_loss": production_loss}))
    return tuple(steps)


def _answered(found: LogTables, slow_factor: float) -> dict[int, StepCounts]:
    scores = {
        (stage, side): _moments(n, mean, variance) for stage, side, n, mean, variance in found.rows(_ANSWERED_SCORES)
    }
    arms = {
        (stage, side): ArmCounts(requests=n, failed=failed, slow=slow, scores=scores.get((stage, side), Scores()))
        for stage, side, n, failed, slow in found.rows(_ANSWERED, slow_factor=slow_factor)
    }
    return _steps(arms)


def _shadowed(found: LogTables) -> dict[int, StepCounts]:
    asked = found.rows("select stage, count(*) from answer where not is_challengers group by stage")
    arms = {(stage, False): ArmCounts(requests=n) for stage, n in asked}
    for stage, n, failed, stalled in found.rows(_SHADOWED, challenger=found.run.rollout.challenger):
        arms[stage, True] = ArmCounts(requests=n, failed=failed, slow=stalled)
    for stage, n, mean, variance, other_mean, other_variance in found.rows(_SHADOWED_SCORES, **found.run.versions):
        for side, moments in ((True, (n, mean, variance)), (False, (n, other_mean, other_variance))):
            arms[stage, side] = arms[stage, side].model_copy(update={"scores": _moments(*moments)})
    return _steps(arms)


def _losses(found: LogTables) -> dict[int, tuple[Scores, float]]:
    """By stage, the paired differences of log losses, and production's mean loss."""
    pairs = found.columns(_PAIRS, **found.run.versions)
    losses = {}
    for stage in np.unique(pairs["stage"]):
        at = pairs["stage"] == stage
        challenger, production = (log_loss_rows(pairs["outcome"][at], pairs[side][at]) for side in SIDES)
        losses[int(stage)] = (scores_of(challenger - production), float(production.mean()))
    return losses


def _steps(arms: dict[tuple[int, bool], ArmCounts]) -> dict[int, StepCounts]:
    return {
        stage: StepCounts(
            challenger=arms.get((stage, True), ArmCounts()), production=arms.get((stage, False), ArmCounts())
        )
        for stage in {stage for stage, _ in arms}
    }


SIDES = ("challenger", "production")


def scores_of(values: Floats) -> Scores:
    """Count, mean and variance of values."""
    return _moments(len(values), float(values.mean()), float(values.var())) if len(values) else Scores()


def _moments(n: int, mean: float, variance: float) -> Scores:
    return Scores(n=n, mean=mean, variance=variance)
