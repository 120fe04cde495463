"""Rollouts over a real replica: requests, their outcomes, looks, and what follows from them."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import numpy as np
import pytest
from mlflow import MlflowClient

from assets_tests import warm
from assets_tests.bad_bundles import put_crashing_bundle
from assets_tests.bundles import FEATURES, MODEL, NOVEMBER, promote, put_bundle, sigmoid
from assets_tests.replica import Replica, wait_for
from assets_tests.scenarios import evidence
from boucle.contracts.decision import DecisionKind
from boucle.contracts.ids import Digest, ModelVersion
from boucle.contracts.look import RolloutLook
from boucle.contracts.rollout import Phase
from boucle.contracts.traffic_plan import Strategy
from boucle.operations import pins, promotion, traffic
from boucle.operations.production import rollout_under_way
from boucle.policy.ab import AbPolicy, Better
from boucle.policy.bandit import BanditPolicy
from boucle.policy.canary import CanaryPolicy, CanaryStep, Metric, Say, ShadowStep
from boucle.policy.trials import TrafficPolicy
from boucle_adapters.home import Home
from boucle_adapters.online_store import publish_snapshot
from boucle_adapters.tokens import Role, TokenStore
from boucle_cli.verbs import model_status
from boucle_platform.model_loop import catalogue
from boucle_platform.model_loop.rollout_sensor import rollout_sensor
from boucle_platform.model_loop.steps.risk import risk_of
from boucle_platform.model_loop.steps.rollout import look
from boucle_platform.resources.home import HomeResource

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
USERS = 4_000
RIGHT, WRONG = (1.0, -0.5), (-1.0, 0.5)
"""Weights of a model that knows who orders again, and of one that has it the wrong way round."""
STEPS = (
    CanaryStep(weight=5, min_requests=1, min_minutes=0, required_pass=False),
    CanaryStep(weight=25, min_requests=1, min_minutes=0),
)
POLICY = TrafficPolicy(
    after_promotion=Strategy.CANARY,
    canary=CanaryPolicy(
        shadow=ShadowStep(min_requests=500, min_minutes=0),
        steps=STEPS,
        failed=Metric(margin=0.05, effect=0.2, unit="ratio of requests"),
        slow=Metric(margin=0.3, effect=0.6, unit="ratio of requests", say=Say.VETO),
        score_shift=Metric(margin=0.3, effect=0.6, unit="standard deviations"),
        loss=Metric(margin=0.1, effect=0.3, unit="ratio of production's log loss"),
        min_samples=30,
    ),
    ab=AbPolicy(metric="loss", unit="nats", better=Better.LOWER, min_effect=0.1, min_days=0),
    bandit=BanditPolicy(reward_window_hours=0.5, min_days=0, min_rewards=520, max_expected_loss=0.01),
)
SPEC = catalogue.spec_of("repurchase").model_copy(update={"traffic": POLICY})


class Shop:
    """A replica that serves version 1, 4,000 customers whose orders follow `RIGHT`, and a home."""

    def __init__(self, path: Path) -> None:
        rng = np.random.default_rng(7)
        self.features = rng.normal(0, 1, (USERS, 2)).round(3)
        self.labels = (rng.random(USERS) < [sigmoid(float(row @ RIGHT)) for row in self.features]).astype(int)
        self.replica = Replica(path)
        self.home = Home(self.replica.settings)
        self.client = MlflowClient(tracking_uri=self.home.registry.tracking_uri)
        self.client.create_registered_model(MODEL)
        publish_snapshot(
            self.home.settings.online_dir / MODEL,
            entity_keys=[str(number) for number in range(USERS)],
            as_of=[NOVEMBER] * USERS,
            features=self.features,
            feature_names=FEATURES,
            watermark=NOVEMBER,
            source_digests=[],
        )
        self.asked = 0
        self.home.clock(MODEL).set(NOVEMBER + timedelta(days=1))

    def bundle(self, weights: tuple[float, float]) -> Digest:
        return put_bundle(self.replica.bundles, self.home.settings.home / "scratch", weights=weights)

    def register(self, digest: Digest) -> ModelVersion:
        made = self.client.create_model_version(MODEL, str(self.home.settings.home), tags={"bundle_digest": digest})
        return ModelVersion(int(made.version))

    def promote(self, digest: Digest) -> ModelVersion:
        """Make it production; its canary begins, where there was a version before."""
        version = self.register(digest)
        if self.home.state.plan(MODEL) is None:
            promote(self.home.state, version=version, digest=digest)
            return version
        new = evidence(version, against=self.home.state.production(MODEL)).model_copy(update={"bundle_digest": digest})
        actor = self.home.actor("user:ada", MODEL)
        promotion.promote(self.home.state, self.home.registry, evidence=new, policy=SPEC.promotion, actor=actor)
        traffic.start_traffic(self.home.state, MODEL, policy=POLICY, actor=actor)
        return version

    def try_version(self, digest: Digest, strategy: Strategy) -> ModelVersion:
        version = self.register(digest)
        traffic.try_version(
            self.home.state,
            MODEL,
            challenger=version,
            bundle=digest,
            strategy=strategy,
            policy=POLICY,
            actor=self.home.actor("user:ada", MODEL),
            reason="is it better?",
        )
        return version

    def ask(self, users: int = 1_000, *, reward: bool = False) -> list[dict[str, Any]]:
        """The next customers, by one batch, once the replica follows the plan; what became of them is told at once."""
        plan = self.home.state.plan(MODEL)
        with httpx.Client(base_url=self.replica.address, timeout=60) as client:
            wait_for(lambda: client.get(f"/models/{MODEL}/traffic").json().get("revision") == plan.revision)
            numbers = [number % USERS for number in range(self.asked, self.asked + users)]
            self.asked += users
            rows = [{"user_id": str(number), "as_of": "1997-11-01"} for number in numbers]
            answer = client.post(f"/models/{MODEL}/predict/batch", json={"rows": rows})
            assert answer.status_code == 200
            found = answer.json()["rows"]
            assert all("proba" in row for row in found)
            at = datetime.now(UTC).isoformat()
            told = [
                self._told(row, int(self.labels[number]), at, reward)
                for row, number in zip(found, numbers, strict=True)
            ]
            assert client.post("/feedback", json={"feedback": told}).status_code == 202
        return found

    def _told(self, row: dict[str, Any], label: int, at: str, reward: bool) -> dict[str, Any]:
        said = {"prediction_id": row["prediction_id"], "at": at}
        return {**said, "reward": float((row["proba"] > 0.5) == bool(label))} if reward else {**said, "outcome": label}

    def look(self) -> RolloutLook:
        found = look(self.home, SPEC, who="user:ada")
        assert found is not None
        return found

    def until_over(self, *, looks: int = 12, reward: bool = False) -> list[RolloutLook]:
        """Ask and look in turn until the rollout is over."""
        seen = []
        while rollout_under_way(self.home.state, MODEL):
            assert len(seen) < looks, seen[-1].said
            self.ask(reward=reward)
            wait_for(self._shadowed)
            self.pass_an_hour()
            seen.append(self.look())
        return seen

    def pass_an_hour(self) -> None:
        clock = self.home.clock(MODEL)
        clock.set(clock.now() + timedelta(hours=1))

    def _shadowed(self) -> bool:
        """Whether every answer that is to be shadowed has its shadow."""
        plan = self.home.state.plan(MODEL)
        if not plan.shadow_share:
            return True
        long_ago, far = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
        answered = {
            r.prediction_id for r in self.home.log.read(MODEL, long_ago, far) if r.plan_revision == plan.revision
        }
        shadowed = {r.prediction_id for r in self.home.shadows.read(MODEL, long_ago, far)}
        return answered <= shadowed

    def kinds(self) -> list[DecisionKind]:
        return [row.decision.kind for row in self.home.state.decisions(MODEL)]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    made = Shop(tmp_path)
    made.promote(made.bundle((0.9, -0.45)))
    made.replica.start()
    try:
        wait_for(lambda: bool(made.home.state.replicas(max_age_seconds=3)))
        yield made
    finally:
        made.replica.kill()
        made.home.state.close()


def test_a_good_version_climbs_from_shadow_to_everybody(shop: Shop):
    version = shop.promote(shop.bundle(RIGHT))
    looks = shop.until_over()
    assert [seen.rollout.weight for seen in looks if seen.moved] == [0, 5, 25]
    plan = shop.home.state.plan(MODEL)
    assert (plan.production.version, plan.production.weight, plan.rollout.phase) == (version, 100, Phase.COMPLETE)
    assert shop.kinds()[-4:] == [DecisionKind.ROLLOUT] * 3 + [DecisionKind.SERVED]
    assert {gate.verdict.value for gate in looks[-1].gates} == {"passed"}
    assert {row["model_version"] for row in shop.ask(50)} == {version}


def test_a_version_that_crashes_is_aborted_and_no_caller_sees_it(shop: Shop):
    spoilt = put_crashing_bundle(shop.replica.bundles, shop.home.settings.home / "scratch")
    shop.features[:] = np.abs(shop.features) + 3  # every customer has the three orders that it crashes on
    publish_snapshot(
        shop.home.settings.online_dir / MODEL,
        entity_keys=[str(number) for number in range(USERS)],
        as_of=[NOVEMBER] * USERS,
        features=shop.features,
        feature_names=FEATURES,
        watermark=NOVEMBER,
        source_digests=[],
    )
    version = shop.promote(spoilt)
    looks = shop.until_over()
    assert "aborted" in looks[-1].said
    assert "failed: failed (measured" in looks[-1].said
    assert max(seen.rollout.weight for seen in looks) <= 5
    row = next(row.decision for row in shop.home.state.decisions(MODEL) if row.decision.kind is DecisionKind.ROLLBACK)
    assert (row.from_version, row.to_version, shop.home.state.production(MODEL)) == (version, 1, 1)


def test_a_version_with_worse_outcomes_is_stopped_before_anybody_is_answered_by_it_but_not_while_it_is_pinned(
    shop: Shop,
):
    shop.promote(shop.bundle(WRONG))
    actor = shop.home.actor("user:ada", MODEL)
    pins.pin(shop.home.state, MODEL, reason="I want to see it", actor=actor)
    said = ""
    while "aborted" not in said:
        shop.ask()
        wait_for(shop._shadowed)
        shop.pass_an_hour()
        said = shop.look().said
    assert "It stays where it is: version 2 of 'repurchase' is pinned by user:ada" in said
    assert shop.home.state.production(MODEL) == 2
    pins.unpin(shop.home.state, MODEL, reason="I saw it", actor=actor)
    looks = shop.until_over()
    assert max(seen.rollout.weight for seen in looks) == 0
    assert shop.home.state.production(MODEL) == 1


def test_without_requests_a_rollout_holds(shop: Shop):
    shop.promote(shop.bundle(RIGHT))
    seen = shop.look()
    assert (seen.moved, {gate.verdict.value for gate in seen.gates if gate.name != "slow"}) == (False, {"inconclusive"})


def test_the_winner_of_an_ab_test_becomes_a_request_and_production_stays(shop: Shop):
    shop.promote(shop.bundle(WRONG))
    traffic_plan = shop.home.state.plan(MODEL)
    while traffic_plan.rollout and traffic_plan.rollout.is_open:  # a poor version got into production all the same
        after = traffic_plan.rollout.model_copy(update={"phase": Phase.COMPLETE, "weight": 100.0})
        actor = shop.home.actor("user:ada", MODEL)
        _, traffic_plan = traffic.take_step(shop.home.state, traffic_plan, after, reason="by hand", actor=actor)
    digest = shop.bundle(RIGHT)
    version = shop.try_version(digest, Strategy.AB)
    file = shop.home.settings.data_dir / MODEL / "versions" / str(version) / "evidence" / "e.json"
    file.parent.mkdir(parents=True)
    file.write_text(evidence(version, against=2).model_copy(update={"bundle_digest": digest}).model_dump_json())
    looks = shop.until_over()
    assert "The challenger is better" in looks[-1].said
    assert "asks for the promotion of version 3" in looks[-1].said
    assert shop.kinds()[-2:] == [DecisionKind.REQUEST, DecisionKind.ROLLOUT]
    assert shop.home.state.decisions(MODEL)[-2].decision.subject_version == version
    assert shop.home.state.production(MODEL) == 2
    assert {row["model_version"] for row in shop.ask(50)} == {2}


def test_a_bandit_gives_the_better_version_more_and_more(shop: Shop):
    shop.try_version(shop.bundle(WRONG), Strategy.BANDIT)
    looks = shop.until_over(reward=True)
    weights = [seen.rollout.weight for seen in looks]
    assert weights[0] == 50
    better, worse = (next(one for one in looks[-1].estimates if one.version == version) for version in (1, 2))
    assert worse.snips_high < better.snips_low
    assert weights[-1] < 50
    assert shop.home.state.production(MODEL) == 1


def test_the_sensor_looks_steps_and_puts_the_alias_of_the_challenger(shop: Shop):
    version = shop.promote(shop.bundle(RIGHT))
    shop.ask()
    wait_for(shop._shadowed)
    answer = tick(shop)
    assert [request.tags["boucle/trigger"][:30] for request in answer.run_requests] == [
        "canary of version 2 goes on in"
    ]
    assert shop.home.registry.alias(MODEL, "challenger") == version
    traffic.abort(shop.home.state, MODEL, reason="enough", actor=shop.home.actor("user:ada", MODEL))
    assert "No rollout is open" in tick(shop).skip_message


def test_people_see_where_it_is_and_end_it_over_http(shop: Shop):
    shop.promote(shop.bundle(RIGHT))
    assert "nobody has looked yet" in model_status(shop.home, SPEC)["rollout"]
    shop.ask()
    wait_for(shop._shadowed)
    said = shop.look().said
    assert said in model_status(shop.home, SPEC)["rollout"]
    token = TokenStore(shop.home.settings.tokens_file).add("user:ada", {Role.OPERATOR})
    with httpx.Client(base_url=shop.replica.address, headers={"authorization": f"Bearer {token}"}) as client:
        wait_for(
            lambda: client.get(f"/models/{MODEL}/traffic").json()["revision"] == shop.home.state.plan(MODEL).revision
        )
        shown = client.get(f"/models/{MODEL}/traffic").json()["look"]
        assert (shown["said"], [gate["name"] for gate in shown["gates"]]) == (
            said,
            ["failed", "slow", "score_shift", "loss"],
        )
        wait_for(lambda: client.post(f"/models/{MODEL}/abort", json={}).status_code == 422)  # it heard of the token
        done = client.post(f"/models/{MODEL}/abort", json={"reason": "enough"}, timeout=60)
        assert (done.status_code, done.json()["to"], done.json()["kind"]) == (200, 1, "rollback")
        assert client.post(f"/models/{MODEL}/abort", json={"reason": "again"}).status_code == 409
        assert client.get(f"/models/{MODEL}/traffic").json()["look"] is None


def tick(shop: Shop) -> Any:
    """Evaluate the sensor as a daemon does."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(
            instance=instance,
            sensor_name="repurchase_rollout",
            resources={"home": HomeResource.of(shop.replica.settings)},
        ) as context,
    ):
        return rollout_sensor(SPEC)(context)


