"""Alerts about a model over HTTP: Alertmanager's own notification, who may send it, and what is on record of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from assets_tests.bundles import MODEL, promote
from assets_tests.contract.test_http import WEIGHTS_1, World
from boucle.contracts.ids import Digest, ModelName
from boucle.contracts.trigger import AlertState
from boucle_adapters.tokens import Role, roles_of

ALERT: dict[str, Any] = {
    "status": "firing",
    "labels": {"alertname": "RefundsUp", "severity": "page", "model": MODEL},
    "annotations": {"summary": "refunds doubled"},
    "startsAt": "1997-08-20T04:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "generatorURL": "http://prometheus.example/graph",
    "fingerprint": "9f1c2e7a5b3d4c60",
}


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def notification(*alerts: dict[str, Any]) -> dict[str, Any]:
    """What Alertmanager posts."""
    return {
        "version": "4",
        "groupKey": '{}:{alertname="RefundsUp"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "boucle",
        "groupLabels": {"alertname": "RefundsUp"},
        "commonLabels": {"alertname": "RefundsUp"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager.example",
        "alerts": list(alerts),
    }


def tell(world: World, body: dict[str, Any], role: Role | None = Role.ALERTER, model: str = MODEL):
    token = world.tokens.add("service:alertmanager", roles_of("service:alertmanager", [role])) if role else ""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return world.http.post(f"/models/{model}/alerts", json=body, headers=headers)


def test_a_firing_alert_is_on_record_with_who_told_it(world: World):
    answer = tell(world, notification(ALERT))
    assert (answer.status_code, answer.json()) == (202, {"model": MODEL, "firing": 1, "resolved": 0})
    (alert,) = world.state.alerts(MODEL)
    assert (alert.name, alert.summary, alert.state) == ("RefundsUp", "refunds doubled", AlertState.FIRING)
    assert (alert.fingerprint, alert.actor) == ("9f1c2e7a5b3d4c60", "service:alertmanager")
    assert alert.starts_at == datetime(1997, 8, 20, 4, tzinfo=UTC)


def test_an_incident_that_is_told_again_is_one_incident_and_ends_when_it_is_resolved(world: World):
    tell(world, notification(ALERT))
    tell(world, notification(ALERT))
    assert tell(world, notification(ALERT | {"status": "resolved"})).json()["resolved"] == 1
    assert [alert.state for alert in world.state.alerts(MODEL)] == [AlertState.RESOLVED]


@pytest.mark.parametrize(("role", "status"), [(None, 401), (Role.VIEWER, 403), (Role.CALLER, 403)])
def test_only_an_alerter_may_tell_of_an_alert(world: World, role: Role | None, status: int):
    assert tell(world, notification(ALERT), role).status_code == status
    assert world.state.alerts(MODEL) == []


def test_an_alert_about_a_model_that_nobody_serves_is_refused_and_not_kept(world: World):
    answer = tell(world, notification(ALERT), model="repurchsae")
    assert (answer.status_code, answer.json()["title"]) == (404, "No such model is served here")
    assert world.state.alerts(ModelName("repurchsae")) == []


def test_a_replica_that_has_no_plan_yet_takes_an_alert_about_a_model_that_is_planned(tmp_path: Path):
    world = World(tmp_path)
    other = ModelName("churn")
    promote(world.state, version=1, digest=Digest("1" * 64), model=other)
    assert tell(world, notification(ALERT), model=other).status_code == 202


def test_long_annotations_lose_no_alert_the_summary_is_cut(world: World):
    annotations = {"summary": "s" * 1_200, "description": "d" * 1_200, "x" * 300: "1"}
    assert tell(world, notification(ALERT | {"annotations": annotations})).status_code == 202
    assert [alert.summary for alert in world.state.alerts(MODEL)] == ["s" * 999 + "…"]


@pytest.mark.parametrize(
    ("name", "kept"), [("n" * 1_000, "n" * 1_000), ("n" * 1_001, "n" * 999 + "…")], ids=["1,000", "1,001"]
)
def test_a_longer_label_is_cut_with_a_mark_and_loses_no_alert(world: World, name: str, kept: str):
    labels = {"alertname": name, "query": "q" * 1_001, "x" * 300: "1"}
    assert tell(world, notification(ALERT | {"labels": labels})).status_code == 202
    assert [alert.name for alert in world.state.alerts(MODEL)] == [kept]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"version": "4"}, "alerts"),
        (notification(ALERT) | {"version": "3"}, "version"),
        (notification(ALERT | {"startsAt": "yesterday"}), "startsAt"),
        (notification(ALERT | {"startsAt": 0}), "startsAt"),
        (notification(ALERT | {"status": "burning"}), "status"),
        (notification(ALERT | {"fingerprint": "../../etc"}), "fingerprint"),
        (notification(*[ALERT] * 101), "alerts"),
    ],
)
def test_what_is_no_notification_is_refused_by_the_name_of_its_field(world: World, body: dict[str, Any], field: str):
    answer = tell(world, body)
    assert answer.status_code == 422
    assert any(field in error["field"] for error in answer.json()["errors"])
    assert world.state.alerts(MODEL) == []
