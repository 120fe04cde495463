"""GET /health, /ping, /livez, /readyz, /version, /metrics."""

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST

from boucle_serving.admission import Admission
from boucle_serving.metrics import ServingMetrics
from boucle_serving.readiness import Readiness
from boucle_serving.worker_metrics import Workers

_NOT_READY: dict[int | str, dict[str, Any]] = {503: {"description": "Not ready; /readyz says what is missing."}}


def health_router(
    readiness: Readiness, metrics: ServingMetrics, workers: Workers | None, admission: Admission
) -> APIRouter:
    """What orchestrators, load balancers and Prometheus ask; only who may look is told more than yes or no.

    Nothing here waits for a thread or a place: whatever hangs, an orchestrator must hear that this process lives.
    """
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="The process runs")
    async def livez() -> dict[str, str]:
        """200 as long as the process can answer at all."""
        return {"status": "alive"}

    @router.get("/readyz", summary="A model can answer, and what is missing", responses=_NOT_READY)
    async def readyz(request: Request) -> JSONResponse:
        """200 when a plan is loaded, its bundles are warm and features can be read; else 503 with what is missing.

        Where keys are required, what is missing is told to who may look: a token of any role.
        """
        document = readiness.document() if admission.may_look(request.scope) else readiness.for_strangers()
        return JSONResponse(document, status_code=200 if document["status"] == "ready" else 503)

    @router.get(
        "/health", summary="A model can answer (MLflow's scoring server has the same path)", responses=_NOT_READY
    )
    @router.get("/ping", include_in_schema=False)
    async def health() -> JSONResponse:
        """The short form of /readyz."""
        status = readiness.document()["status"]
        return JSONResponse({"status": status}, status_code=200 if status == "ready" else 503)

    @router.get("/version", summary="The release of boucle that answers")
    async def boucle_version() -> dict[str, str]:
        """The installed version."""
        return {"boucle": version("boucle")}

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def prometheus(request: Request) -> Response:
        """The metrics of this replica; where several workers share the address, of each of them (label `worker`)."""
        shared = workers is not None and request.scope["server"][1] == workers.port
        text = await workers.metrics() if workers is not None and shared else metrics.text()
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    return router
