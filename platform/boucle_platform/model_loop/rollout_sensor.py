"""The controller of one model's rollouts as a sensor: a look at every tick, and what follows from it."""

from contextlib import suppress

import dagster as dg

from boucle.errors import ConflictError, RegistryError
from boucle.operations.aliases import reconcile_aliases
from boucle_platform.model_loop.automation import EVERY_TICK_SECONDS, checks_job_name
from boucle_platform.model_loop.in_environment import sensor_status
from boucle_platform.model_loop.keys import ACTOR_TAG
from boucle_platform.model_loop.spec import LoopSpec
from boucle_platform.resources.home import HomeResource


def rollout_sensor(spec: LoopSpec) -> dg.SensorDefinition:
    """Judges the open rollout at every tick; the intervals hold at every look, so that looking often costs nothing.

    A step, an end or an abort is carried out at once; then the aliases follow and the checks of alias and traffic run.
    """

    @dg.sensor(
        name=f"{spec.model}_rollout",
        job_name=checks_job_name(spec),
        minimum_interval_seconds=EVERY_TICK_SECONDS,
        default_status=sensor_status(),
        description="An open rollout goes a step further, holds, or is aborted; a trial ends with a promotion request.",
    )
    def evaluate(context: dg.SensorEvaluationContext, home: HomeResource) -> dg.SensorResult | dg.SkipReason:
        from boucle_platform.model_loop.steps.rollout import look

        ports = home.connect()
        try:
            found = look(ports, spec, who=f"sensor:{context.sensor_name}")
        except ConflictError as error:
            return dg.SkipReason(f"{error} The next look judges anew.")
        if found is None:
            return dg.SkipReason("No rollout is open.")
        if not found.moved:
            return dg.SkipReason(found.said)
        with suppress(RegistryError):  # the guard and `boucle doctor --fix` put them right later
            reconcile_aliases(ports.state, ports.registry, spec.name)
        tags = {ACTOR_TAG: context.sensor_name, "boucle/trigger": found.said[:250]}
        run_key = f"{spec.model}/rollout/{found.plan_revision}"
        return dg.SensorResult(run_requests=[dg.RunRequest(run_key=run_key, tags=tags)])

    return evaluate
