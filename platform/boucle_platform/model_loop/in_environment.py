"""What the environment (dev, staging, prod) changes of a model: who must agree, and whether sensors run by default."""

import dagster as dg

from boucle.policy.approval import PromotionMode
from boucle_adapters.settings import Settings
from boucle_platform.model_loop.spec import LoopSpec


def in_environment(spec: LoopSpec, settings: Settings) -> LoopSpec:
    """The model as this environment runs it.

    `promotion_mode` stands in for `automatic` alone: what asks people already is never made to ask fewer.
    """
    if not settings.promotion_mode or spec.promotion.mode is not PromotionMode.AUTOMATIC:
        return spec
    stricter = spec.promotion.model_copy(update={"mode": PromotionMode(settings.promotion_mode)})
    return spec.model_copy(update={"promotion": stricter})


def sensor_status() -> dg.DefaultSensorStatus:
    """Whether sensors run until a person says otherwise; the switch in the Dagster UI wins."""
    running = Settings().sensors == "running"
    return dg.DefaultSensorStatus.RUNNING if running else dg.DefaultSensorStatus.STOPPED
