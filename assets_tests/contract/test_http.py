"""The HTTP contract of serving: every status, every problem document, every header."""

import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from assets_tests.bundles import (
    FEATURES,
    MODEL,
    NOVEMBER,
    OCTOBER,
    flip_last_byte,
    promote,
    publish_users,
    put_bundle,
    sigmoid,
    write_bundle,
)
from boucle.contracts.bundle import MODEL_FILE
from boucle.contracts.ids import Digest, ModelName
from boucle.contracts.prediction import PredictionRecord
from boucle.errors import NotSetUpError, StateStoreError
from boucle.ports import StateStore
from boucle_adapters.bundle_store import DirectoryBundleStore
from boucle_adapters.evidence_files import EvidenceFiles
from boucle_adapters.look_files import LookFiles
from boucle_adapters.memory import MemoryStateStore
from boucle_adapters.monitoring_files import MonitoringFiles
from boucle_adapters.online_store import OnlineStore
from boucle_adapters.rank_log import RankSegments
from boucle_adapters.segment_log import FeedbackSegments, SegmentLog, ShadowSegments
from boucle_adapters.tokens import Bearer, TokenStore
from boucle_serving.admission import Limits
from boucle_serving.app import Parts, create_app
from boucle_serving.known_tokens import KnownTokens
from boucle_serving.metrics import ServingMetrics

NOON = datetime(1997, 11, 2, 12, tzinfo=UTC)
WEIGHTS_1, WEIGHTS_2 = (0.1, -0.2), (0.3, -0.1)
QUESTION = {"user_id": "4", "as_of": "1997-11-01"}


class NoonClock:
    def now(self) -> datetime:
        return NOON


@dataclass(frozen=True)
class SeenTokens(TokenStore):
    """Tokens of which replicas hear at once; by themselves they look twice a second."""

    replicas: list[KnownTokens] = field(default_factory=list)

    def _write(self, tokens: dict[str, Bearer]) -> None:
        super()._write(tokens)
        for replica in self.replicas:
            replica.poll()


@dataclass
class World:
    """One replica and what it looks at; `poll` stands for the watcher's next look."""

    root: Path
    state: StateStore | None = field(default_factory=MemoryStateStore)
    limits: Limits = field(default_factory=Limits)
    serve_unlogged: bool = False
    trial_seconds: float = 0.1

    def __post_init__(self) -> None:
        self.bundles = DirectoryBundleStore(self.root / "bundles")
        self.log = SegmentLog(self.root / "log")
        self.feedback = FeedbackSegments(self.root / "feedback")
        self.shadows = ShadowSegments(self.root / "shadows")
        self.ranks = RankSegments(self.root / "ranks")
        self.tokens = SeenTokens(self.root / "tokens.json")
        self.app = create_app(
            Parts(
                open_state=self.open_state,
                open_online=lambda model: OnlineStore(self.root / "online" / model),
                bundles=self.bundles,
                log=self.log,
                feedback=self.feedback,
                shadows=self.shadows,
                ranks=self.ranks,
                open_clock=lambda _: NoonClock(),
                default_model=MODEL,
                replica="one",
                address="http://one",
                plan_poll_seconds=0.01,
                tokens=self.tokens,
                evidence=EvidenceFiles(self.root / "data"),
                looks=LookFiles(self.root / "data"),
                monitoring=MonitoringFiles(self.root / "data"),
                limits=self.limits,
                serve_unlogged=self.serve_unlogged,
                trial_seconds=self.trial_seconds,
            )
        )
        self.known: KnownTokens = self.app.state.tokens
        self.known.poll()
        self.tokens.replicas.append(self.known)
        self.http = TestClient(self.app)
        self.metrics = ServingMetrics()

    def open_state(self) -> StateStore:
        if self.state is None:
            raise NotSetUpError("There is no state store yet.")
        return self.state

    def promote(self, version: int, *, weights: tuple[float, ...], model: ModelName = MODEL) -> None:
        assert self.state is not None
        digest = put_bundle(self.bundles, self.root / "scratch", weights=weights, model=model)
        promote(self.state, version=version, digest=digest, model=model)

    def poll(self) -> None:
        self.app.state.watch.poll()

    def logged(self) -> list[PredictionRecord]:
        return list(self.log.read(MODEL, NOON, NOON + timedelta(hours=1)))

    def metric(self, line: str) -> float:
        for found in self.http.get("/metrics").text.splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        raise AssertionError(f"/metrics has no line {line}")


