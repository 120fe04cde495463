"""`ModelLoop`: one `defs.yaml` builds the assets, checks, sensors and jobs of one model."""

from typing import Any

import dagster as dg
from pydantic import BaseModel

from boucle.contracts.windows import Cadence
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.alerts import alerts_sensor
from boucle_platform.model_loop.automation import checks_schedule, jobs, landing_sensor, promotion_sensor
from boucle_platform.model_loop.data_assets import data_assets, freshness_checks
from boucle_platform.model_loop.guard import guard_sensor
from boucle_platform.model_loop.in_environment import in_environment
from boucle_platform.model_loop.keys import key_of
from boucle_platform.model_loop.model_assets import mlflow_key, model_assets, model_checks
from boucle_platform.model_loop.monitoring_assets import monitoring_assets
from boucle_platform.model_loop.retraining import answers_sensor, drift_sensor, retrain_schedule
from boucle_platform.model_loop.rollout_sensor import rollout_sensor
from boucle_platform.model_loop.spec import Level, LoopSpec
from boucle_platform.resources.mlflow_run import mlflow_run


class ModelLoop(dg.Component):
    """The closed loop of one model: landing, features, candidate, evaluation, production, traffic, drift."""

    def __init__(self, spec: LoopSpec) -> None:
        self.spec = spec

    @classmethod
    def get_model_cls(cls) -> type[BaseModel]:
        """The schema of `attributes` in `defs.yaml`."""
        return LoopSpec

    @classmethod
    def load(cls, attributes: BaseModel | None, context: dg.ComponentLoadContext) -> "ModelLoop":  # noqa: ARG003
        """The component of one `defs.yaml`."""
        if not isinstance(attributes, LoopSpec):
            raise TypeError("A ModelLoop needs `attributes` in its defs.yaml.")
        return cls(in_environment(attributes, Settings()))

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:  # noqa: ARG002
        """The model's definitions."""
        return loop_definitions(self.spec)


def loop_definitions(spec: LoopSpec) -> dg.Definitions:
    """Assets, checks, jobs and sensors of one model, without the resources that all models share."""
    partitions = partitions_of(spec)
    data = data_assets(spec, partitions)
    rebuilt = sorted({key for made in data for key in made.keys} - {key_of(spec, "landing")})
    assets: list[Any] = [*data, *model_assets(spec), *monitoring_assets(spec, partitions)]
    period = (
        dg.AssetSelection.assets(*(key_of(spec, raw) for raw in spec.raws)).downstream()
        - dg.AssetSelection.assets(*(key_of(spec, name) for name in ("training_set",))).downstream()
    )
    sensors = [
        landing_sensor(spec, rebuilt, partitions),
        promotion_sensor(spec),
        guard_sensor(spec),
        rollout_sensor(spec),
        alerts_sensor(spec),
    ]
    sensors += [answers_sensor(spec)] if spec.level >= Level.SCHEDULED else []
    sensors += [drift_sensor(spec)] if spec.level >= Level.EVENT else []
    return dg.Definitions(
        assets=assets,
        asset_checks=[*freshness_checks(spec), *model_checks(spec)],
        jobs=jobs(spec, period),
        sensors=sensors,
        schedules=[checks_schedule(spec), *([retrain_schedule(spec)] if spec.retrain_cron else [])],
        resources={mlflow_key(spec): mlflow_run.configured({"experiment_name": spec.model})},
    )


def partitions_of(spec: LoopSpec) -> dg.TimeWindowPartitionsDefinition:
    """The periods of the model's history, from the first to the last one, or on to now."""
    first, fmt = spec.first_period, spec.cadence.key_format
    end = spec.period(spec.last_period).end.strftime(fmt) if spec.last_period else None
    if spec.cadence is Cadence.DAILY:
        return dg.DailyPartitionsDefinition(start_date=first, end_date=end, fmt=fmt)
    return dg.MonthlyPartitionsDefinition(start_date=first, end_date=end, fmt=fmt)
