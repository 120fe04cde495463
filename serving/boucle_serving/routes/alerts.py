"""POST /models/{model}/alerts: what Alertmanager's webhook says of a model, put on record for the platform to judge."""

from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field

from boucle.contracts.ids import ModelName
from boucle.contracts.trigger import AlertRequest, AlertState
from boucle.ports import Clock, StateStore
from boucle_adapters.tokens import Bearer, Role, TokenStore
from boucle_serving.bearers import with_role
from boucle_serving.documented import DECISION_PROBLEMS

_Text = Annotated[str, Field(max_length=1000)]
# The schema promises a text; a number would be read as seconds.
_Moment = Annotated[AwareDatetime, BeforeValidator(lambda said: said if isinstance(said, str) else "")]
_Labels = dict[Annotated[str, Field(max_length=200)], _Text]


class Alert(BaseModel):
    """One alert of a notification: what boucle reads of it. Other fields are Alertmanager's own and are passed over."""

    model_config = ConfigDict(extra="ignore")

    status: AlertState
    fingerprint: str = Field(pattern="^[0-9a-f]{1,64}$", description="Names the alert's labels.")
    starts_at: _Moment = Field(alias="startsAt")
    labels: _Labels = Field(default_factory=dict)
    annotations: _Labels = Field(default_factory=dict)


class Notification(BaseModel):
    """What Alertmanager posts to a webhook, version 4.

    See https://prometheus.io/docs/alerting/latest/configuration/#webhook_config.
    """

    model_config = ConfigDict(extra="ignore")

    version: str = Field(default="4", pattern="^4$")
    alerts: list[Alert] = Field(max_length=100)


def alerts_router(
    open_state: Callable[[], StateStore], tokens: TokenStore, open_clock: Callable[[ModelName], Clock]
) -> APIRouter:
    """The route by which an alert asks for retraining; labels, cool-down and budget decide, as for drift."""
    router = APIRouter(tags=["decide"], responses=DECISION_PROBLEMS)
    alerter = with_role(tokens, Role.ALERTER)

    @router.post("/models/{model}/alerts", status_code=HTTPStatus.ACCEPTED, summary="Take an alert about a model")
    def alerts(
        model: Annotated[str, Path(pattern="^[a-z][a-z0-9_]*$")],
        told: Notification,
        bearer: Annotated[Bearer, Depends(alerter)],
    ) -> dict[str, Any]:
        """Record what is firing and what is resolved. An incident that is told again is the same one."""
        state, name, now = open_state(), ModelName(model), open_clock(ModelName(model)).now()
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
        summary=alert.annotations.get("summary", ""),
        actor=bearer.actor,
        received_at=now,
    )