@pytest.fixture
def empty(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def world(empty: World) -> World:
    publish_users(empty.root / "online" / MODEL)
    empty.promote(1, weights=WEIGHTS_1)
    empty.poll()
    return empty


def wait_for(claim: Callable[[], bool], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def no_space(*_records: PredictionRecord) -> None:
    raise OSError(28, "No space left on device")


def assert_problem(answer: object, status: int, kind: str) -> dict[str, object]:
    assert answer.status_code == status  # type: ignore[attr-defined]
    assert answer.headers["content-type"] == "application/problem+json"  # type: ignore[attr-defined]
    document: dict[str, object] = answer.json()  # type: ignore[attr-defined]
    assert document["type"] == f"urn:boucle:problem:{kind}"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    return document


def test_an_answer_has_the_probability_the_model_gives_for_the_features_of_that_moment(world: World):
    answer = world.http.post("/predict", json=QUESTION)
    assert answer.status_code == 200
    body = answer.json()
    # Row of user 4 in November: 3 orders, 5 days: 0.1 * 3 - 0.2 * 5 = -0.7.
    assert body.pop("proba") == pytest.approx(sigmoid(-0.7), abs=1e-12)
    assert len(body.pop("prediction_id")) == 32
    assert body == {**QUESTION, "model": "repurchase", "model_version": 1}


def test_the_path_with_the_name_of_the_model_answers_the_same(world: World):
    first, second = (world.http.post(path, json=QUESTION) for path in ("/predict", "/models/repurchase/predict"))
    assert first.json()["proba"] == second.json()["proba"]


@pytest.mark.parametrize(
    "as_of", ["1997-10-15", "1997-10-15T00:00:00", "1997-10-15T00:00:00Z", "1997-10-15T02:00:00+02:00"]
)
def test_dates_and_date_times_are_accepted_and_utc_unless_they_say_otherwise(world: World, as_of: str):
    assert world.http.post("/predict", json={"user_id": "4", "as_of": as_of}).status_code == 200
    assert world.logged()[0].as_of == datetime(1997, 10, 15, tzinfo=UTC)


def test_an_entity_key_may_be_a_whole_number(world: World):
    answer = world.http.post("/predict", json={"user_id": 4, "as_of": "1997-11-01"})
    assert answer.json()["user_id"] == 4
    assert world.logged()[0].entity_key == "4"


def test_an_answer_is_in_the_log_with_all_that_made_it(world: World):
    answer = world.http.post("/predict", json=QUESTION, headers={"x-request-id": "req-1"}).json()
    (record,) = world.logged()
    assert record.prediction_id == answer["prediction_id"]
    assert (record.request_id, record.at, record.replica) == ("req-1", NOON, "one")
    assert (record.model_version, record.plan_revision, record.features) == (1, 1, (3.0, 5.0))
    assert (record.as_of, record.features_as_of) == (NOVEMBER, NOVEMBER)
    assert (record.assigned_role, record.answering_role, record.propensity) == ("production", "production", 1.0)
    assert record.proba == answer["proba"]


def test_a_body_of_more_bytes_than_are_read_is_413(world: World):
    document = assert_problem(world.http.post("/predict", content=b" " * 70_000), 413, "too-large")
    assert document["detail"] == "The body has more than 65536 bytes; no more are read."


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"", ["body"]),
        (b"{not json", ["body"]),
        (b"\xff\xfe", ["body"]),
        (b"[" * 50_000, ["body"]),
        (b"[]", ["body"]),
        (b"{}", ["user_id", "as_of"]),
        (b'{"user_id": "4"}', ["as_of"]),
        (b'{"as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": "4", "as_of": "yesterday"}', ["as_of"]),
        (b'{"user_id": "4", "as_of": "1997-13-01"}', ["as_of"]),
        (b'{"user_id": "4", "as_of": 19971001}', ["as_of"]),
        (b'{"user_id": "4", "as_of": null}', ["as_of"]),
        (b'{"user_id": "4", "as_of": "0001-01-01T00:00:00+05:00"}', ["as_of"]),
        (b'{"user_id": null, "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": true, "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": 4.5, "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": "", "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": "\\ud800", "as_of": "1997-10-01"}', ["body"]),
        (b'{"user_id": "four", "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": -4, "as_of": "1997-10-01"}', ["user_id"]),
        (b'{"user_id": "%s", "as_of": "1997-10-01"}' % (b"4" * 65), ["user_id"]),
        (b'{"user_id": "4", "as_of": "\\ud800"}', ["body"]),
        (b'{"user_id": "4", "asof": "1997-10-01"}', ["asof", "as_of"]),
        (b'{"user_id": "4", "as_of": "1997-10-01", "\\ud800": 1}', ["body"]),
    ],
)
def test_a_malformed_request_is_422_and_names_each_field(world: World, body: bytes, fields: list[str]):
    document = assert_problem(world.http.post("/predict", content=body), 422, "invalid-request")
    assert [error["field"] for error in document["errors"]] == fields  # type: ignore[attr-defined]
    assert world.logged() == []


