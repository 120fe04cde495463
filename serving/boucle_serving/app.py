"""The serving app: everything it works with is handed in, nothing is global."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from boucle.contracts.ids import ModelName
from boucle.contracts.measuring import CLIENT_LEFT
from boucle.errors import BoucleError, StateStoreError
from boucle.ports import BundleStore, Clock, FeedbackLog, PredictionLog, RankLog, ShadowLog, StateStore
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.look_files import LookFiles
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.tokens import TokenStore
from boucle_serving.admission import Admission, Limits
from boucle_serving.bundles import LoadedBundle
from boucle_serving.feedback import FeedbackKeeper, FeedbackService
from boucle_serving.guard import ReplicaGuard
from boucle_serving.known_tokens import KnownTokens
from boucle_serving.log_keeper import LogKeeper, RecordKeeper, ShadowKeeper
from boucle_serving.metrics import ServingMetrics
from boucle_serving.middleware import AnswerHeaders
from boucle_serving.plan_watch import PlanWatch
from boucle_serving.predict_endpoint import PredictEndpoint
from boucle_serving.predictor import Predictor
from boucle_serving.problems import FieldError, InvalidRequestError, http_problem, problem_of
from boucle_serving.ranking import RankingService, RankKeeper
from boucle_serving.readiness import Readiness
from boucle_serving.routes.alerts import alerts_router
from boucle_serving.routes.feedback import feedback_router
from boucle_serving.routes.health import health_router
from boucle_serving.routes.mlflow_scoring import mlflow_router
from boucle_serving.routes.models import models_router
from boucle_serving.routes.monitoring import monitoring_router
from boucle_serving.routes.open_inference import metadata_router, open_inference_router
from boucle_serving.routes.predict import predict_router
from boucle_serving.routes.rank import rank_router
from boucle_serving.routes.verbs import verbs_router
from boucle_serving.rows import RowsService
from boucle_serving.service import PredictionService
from boucle_serving.slow import SlowAnswers
from boucle_serving.threads import PredictingThreads
from boucle_serving.trial import Trial
from boucle_serving.worker_metrics import Workers

_LOGGER = logging.getLogger(__name__)
_FIRST_LOOK_SECONDS = 5.0
"""A start waits so long for plans and bundles; a state store that is away must not keep /livez from answering."""
_DESCRIPTION = """
Predictions of the models that boucle has in traffic. Features are looked up by entity and `as_of`, or come with the
request; every answer is in
the prediction log before it leaves and carries a `prediction_id`. Every answer has the headers `x-request-id`,
`x-boucle-model-version` and `x-boucle-route`. Errors are problem documents (RFC 9457).
"""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a serving app is built from.

    `open_state` may raise for as long as there is no state store: it is called again. `open_online` gives the online
    features of one model, `open_clock` its time.
    """

    open_state: Callable[[], StateStore]
    open_online: Callable[[ModelName], OnlineStore]
    bundles: BundleStore
    log: PredictionLog
    feedback: FeedbackLog
    shadows: ShadowLog
    ranks: RankLog
    open_clock: Callable[[ModelName], Clock]
    default_model: ModelName
    replica: str
    address: str
    plan_poll_seconds: float
    tokens: TokenStore
    evidence: EvidenceFiles
    looks: LookFiles
    monitoring: MonitoringFiles
    limits: Limits
    log_sync_seconds: float = 1.0
    serve_unlogged: bool = False
    trial_seconds: float = 0.1
    slow_seconds: float = 1.0
    workers: Workers | None = None
    replica_timeout_seconds: float = 3.0
    replica_guard: bool = True