def boucle(shop: Shop, *words: str) -> "subprocess.CompletedProcess[str]":
    return warm.boucle(*words, environment={**os.environ, "BOUCLE_HOME": str(shop.home.settings.home)})


def test_the_verbs_try_look_and_abort(shop: Shop):
    version = shop.register(shop.bundle(RIGHT))
    tried = boucle(shop, "try", str(version), "--strategy", "shadow", "--reason", "is it better?", "--json")
    assert json.loads(tried.stdout)["said"] == "shadow of version 2 against version 1: is it better?", tried.stderr
    assert shop.home.registry.alias(MODEL, "challenger") == version
    shop.ask()
    wait_for(shop._shadowed)
    seen = json.loads(boucle(shop, "rollout", "--shadow", "--json").stdout)
    assert (seen["open"], seen["look"]["strategy"], seen["shadow"]["figures"]["pairs"]) == (True, "shadow", 1_000)
    shown = boucle(shop, "rollout", "--shadow").stdout
    assert "repurchase: shadow of version 2 against 1" in shown
    assert "scores of both versions" in shown
    again = boucle(shop, "try", str(version), "--strategy", "ab", "--reason", "more")
    assert (again.returncode, "is on its way into traffic" in " ".join(again.stderr.split())) == (1, True)
    ended = boucle(shop, "abort", "--reason", "enough")
    assert (ended.returncode, "Version 1 of 'repurchase' answers everybody" in ended.stdout) == (0, True), ended.stderr
    assert shop.home.registry.alias(MODEL, "challenger") is None
    nothing = boucle(shop, "abort", "--reason", "enough")
    assert (nothing.returncode, "Traceback" in nothing.stderr) == (1, False)
    assert "No rollout of 'repurchase' is open" in " ".join(nothing.stderr.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["try", "9", "--strategy", "ab", "--reason", "r"], "9"),
        (["try", "1", "--strategy", "ab", "--reason", "r"], "no release bundle"),
        (["try", "2", "--strategy", "canary", "--reason", "r"], "'canary' tries no version"),
        (["demo", "--strategy", "roulette"], "'roulette' cannot be played"),
    ],
)
def test_what_cannot_be_tried_is_refused_with_a_reason_and_nothing_moves(shop: Shop, words: list[str], said: str):
    if "1" in words:
        shop.client.delete_model_version_tag(MODEL, "1", "bundle_digest")
    shop.register(shop.bundle(RIGHT))
    done = boucle(shop, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert said in " ".join(done.stderr.split())
    assert shop.home.state.plan(MODEL).challengers == ()


def test_the_risk_of_a_canary_is_that_of_its_first_step(shop: Shop):
    of_direct = risk_of(shop.home, SPEC.model_copy(update={"traffic": TrafficPolicy()}), evidence(1))
    assert of_direct.traffic_share == 1
    assert risk_of(shop.home, SPEC, evidence(1)).traffic_share == 0.05