def test_a_key_that_the_contract_of_the_data_does_not_allow_is_told_what_it_allows(world: World):
    document = assert_problem(
        world.http.post("/predict", json={"user_id": "C4", "as_of": "1997-10-01"}), 422, "invalid-request"
    )
    assert document["detail"] == "user_id: must match ^[0-9]+$ (The customer), not 'C4'"


def test_an_unknown_entity_is_404(world: World):
    answer = world.http.post("/predict", json={"user_id": "5", "as_of": "1997-11-01"})
    assert "'5' is not among the 2 entities" in str(assert_problem(answer, 404, "unknown-entity")["detail"])


def test_a_moment_before_the_first_row_is_404(world: World):
    answer = world.http.post("/predict", json={"user_id": "7", "as_of": "1997-10-01"})
    assert "first row is of 1997-11-01" in str(assert_problem(answer, 404, "no-features-at-as-of")["detail"])


def test_features_that_are_too_old_are_404(world: World):
    publish_users(world.root / "online" / MODEL, watermark=NOVEMBER + timedelta(days=90))
    world.poll()
    answer = world.http.post("/predict", json={"user_id": "4", "as_of": "1998-01-01"})
    assert "younger than 45 days" in str(assert_problem(answer, 404, "no-features-at-as-of")["detail"])


def test_a_moment_beyond_the_watermark_is_422_and_names_as_of(world: World):
    answer = world.http.post("/predict", json={"user_id": "4", "as_of": "1997-11-02"})
    document = assert_problem(answer, 422, "beyond-watermark")
    assert document["errors"][0]["field"] == "as_of"  # type: ignore[index]


def test_an_unknown_model_is_404_and_its_name_is_no_label(world: World):
    assert_problem(world.http.post("/models/nobody/predict", json=QUESTION), 404, "unknown-model")
    assert_problem(world.http.get("/models/nobody/traffic"), 404, "unknown-model")
    assert "nobody" not in world.http.get("/metrics").text


def test_without_a_production_model_predict_is_503_and_says_what_to_do(empty: World):
    empty.poll()
    document = assert_problem(empty.http.post("/predict", json=QUESTION), 503, "no-production-model")
    assert "boucle retrain" in str(document["detail"])
    assert empty.http.get("/livez").status_code == 200
    ready = empty.http.get("/readyz")
    assert ready.status_code == 503
    assert "No model is in production" in ready.json()["missing"][0]
    assert empty.http.get("/health").status_code == 503


