"""POST /models/{model}/alerts: what Alertmanager's webhook says of a model, put on record for the platform to judge."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from boucle.contracts.ids import ModelName
from boucle.contracts.trigger import AlertRequest, AlertState
from boucle.ports import Clock, StateStore
from boucle_adapters.tokens import Bearer, Role, TokenStore
from boucle_serving.admission import Admission, Kind
from boucle_serving.bearers import with_role
from boucle_serving.documented import ALERT_PROBLEMS
from boucle_serving.limited_routes import deciding
from boucle_serving.problems import UnknownModelError

MAX_BODY_BYTES = 1024 * 1024
_KEPT = 1000
# The schema promises a text; a number would be read as seconds.
_Moment = Annotated[AwareDatetime, BeforeValidator(lambda said: said if isinstance(said, str) else "")]
# A longer text is no reason to lose the alert: Alertmanager cannot shorten it, and sends it again as it is.
_Text = Annotated[str, AfterValidator(lambda said: said if len(said) <= _KEPT else f"{said[: _KEPT - 1]}…")]


class Annotations(BaseModel):
    """What the rule says in words: boucle reads the summary. Of longer texts it keeps 999 characters and `…`."""

    model_config = ConfigDict(extra="ignore")

    summary: _Text = ""


class Alert(BaseModel):
    """One alert of a notification: what boucle reads of it. Other fields are Alertmanager's own and are passed over."""

    model_config = ConfigDict(extra="ignore")

    status: AlertState
    fingerprint: str = Field(pattern="^[0-9a-f]{1,64}$", description="Names the alert's labels.")
    starts_at: _Moment = Field(alias="startsAt")
    labels: dict[str, _Text] = Field(default_factory=dict)
    annotations: Annotations = Field(default_factory=Annotations)


class Notification(BaseModel):
    """What Alertmanager posts to a webhook, version 4.

    See https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
    """

    model_config = ConfigDict(extra="ignore")

    version: str = Field(default="4", pattern="^4$")
    alerts: list[Alert] = Field(max_length=100)


def alerts_router(
    open_state: Callable[[], StateStore],
    tokens: TokenStore,
    open_clock: Callable[[ModelName], Clock],
    knows: Callable[[ModelName], bool],
    admission: Admission,
) -> APIRouter:
    """The route by which an alert asks for retraining; labels, cool-down and budget decide, as for drift."""
    router = APIRouter(
        tags=["decide"],
        responses=ALERT_PROBLEMS,
        route_class=deciding(admission, {Role.ALERTER}, most=MAX_BODY_BYTES, kind=Kind.ALERTS),
    )
    alerter = with_role(tokens, Role.ALERTER)

    @router.post("/models/{model}/alerts", status_code=HTTPStatus.ACCEPTED, summary="Take an alert about a model")
    def alerts(
        model: Annotated[str, Path(pattern="^[a-z][a-z0-9_]*$")],
        told: Notification,
        bearer: Annotated[Bearer, Depends(alerter)],
    ) -> dict[str, Any]:
        """Record what is firing and what is resolved. An incident that is told again is the same one.

        404 for a model that nobody serves: on record under a wrong name, the alert would reach nobody.
        """
        state, name = open_state(), ModelName(model)
        # The plans as well: a replica that has just started serves none of them yet.
        if not knows(name) and name not in state.plans():
            raise UnknownModelError(f"No model '{model}' is served here: the alert was not kept. Mend the URL.")
        now = open_clock(name).now()
        requests = [_request(alert, name, bearer, now) for alert in told.alerts]
        for request in requests:
            state.record_alert(request)
        firing = sum(request.state is AlertState.FIRING for request in requests)
        return {"model": model, "firing": firing, "resolved": len(requests) - firing}

    return router


def _request(alert: Alert, model: ModelName, bearer: Bearer, now: datetime) -> AlertRequest:
    return AlertRequest(
        model=model,
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at,
        state=alert.status,
        name=alert.labels.get("alertname", "unnamed"),
        summary=alert.annotations.summary,
        actor=bearer.actor,
        received_at=now,
    )
