"""GET /models and GET /models/{model}/traffic: what is served, and why."""

from typing import Any

from fastapi import APIRouter

from boucle.contracts.ids import ModelName
from boucle_serving.documented import MODEL_PROBLEMS
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.service import PredictionService


def models_router(predictor: Predictor, service: PredictionService) -> APIRouter:
    """What this replica serves."""
    router = APIRouter(tags=["models"], responses=MODEL_PROBLEMS)

    @router.get("/models", summary="The models served, with what a request needs")
    async def models() -> dict[str, Any]:
        """Name, version, entity and features of each model in traffic."""
        return {
            "default": service.default_model,
            "models": [_summary(served) for _, served in sorted(predictor.served.items())],
        }

    @router.get("/models/{model}/traffic", summary="The traffic plan that is served")
    async def traffic(model: str) -> dict[str, Any]:
        """The plan as this replica serves it: revision, arms with weights, who decided and why."""
        return service.served(ModelName(model)).plan.model_dump(mode="json")

    return router


def _summary(served: ServedModel) -> dict[str, Any]:
    contract = served.production.contract
    return {
        "model": served.plan.model,
        "version": served.plan.production.version,
        "plan_revision": served.plan.revision,
        "bundle_digest": served.production.digest,
        "entity": contract.entity,
        "key": contract.key.model_dump(mode="json"),
        "max_feature_age_days": contract.max_feature_age_days,
        "output": contract.output.model_dump(mode="json"),
        "features": [feature.model_dump(mode="json") for feature in contract.features],
    }