def create_app(parts: Parts) -> FastAPI:
    """The app; its lifespan starts and stops the watcher and the log."""
    metrics = ServingMetrics()
    shadow_keeper = ShadowKeeper(parts.shadows, metrics, replica=parts.replica, sync_seconds=parts.log_sync_seconds)
    predictor = Predictor(parts.bundles, partial(_open_trial, parts, shadow_keeper))
    keeper = LogKeeper(
        parts.log,
        metrics,
        replica=parts.replica,
        sync_seconds=parts.log_sync_seconds,
        serve_unlogged=parts.serve_unlogged,
    )
    feedback_keeper = FeedbackKeeper(
        parts.feedback, metrics, replica=parts.replica, serve_unlogged=parts.serve_unlogged
    )
    rank_keeper = _rank_keeper(parts, metrics)
    keepers = (keeper, feedback_keeper, shadow_keeper, rank_keeper)
    watch = PlanWatch(
        open_state=parts.open_state,
        open_online=parts.open_online,
        predictor=predictor,
        metrics=metrics,
        poll_seconds=parts.plan_poll_seconds,
        replica=parts.replica,
        default_model=parts.default_model,
    )
    service = PredictionService(
        predictor=predictor,
        online=watch.online,
        log=keeper,
        open_clock=parts.open_clock,
        replica=parts.replica,
        default_model=parts.default_model,
        all_models_known=lambda: watch.plans_known,
    )
    open_state = _opened_once(parts.open_state)
    guard = ReplicaGuard(
        predictor=predictor,
        metrics=metrics,
        newest=keeper.newest,
        open_state=open_state,
        open_clock=parts.open_clock,
        replica=parts.replica,
        replica_timeout_seconds=parts.replica_timeout_seconds,
    )
    tokens = KnownTokens(parts.tokens, needed=parts.limits.require_key)
    app = FastAPIOffline(
        title="boucle serving",
        version=version("boucle"),
        description=_DESCRIPTION,
        lifespan=_lifespan(watch, guard if parts.replica_guard else None, keepers, tokens, predictor, parts.address),
    )
    app.state.watch = watch
    app.state.keeper = keeper
    app.state.guard = guard
    app.state.tokens = tokens
    admission = Admission(parts.limits, tokens, metrics)
    endpoint = PredictEndpoint(service, admission, metrics, SlowAnswers(parts.slow_seconds))
    app.state.predict_endpoint = endpoint
    threads = PredictingThreads()
    rows = RowsService(service, metrics, admission, threads)
    readiness = Readiness(predictor, watch, tokens, (*keepers, guard), parts.replica)
    app.include_router(predict_router(endpoint, rows))
    app.include_router(feedback_router(_feedback_service(parts, service, feedback_keeper), rows.body, threads))
    app.include_router(
        rank_router(RankingService(service, rank_keeper, metrics, threads, replica=parts.replica), rows.body)
    )
    app.include_router(mlflow_router(rows))
    app.include_router(open_inference_router(rows, readiness))
    app.include_router(metadata_router(rows, admission))
    app.include_router(health_router(readiness, metrics, parts.workers, admission))
    app.include_router(models_router(predictor, service, parts.looks, open_state, admission))
    app.include_router(alerts_router(open_state, parts.tokens, parts.open_clock, service.knows, admission))
    app.include_router(monitoring_router(service, parts.monitoring, admission))
    app.include_router(
        verbs_router(
            open_state,
            parts.tokens,
            parts.evidence,
            parts.open_clock,
            admission,
            replica_timeout_seconds=parts.replica_timeout_seconds,
        )
    )
    app.add_middleware(AnswerHeaders)
    _handle_errors(app)
    return app


def _open_trial(parts: Parts, keeper: ShadowKeeper, bundle: LoadedBundle) -> Trial:
    return Trial(
        bundle,
        replica=parts.replica,
        budget_seconds=parts.trial_seconds,
        write=lambda shadows: keeper.write(*shadows),
        skipped=partial(keeper.skipped, bundle.contract.model),
    )


def _rank_keeper(parts: Parts, metrics: ServingMetrics) -> RankKeeper:
    return RankKeeper(
        parts.ranks,
        metrics,
        replica=parts.replica,
        sync_seconds=parts.log_sync_seconds,
        serve_unlogged=parts.serve_unlogged,
    )


def _feedback_service(parts: Parts, service: PredictionService, keeper: FeedbackKeeper) -> FeedbackService:
    clock = cache(parts.open_clock)

    def clock_of(model: ModelName | None) -> Clock:
        """The clock of a model that is served, else of the default model: callers may name anything."""
        return clock(model if model is not None and service.knows(model) else parts.default_model)

    return FeedbackService(keeper, clock_of=clock_of, replica=parts.replica)


def _opened_once(open_state: Callable[[], StateStore]) -> Callable[[], StateStore]:
    """The state store, opened when it is first needed and there; what cannot be opened is tried again."""
    found: list[StateStore] = []

    def state() -> StateStore:
        if not found:
            found.append(open_state())
        return found[0]

    return state


def _lifespan(
    watch: PlanWatch,
    guard: ReplicaGuard | None,
    keepers: Sequence[RecordKeeper[Any]],
    tokens: KnownTokens,
    predictor: Predictor,
    address: str,
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        for keeper in keepers:
            keeper.start()
        tokens.start()
        watch.start(address)
        # Whoever is sent here by a shared socket or a load balancer must not be told that there is no model yet.
        looked = (watch.looked, tokens.looked)
        await asyncio.gather(*(asyncio.to_thread(one.wait, _FIRST_LOOK_SECONDS) for one in looked))
        if guard is not None:
            guard.start()
        yield
        if guard is not None:
            guard.stop()
        watch.stop()
        tokens.stop()
        predictor.close()
        for keeper in keepers:
            keeper.stop()

    return lifespan


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(BoucleError)
    async def on_boucle_error(request: Request, error: BoucleError) -> Response:
        if isinstance(error, StateStoreError):  # the caller is not told the cause
            _LOGGER.warning("%s: %s", type(error).__name__, error)
        return problem_of(error).response(path=request.url.path)

    @app.exception_handler(ClientDisconnect)
    async def on_client_left(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_LEFT)

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        return http_problem(error.status_code, str(error.detail)).response(error.headers, path=request.url.path)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_parameter(_request: Request, error: RequestValidationError) -> Response:
        fields = [FieldError(str(item["loc"][-1]), item["msg"]) for item in error.errors()]
        return problem_of(InvalidRequestError(*fields)).response()
