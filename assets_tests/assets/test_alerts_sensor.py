"""Whom the alerts sensor tells what: real webhooks, one of which is away for a while."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets_tests.bundles import promote
from assets_tests.judging import trigger
from assets_tests.scenarios import digest_of, version
from assets_tests.watched_home import NOON, decided
from boucle.contracts.decision import DecisionKind
from boucle.contracts.trigger import TriggerOutcome
from boucle.errors import ConfigurationError
from boucle_adapters.home import Home
from boucle_adapters.settings import Settings
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.alerts import alerts_sensor
from boucle_platform.model_loop.automation import WILL_RETRY_TAG, retrain_job_name
from boucle_platform.resources.home import HomeResource

SPEC = catalogue.spec_of("repurchase")


class Webhook(ThreadingHTTPServer):
    """Keeps the titles that it was told; answers 503 while it is away."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.told: list[str] = []
        self.types: list[str] = []
        self.away = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://ada:secret@127.0.0.1:{self.server_port}/hook"


class _Receiver(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self.server.away:
            self.server.told.append(message["title"])
            self.server.types.append(message["type"])
        self.send_response(503 if self.server.away else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with Webhook() as found:
        yield found
        found.shutdown()


@pytest.fixture
def other() -> Iterator[Webhook]:
    with Webhook() as found:
        yield found
        found.shutdown()


class World:
    """A home with version 1 in production, and the sensor with its cursor."""

    def __init__(self, path: Path, instance: dg.DagsterInstance) -> None:
        self.settings = Settings(home=path)
        self.home, self.instance, self.cursor = Home(self.settings), instance, None
        promote(self.home.state, version=1, digest=digest_of(1))

    def tick(self) -> str:
        """Evaluate the sensor as a daemon does; what it says."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            sensor_name="repurchase_alerts",
            resources={"home": HomeResource.of(self.settings)},
        ) as context:
            result: Any = alerts_sensor(SPEC)(context)
        self.cursor = getattr(result, "cursor", self.cursor)
        return str(getattr(result, "skip_reason", result))

    def refuse(self, number: int, *, run_id: str = "") -> None:
        new = decided(DecisionKind.REJECT, about=number, dagster_run_id=run_id)
        self.home.state.record(new, expected_production=version(1))

    def failed_run(self) -> str:
        """A retrain run that ended red, as Dagster keeps it."""
        return _job().execute_in_process(instance=self.instance, raise_on_error=False).run_id

    def cancelled_run(self, tags: dict[str, str]) -> None:
        """A retrain run that ended as cancelled."""
        self.instance.create_run_for_job(_job(), tags=tags, status=dg.DagsterRunStatus.CANCELED)


def _job() -> dg.JobDefinition:
    @dg.op
    def breaks() -> None:
        raise ValueError("no")

    return dg.JobDefinition(
        name=retrain_job_name(SPEC), graph_def=dg.GraphDefinition(name="retrain", node_defs=[breaks])
    )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("BOUCLE_ALERT_URLS", raising=False)
    with dg.DagsterInstance.ephemeral() as instance:
        world = World(tmp_path, instance)
        yield world
        world.home.state.close()


@pytest.fixture
def telling(world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> World:
    """The webhook was named, and the sensor has ticked once."""
    monkeypatch.setenv("BOUCLE_ALERT_URLS", webhook.url)
    world.tick()
    return world


def test_what_happened_before_somebody_was_named_is_not_told(telling: World, webhook: Webhook):
    assert webhook.told == []


def test_what_happens_since_is_told_once(telling: World, webhook: Webhook):
    telling.refuse(2)
    promote(telling.home.state, version=3, digest=digest_of(3))
    assert "was told 2 news" in telling.tick()
    assert webhook.told == ["repurchase: version 2 was refused", "repurchase: version 3 is in production"]
    assert webhook.types == ["warning", "info"]
    assert "was told 0 news" in telling.tick()
    assert len(webhook.told) == 2


def test_a_webhook_that_is_away_is_told_when_it_is_back_and_holds_up_no_other(
    telling: World, webhook: Webhook, other: Webhook, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOUCLE_ALERT_URLS", f"{webhook.url} {other.url}")
    telling.tick()
    webhook.away = True
    telling.refuse(2)
    assert "was told 0 news, then was away" in telling.tick()
    assert (webhook.told, other.told) == ([], ["repurchase: version 2 was refused"])
    webhook.away = False
    telling.tick()
    assert webhook.told == other.told == ["repurchase: version 2 was refused"]


def test_drift_that_leads_nowhere_and_runs_that_fail_are_told(telling: World, webhook: Webhook):
    held = trigger("1997-08", TriggerOutcome.SUPPRESSED, production=1)
    telling.home.state.record_trigger(held.model_copy(update={"failed_gates": ("score_drift",)}), NOON)
    telling.failed_run()
    telling.tick()
    assert webhook.told == [
        "repurchase: drift in 1997-08, and no retraining",
        "repurchase: a run of repurchase_retrain failed",
    ]
    telling.tick()
    assert len(webhook.told) == 2


@pytest.mark.parametrize(
    ("tags", "told"),
    [({WILL_RETRY_TAG: "false"}, ["repurchase: a run of repurchase_retrain failed"]), ({}, [])],
    ids=["stopped for its time", "by a person"],
)
def test_a_cancelled_run_is_told_if_it_was_not_a_person(
    telling: World, webhook: Webhook, tags: dict[str, str], told: list[str]
):
    telling.cancelled_run(tags)
    telling.tick()
    assert webhook.told == told


def test_a_run_that_ended_red_because_it_refused_is_told_as_a_refusal_only(telling: World, webhook: Webhook):
    telling.refuse(2, run_id=telling.failed_run())
    telling.tick()
    assert webhook.told == ["repurchase: version 2 was refused"]


def test_the_secrets_of_a_url_are_neither_in_what_the_sensor_says_nor_in_its_cursor(telling: World):
    said = telling.tick()
    assert "secret" not in said + str(telling.cursor)


def test_a_url_that_nobody_knows_fails_the_tick_by_name_and_tells_nobody(
    telling: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("BOUCLE_ALERT_URLS", f"{webhook.url} carrier-pigeon://loft/secret")
    telling.refuse(2)
    with pytest.raises(ConfigurationError, match=r"BOUCLE_ALERT_URLS.*carrier-pigeon") as error:
        telling.tick()
    assert "secret" not in str(error.value)
    assert webhook.told == []


def test_without_a_url_the_sensor_says_so(world: World):
    assert "BOUCLE_ALERT_URLS is empty" in world.tick()