def test_without_a_state_store_it_waits_and_picks_the_first_plan_up(tmp_path: Path):
    world = World(tmp_path, state=None)
    world.poll()
    assert "no state store" in world.http.get("/readyz").json()["missing"][0]
    assert world.metric("boucle_state_store_up") == 0
    world.state = MemoryStateStore()
    publish_users(tmp_path / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    assert world.http.get("/readyz").json()["status"] == "ready"


def test_without_an_online_snapshot_predict_is_503_and_ready_says_so(empty: World):
    empty.promote(1, weights=WEIGHTS_1)
    empty.poll()
    assert_problem(empty.http.post("/predict", json=QUESTION), 503, "features-unavailable")
    ready = empty.http.get("/readyz")
    assert (ready.status_code, "online_features" in ready.json()["missing"][0]) == (503, True)


def test_a_prediction_that_cannot_be_logged_is_withheld_and_counted(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(world.log, "append", no_space)
    document = assert_problem(world.http.post("/predict", json=QUESTION), 503, "log-unavailable")
    assert "No space left" in str(document["detail"])
    assert world.metric('boucle_prediction_log_dropped_total{model="repurchase"}') == 1


def test_while_the_log_is_away_readyz_says_so_until_it_is_back(world: World, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as away:
        away.setattr(world.log, "append", no_space)
        world.http.post("/predict", json=QUESTION)
        assert "Predictions are withheld" in str(world.http.get("/readyz").json()["problems"])
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    assert world.http.get("/readyz").json()["problems"] == []


def test_where_the_policy_is_to_serve_a_prediction_that_cannot_be_logged_is_answered_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    world = World(tmp_path, serve_unlogged=True)
    publish_users(tmp_path / "online" / MODEL)
    world.promote(1, weights=WEIGHTS_1)
    world.poll()
    monkeypatch.setattr(world.log, "append", no_space)
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    batch = world.http.post(f"/models/{MODEL}/predict/batch", json={"rows": [QUESTION] * 3})
    assert [row["model_version"] for row in batch.json()["rows"]] == [1, 1, 1]
    assert world.metric('boucle_prediction_log_dropped_total{model="repurchase"}') == 4
    assert world.logged() == []
    assert "without being logged" in str(world.http.get("/readyz").json()["problems"])


def test_a_log_that_cannot_be_brought_to_the_disk_is_a_problem_and_answers_go_on(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as away:
        away.setattr(world.log, "sync", no_space)
        world.app.state.keeper.sync()
        assert "cannot be brought to the disk" in str(world.http.get("/readyz").json()["problems"])
        assert world.http.post("/predict", json=QUESTION).status_code == 200
    world.app.state.keeper.sync()
    assert world.http.get("/readyz").json()["problems"] == []


@pytest.mark.parametrize("body", [b"{", b" " * 70_000, b"{}"])
def test_what_people_write_into_a_path_is_no_label_of_a_metric(world: World, body: bytes):
    for number in range(3):
        world.http.post(f"/models/nobody{number}/predict", content=body)
    text = world.http.get("/metrics").text
    assert "nobody" not in text
    assert 'boucle_requests_total{code="' in text
    assert 'model="unknown"' in text


def test_an_error_nobody_foresaw_is_500_without_a_trace(world: World, monkeypatch: pytest.MonkeyPatch):
    def broken(_record: PredictionRecord) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(world.log, "append", broken)
    answer = world.http.post("/predict", json=QUESTION, headers={"x-request-id": "abc"})
    assert_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "abc"
    assert world.metric('boucle_requests_total{code="500",model="repurchase",route="production",version="1"}') == 1


class SlowWorld(World):
    """Its state store takes as long to open as somebody likes."""

    opened: threading.Event

    def open_state(self) -> StateStore:
        assert self.opened.wait(timeout=90)
        return super().open_state()


@pytest.fixture
def slow(world: World) -> SlowWorld:
    slow = SlowWorld(world.root, state=world.state)
    slow.opened = threading.Event()
    return slow


def test_nobody_is_let_in_before_the_first_look_at_plans_is_over(slow: SlowWorld):
    threading.Timer(0.3, slow.opened.set).start()
    with TestClient(slow.app) as http:
        assert http.post("/predict", json=QUESTION).status_code == 200


def test_a_state_store_that_is_away_does_not_keep_a_replica_from_starting(
    slow: SlowWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("boucle_serving.app._FIRST_LOOK_SECONDS", 0.05)
    with TestClient(slow.app) as http:
        assert http.get("/livez").status_code == 200
        assert_problem(http.post("/predict", json=QUESTION), 503, "no-production-model")
        slow.opened.set()
        wait_for(lambda: http.post("/predict", json=QUESTION).status_code == 200)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("GET", "/predict", 405)])
def test_plain_http_errors_are_problem_documents_too(world: World, method: str, path: str, status: int):
    answer = world.http.request(method, path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


def test_a_plain_request_id_is_echoed(world: World):
    assert world.http.get("/livez", headers={"x-request-id": "trace-1.a:b"}).headers["x-request-id"] == "trace-1.a:b"


@pytest.mark.parametrize("sent", ["", "a b", "x" * 129, "<script>"])
def test_any_other_request_id_is_replaced(world: World, sent: str):
    assert len(world.http.get("/livez", headers={"x-request-id": sent}).headers["x-request-id"]) == 32


def test_an_answer_says_which_version_and_arm_gave_it(world: World):
    answer = world.http.post("/predict", json=QUESTION)
    assert (answer.headers["x-boucle-model-version"], answer.headers["x-boucle-route"]) == ("1", "production")


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/nowhere", "/openapi.json"])
def test_an_answer_that_no_model_gave_says_so(world: World, path: str):
    answer = world.http.get(path)
    assert (answer.headers["x-boucle-model-version"], answer.headers["x-boucle-route"]) == ("none", "none")


def test_a_new_plan_is_served_and_the_version_before_stays_warm(world: World):
    world.promote(2, weights=WEIGHTS_2)
    world.poll()
    assert world.http.post("/predict", json=QUESTION).json()["model_version"] == 2
    model = world.http.get("/readyz").json()["models"]["repurchase"]
    assert (model["version"], model["plan_revision"], model["warm_standby_versions"]) == (2, 2, [1])
    assert world.metric('boucle_traffic_weight{model="repurchase",version="2"}') == 100
    assert world.metric('boucle_traffic_weight{model="repurchase",version="1"}') == 0
    assert world.metric('boucle_plan_revision{model="repurchase"}') == 2


def test_a_rollback_does_not_need_the_bundle_store(world: World):
    world.promote(2, weights=WEIGHTS_2)
    world.poll()
    (world.root / "bundles").rename(world.root / "away")
    assert world.state is not None
    before = world.state.decisions(MODEL)[0].decision.bundle_digest
    assert before is not None
    promote(world.state, version=1, digest=before)
    world.poll()
    assert world.http.post("/predict", json=QUESTION).json()["model_version"] == 1


def test_a_damaged_bundle_leaves_the_old_version_answering_and_says_so(world: World):
    assert world.state is not None
    digest = put_bundle(world.bundles, world.root / "scratch", weights=WEIGHTS_2)
    flip_last_byte(world.bundles.fetch(digest) / MODEL_FILE)
    promote(world.state, version=2, digest=digest)
    world.poll()
    assert world.http.post("/predict", json=QUESTION).json()["model_version"] == 1
    ready = world.http.get("/readyz")
    assert ready.status_code == 200
    assert "Revision 2 of 'repurchase' is not served" in ready.json()["problems"][0]
    assert world.metric('boucle_bundle_load_failures_total{model="repurchase"}') == 1
    assert world.metric('boucle_plan_revision{model="repurchase"}') == 1
    assert world.metric('boucle_plan_wanted_revision{model="repurchase"}') == 2


def test_a_bundle_that_answers_otherwise_than_recorded_is_refused(world: World):
    assert world.state is not None
    source = write_bundle(world.root / "wrong", weights=WEIGHTS_2, expected_offset=1e-6)
    promote(world.state, version=2, digest=world.bundles.put(source, MODEL))
    world.poll()
    assert "within 1e-09" in world.http.get("/readyz").json()["problems"][0]
    assert world.http.post("/predict", json=QUESTION).json()["model_version"] == 1


def test_what_was_verified_is_what_answers_though_the_files_change_before_they_are_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    assert world.state is not None
    other = write_bundle(world.root / "other", weights=WEIGHTS_2)
    honest = world.bundles.put(write_bundle(world.root / "honest", weights=WEIGHTS_1, expected_offset=1e-13), MODEL)
    read = world.bundles.read

    def read_and_exchange(digest: Digest) -> Mapping[str, bytes]:
        files = read(digest)
        for file in other.iterdir():
            shutil.copy(file, world.root / "bundles" / digest / file.name)
        return files

    monkeypatch.setattr(world.bundles, "read", read_and_exchange)
    before = world.http.post("/predict", json=QUESTION).json()["proba"]
    promote(world.state, version=2, digest=honest)
    world.poll()
    answer = world.http.post("/predict", json=QUESTION).json()
    assert (answer["model_version"], answer["proba"]) == (2, before)


def test_a_bundle_whose_model_is_no_model_is_refused(world: World):
    assert world.state is not None
    source = write_bundle(world.root / "garbage", weights=WEIGHTS_2)
    (source / MODEL_FILE).write_bytes(b"garbage")
    promote(world.state, version=2, digest=world.bundles.put(source, MODEL))
    world.poll()
    assert "cannot be loaded" in world.http.get("/readyz").json()["problems"][0]


def test_features_are_taken_by_name_whatever_their_order_in_the_snapshot(world: World):
    assert world.state is not None
    source = write_bundle(world.root / "reversed", weights=WEIGHTS_1, features=FEATURES[::-1])
    promote(world.state, version=2, digest=world.bundles.put(source, MODEL))
    world.poll()
    # recency 5 days, 3 orders: 0.1 * 5 - 0.2 * 3 = -0.1.
    assert world.http.post("/predict", json=QUESTION).json()["proba"] == pytest.approx(sigmoid(-0.1), abs=1e-12)


def test_a_feature_that_the_snapshot_lacks_is_named(world: World):
    assert world.state is not None
    source = write_bundle(world.root / "more", weights=(1, 1, 1), features=(*FEATURES, "age"))
    promote(world.state, version=2, digest=world.bundles.put(source, MODEL))
    world.poll()
    document = assert_problem(world.http.post("/predict", json=QUESTION), 503, "features-unavailable")
    assert "lacks the features age" in str(document["detail"])


def test_a_state_store_that_is_away_leaves_the_last_plan_in_force(world: World, monkeypatch: pytest.MonkeyPatch):
    def away() -> None:
        raise StateStoreError("The state store cannot be used.")

    monkeypatch.setattr(world.state, "plans", away)
    world.poll()
    assert world.http.post("/predict", json=QUESTION).status_code == 200
    ready = world.http.get("/readyz")
    assert ready.status_code == 200
    (problem,) = ready.json()["problems"]
    assert problem.startswith("The state store cannot be used now.")
    assert problem.endswith("The last plans known stay in force.")
    assert world.metric("boucle_state_store_up") == 0


def test_a_second_model_has_its_own_path_and_plan(world: World):
    other = ModelName("flight_delay")
    publish_users(world.root / "online" / other)
    world.promote(1, weights=WEIGHTS_2, model=other)
    world.poll()
    answer = world.http.post("/models/flight_delay/predict", json=QUESTION).json()
    assert answer["model"] == "flight_delay"
    assert [model["model"] for model in world.http.get("/models").json()["models"]] == ["flight_delay", "repurchase"]


def test_the_traffic_plan_that_is_served_says_who_decided_and_why(world: World):
    plan = world.http.get("/models/repurchase/traffic").json()
    assert (plan["revision"], plan["created_by"], plan["reason"]) == (1, "test", "version 1 is better")


def test_models_say_what_a_request_needs(world: World):
    (model,) = world.http.get("/models").json()["models"]
    assert (model["entity"], [feature["name"] for feature in model["features"]]) == ("user_id", list(FEATURES))


def test_answers_are_counted_by_version_and_code(world: World):
    for user in ("4", "4", "5"):
        world.http.post("/predict", json={"user_id": user, "as_of": "1997-11-01"})
    labels = 'model="repurchase",route="production",version="1"'
    assert world.metric(f'boucle_requests_total{{code="200",{labels}}}') == 2
    assert world.metric(f'boucle_requests_total{{code="404",{labels}}}') == 1
    assert world.metric(f"boucle_request_duration_seconds_count{{{labels}}}") == 3
    assert world.metric('boucle_prediction_log_records_total{model="repurchase"}') == 2


def test_every_path_is_documented(world: World):
    document = world.http.get("/openapi.json").json()
    assert set(document["paths"]) >= {
        "/predict",
        "/models/{model}/predict",
        "/models",
        "/models/{model}/traffic",
        "/models/{model}/monitoring",
        "/models/{model}/monitoring.html",
        "/health",
        "/livez",
        "/readyz",
        "/version",
        "/metrics",
    }
    assert all(operation["summary"] for path in document["paths"].values() for operation in path.values())


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
def test_the_pages_for_people_load_nothing_from_elsewhere(world: World, path: str):
    page = world.http.get(path).text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert loaded
    assert [url for url in loaded if not url.startswith("/")] == []
    assert [world.http.get(url).status_code for url in loaded] == [200] * len(loaded)


def test_the_release_is_named(world: World):
    assert world.http.get("/version").json()["boucle"]


def test_a_started_replica_says_what_it_serves_and_good_bye_when_it_stops(world: World):
    assert world.state is not None
    with world.http:
        wait_for(lambda: world.state.replicas(max_age_seconds=3) == {"one": {MODEL: 1}})  # type: ignore[union-attr]
        world.promote(2, weights=WEIGHTS_2)
        wait_for(lambda: world.state.replicas(max_age_seconds=3) == {"one": {MODEL: 2}})  # type: ignore[union-attr]
    assert world.state.replicas(max_age_seconds=3) == {}


def test_a_replica_that_serves_nothing_yet_is_known_at_revision_zero(empty: World):
    assert empty.state is not None
    with empty.http:
        wait_for(lambda: empty.state.replicas(max_age_seconds=3) == {"one": {MODEL: 0}})  # type: ignore[union-attr]


def test_october_is_answered_from_octobers_row(world: World):
    body = world.http.post("/predict", json={"user_id": "4", "as_of": OCTOBER.isoformat()}).json()
    # 1 order, 10 days: 0.1 - 2 = -1.9.
    assert body["proba"] == pytest.approx(sigmoid(-1.9), abs=1e-12)
