"""GET /models, /models/{model}/traffic and /models/{model}/decisions: what is served, and why."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.concurrency import run_in_threadpool

from boucle.contracts.ids import ModelName
from boucle.contracts.traffic_plan import TrafficPlan
from boucle.ports import StateStore
from boucle_adapters.look_files import LookFiles
from boucle_serving.admission import Admission
from boucle_serving.documented import MODEL_PROBLEMS
from boucle_serving.limited_routes import looking
from boucle_serving.predictor import Predictor, ServedModel
from boucle_serving.problems import UnknownModelError
from boucle_serving.service import PredictionService

_Model = Annotated[str, Path(pattern="^[a-z][a-z0-9_]*$")]
_Newest = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]


def models_router(
    predictor: Predictor,
    service: PredictionService,
    looks: LookFiles,
    open_state: Callable[[], StateStore],
    admission: Admission,
) -> APIRouter:
    """What this replica serves, to whom may look."""
    router = APIRouter(tags=["models"], responses=MODEL_PROBLEMS, route_class=looking(admission))

    @router.get("/models", summary="The models served, with what a request needs")
    async def models() -> dict[str, Any]:
        """Name, version, entity and features of each model in traffic."""
        return {
            "default": service.default_model,
            "models": [_summary(served) for _, served in sorted(predictor.served.items())],
        }

    @router.get("/models/{model}/traffic", summary="The traffic plan that is served")
    async def traffic(model: str) -> dict[str, Any]:
        """The plan as this replica serves it: revision, arms with weights, who decided and why.

        While a rollout is open, `look` is what its controller saw last: requests of each arm, each metric with its
        interval and verdict, how many requests it asks for, and what is waited for.
        """
        plan = service.served(ModelName(model)).plan
        return {**plan.model_dump(mode="json"), "look": await run_in_threadpool(_look, looks, plan)}

    @router.get("/models/{model}/decisions", summary="The ledger: who moved what, when, why")
    def decisions(model: _Model, newest: _Newest = 100) -> list[dict[str, Any]]:
        """The newest decisions about a model, oldest first, each with its place in the hash chain."""
        rows = open_state().decisions(ModelName(model))
        if not rows:
            raise UnknownModelError(f"No decision is about a model '{model}'.")
        return [
            {"decision": row.decision_id, **row.decision.model_dump(mode="json"), "row_hash": row.row_hash}
            for row in rows[-newest:]
        ]

    return router


def _look(looks: LookFiles, plan: TrafficPlan) -> dict[str, Any] | None:
    """The newest look at the rollout of this plan; None where none is open, or nobody looked yet."""
    if plan.rollout is None or not plan.rollout.is_open:
        return None
    look = looks.newest(plan.model)
    if look is None or look.rollout.rollout_id != plan.rollout.rollout_id:
        return None
    return look.model_dump(mode="json")


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
