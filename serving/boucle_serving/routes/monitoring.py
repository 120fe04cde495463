"""GET /models/{model}/monitoring: what the platform wrote of performance and drift; a page of it for people."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from boucle.contracts.ids import ModelName
from boucle.contracts.performance import MonitoringHistory
from boucle.stats.performance_history import without_slices
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_serving.admission import Admission
from boucle_serving.documented import MODEL_PROBLEMS
from boucle_serving.limited_routes import looking
from boucle_serving.service import PredictionService

_ALONE = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
"""The page loads nothing and runs nothing."""


def monitoring_router(service: PredictionService, files: MonitoringFiles, admission: Admission) -> APIRouter:
    """What monitoring knows of a model, read from the platform's files at each request, for whom may look."""
    router = APIRouter(tags=["models"], responses=MODEL_PROBLEMS, route_class=looking(admission))

    @router.get("/models/{model}/monitoring", summary="Performance, estimates, coverage and drift over time")
    async def monitoring(
        model: str,
        last: Annotated[int, Query(ge=1, le=1000, description="Windows, the newest ones.")] = 60,
        slices: Annotated[bool, Query(description="With the rows of single slices.")] = False,  # noqa: FBT002
    ) -> MonitoringHistory:
        """The newest report of each window, oldest first.

        `realised` is of predictions whose outcome was due in the window, `estimated` (without labels) of those served
        in it; `estimate_errors` hold earlier estimates against what came. `outcomes.known_at` says what knowledge a
        report rests on: a report that was restated has a `restatement` above 0. No window: nothing was reported yet.
        """
        name = service.served(ModelName(model)).plan.model
        history = await run_in_threadpool(files.history, name, last=last)
        return history if slices else without_slices(history)

    @router.get("/models/{model}/monitoring.html", response_class=HTMLResponse, summary="The same as a page for people")
    async def page(model: str) -> HTMLResponse:
        """The page that the platform drew with its newest drift report; 404 before the first one."""
        name = service.served(ModelName(model)).plan.model
        try:
            content = await run_in_threadpool(files.page(name).read_bytes)
        except OSError as error:
            raise HTTPException(
                404, f"No page of the monitoring of '{name}' was drawn yet: materialise its drift_report."
            ) from error
        return HTMLResponse(content, headers=_ALONE)

    return router
