"""Three protocols, one answer: boucle's own batch, MLflow's scoring protocol, the Open Inference Protocol."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest

from assets_tests.bundles import MODEL, publish_users, put_bundle, sigmoid
from assets_tests.bundles import promote as promote_bundle
from assets_tests.contract.test_http import QUESTION, WEIGHTS_1, World, assert_problem
from boucle_serving.rows import MAX_BATCH_BYTES, MAX_ROWS

ENTITIES, MOMENTS = ["4", "7"], ["1997-11-01", "1997-11-01T01:00:00+01:00"]
ROWS = [{"user_id": entity, "as_of": moment} for entity, moment in zip(ENTITIES, MOMENTS, strict=True)]
# Rows of November: user 4 has (3, 5), user 7 has (2, 20); the weights are .1 and -.2.
PROBAS = [sigmoid(-0.7), sigmoid(-3.8)]
BATCH, INVOCATIONS, INFER = f"/models/{MODEL}/predict/batch", "/invocations", f"/v2/models/{MODEL}/infer"
STRANGER = {"user_id": "99", "as_of": "1997-11-01"}
MALFORMED = {"user_id": "4", "as_of": "soon"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Version 1 of the default model answers."""
    made = World(tmp_path)
    publish_users(made.root / "online" / MODEL)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def tensor(name: str, data: list[Any], *, datatype: str = "BYTES", **changes: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data} | changes


def tensors(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"inputs": [tensor(name, [row[name] for row in rows]) for name in ("user_id", "as_of")]}


def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"dataframe_split": {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}}


def output(answer: Any, name: str) -> list[Any]:
    return next(found["data"] for found in answer.json()["outputs"] if found["name"] == name)


def by_batch(world: World, rows: list[dict[str, Any]]) -> list[float]:
    return [row["proba"] for row in world.http.post(BATCH, json={"rows": rows}).json()["rows"]]


def by_mlflow(world: World, rows: list[dict[str, Any]]) -> list[float]:
    found: list[float] = world.http.post(INVOCATIONS, json=split(rows)).json()["predictions"]
    return found


def by_inference(world: World, rows: list[dict[str, Any]]) -> list[float]:
    return output(world.http.post(INFER, json=tensors(rows)), "proba")


def test_all_protocols_answer_alike(world: World):
    one_by_one = [world.http.post("/predict", json=row).json()["proba"] for row in ROWS]
    assert one_by_one == pytest.approx(PROBAS, abs=1e-12)
    assert by_batch(world, ROWS) == by_mlflow(world, ROWS) == by_inference(world, ROWS) == one_by_one


@pytest.mark.parametrize(
    "body",
    [
        split(ROWS),
        {"dataframe_split": {"index": [0, 1], **split(ROWS)["dataframe_split"]}, "params": None},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"inputs": ROWS},
        {"inputs": {"user_id": ENTITIES, "as_of": MOMENTS}},
        {"instances": {"as_of": MOMENTS, "user_id": ENTITIES}},
    ],
    ids=["split", "split with an index", "records", "instances", "inputs", "inputs by column", "instances by column"],
)
def test_every_form_of_mlflow_is_read(world: World, body: dict[str, Any]):
    answer = world.http.post(INVOCATIONS, json=body)
    assert answer.json()["predictions"] == pytest.approx(PROBAS, abs=1e-12)
    assert answer.json()["prediction_ids"] == [record.prediction_id for record in world.logged()]


@pytest.mark.parametrize("path", [BATCH, INVOCATIONS, INFER])
def test_each_answer_is_in_the_log_before_it_leaves_and_names_who_gave_it(world: World, path: str):
    body = {BATCH: {"rows": ROWS}, INVOCATIONS: split(ROWS), INFER: tensors(ROWS)}[path]
    answer = world.http.post(path, json=body, headers={"x-request-id": "mine"})
    assert (answer.headers["x-boucle-model-version"], answer.headers["x-boucle-route"]) == ("1", "production")
    logged = world.logged()
    assert [(record.entity_key, record.request_id, record.model_version) for record in logged] == [
        ("4", "mine", 1),
        ("7", "mine", 1),
    ]
    assert [record.proba for record in logged] == pytest.approx(PROBAS, abs=1e-12)
    labels = 'model="repurchase",route="production",version="1"'
    assert world.metric(f'boucle_requests_total{{code="200",{labels}}}') == 2
    assert world.metric('boucle_prediction_log_records_total{model="repurchase"}') == 2


def test_in_a_batch_a_row_that_cannot_be_answered_has_its_problem_and_the_others_their_answer(world: World):
    rows = world.http.post(BATCH, json={"rows": [STRANGER, QUESTION, MALFORMED, "no row"]}).json()["rows"]
    assert [row["error"]["type"].rpartition(":")[2] if "error" in row else row["proba"] for row in rows] == [
        "unknown-entity",
        pytest.approx(PROBAS[0], abs=1e-12),
        "invalid-request",
        "invalid-request",
    ]
    assert rows[2]["error"]["errors"][0]["field"] == "as_of"
    assert rows[1] | QUESTION == rows[1]
    assert len(world.logged()) == 1
    asked, nobody = 'route="production",version="1"', 'route="none",version="none"'
    assert world.metric(f'boucle_requests_total{{code="404",model="repurchase",{asked}}}') == 1
    assert world.metric(f'boucle_requests_total{{code="422",model="repurchase",{nobody}}}') == 2


@pytest.mark.parametrize(
    ("path", "body"),
    [(INVOCATIONS, split([QUESTION, STRANGER, MALFORMED])), (INFER, tensors([QUESTION, STRANGER, MALFORMED]))],
)
def test_where_a_protocol_knows_no_errors_by_row_none_is_answered_and_each_that_is_wrong_is_named(
    world: World, path: str, body: dict[str, Any]
):
    document = assert_problem(world.http.post(path, json=body), 404, "unknown-entity")
    assert "row 1: " in str(document["detail"])
    assert "row 2: as_of: must be an ISO 8601" in str(document["detail"])
    assert document["errors"][0]["field"] == "row 2.as_of"
    assert document.get("error") == (document["detail"] if path == INFER else None)
    assert world.logged() == []


@pytest.mark.parametrize("path", [BATCH, INVOCATIONS, INFER])
def test_what_cannot_be_logged_is_not_answered(world: World, path: str, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(world.log, "append", full)
    body = {BATCH: {"rows": ROWS}, INVOCATIONS: split(ROWS), INFER: tensors(ROWS)}[path]
    document = assert_problem(world.http.post(path, json=body), 503, "log-unavailable")
    assert "withheld" in str(document["detail"])
    assert world.metric('boucle_prediction_log_dropped_total{model="repurchase"}') == 2


@pytest.mark.parametrize("path", [BATCH, INVOCATIONS, INFER])
def test_an_answer_that_is_no_probability_is_withheld_and_counts_against_its_version(tmp_path: Path, path: str):
    world = World(tmp_path)
    publish_users(world.root / "online" / MODEL)
    digest = put_bundle(world.bundles, world.root / "scratch", weights=(-18.0, 10.0), minimum=0.5)
    promote_bundle(world.open_state(), version=2, digest=digest)
    world.poll()
    body = {BATCH: {"rows": [QUESTION]}, INVOCATIONS: split([QUESTION]), INFER: tensors([QUESTION])}[path]
    answer = world.http.post(path, json=body)
    problem = answer.json()["rows"][0]["error"] if path == BATCH else answer.json()
    assert (answer.status_code, problem["type"]) == (200 if path == BATCH else 500, "urn:boucle:problem:invalid-answer")
    labels = 'model="repurchase",route="production",version="2"'
    assert world.metric(f'boucle_requests_total{{code="500",{labels}}}') == 1
    assert world.logged() == []


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (BATCH, {"rows": []}, "body"),
        (BATCH, {"rows": {}}, "rows"),
        (BATCH, [QUESTION], "rows"),
        (BATCH, {"rows": ROWS, "model": "x"}, "rows"),
        (INVOCATIONS, [], "body"),
        (INVOCATIONS, {}, "body"),
        (INVOCATIONS, {"rows": ROWS}, "body"),
        (INVOCATIONS, {"instances": ROWS, "inputs": ROWS}, "body"),
        (INVOCATIONS, {"instances": ROWS, "params": {"temperature": 1}}, "body"),
        (INVOCATIONS, {"dataframe_records": {}}, "dataframe_records"),
        (INVOCATIONS, {"dataframe_split": {"columns": ["user_id"]}}, "dataframe_split"),
        (INVOCATIONS, {"dataframe_split": {"columns": ["a", "a"], "data": []}}, "dataframe_split"),
        (INVOCATIONS, {"dataframe_split": {"columns": ["a"], "data": [[1], [1, 2]]}}, "dataframe_split.data[1]"),
        (INVOCATIONS, {"inputs": {"user_id": ENTITIES, "as_of": "1997-11-01"}}, "inputs"),
        (INVOCATIONS, {"inputs": {"user_id": ENTITIES, "as_of": MOMENTS[:1]}}, "inputs"),
        (INVOCATIONS, {"inputs": {}}, "inputs"),
        (INVOCATIONS, {"dataframe_split": {"columns": ["user_id", "as_of"], "data": []}}, "body"),
        (INFER, [], "body"),
        (INFER, {"inputs": []}, "inputs"),
        (INFER, {"inputs": [1]}, "inputs"),
        (INFER, {"inputs": [tensor("user_id", ["4"]), tensor("user_id", ["4"])]}, "user_id"),
        (INFER, {"inputs": [tensor("user_id", ["4"]), tensor("as_of", MOMENTS)]}, "inputs"),
        (INFER, {"inputs": [tensor("user_id", [True], datatype="BOOL")]}, "user_id.datatype"),
        (INFER, {"inputs": [tensor("user_id", ["4"], shape=[2])]}, "user_id.data"),
        (INFER, {"inputs": [tensor("user_id", ["4"], shape=[1, 2])]}, "user_id.shape"),
        (INFER, {"inputs": [tensor("user_id", ["4"], shape="1")]}, "user_id.shape"),
        (INFER, {"inputs": [tensor("user_id", ["4"], parameters={"binary_data_size": 5})]}, "user_id.parameters"),
        (INFER, {**tensors(ROWS), "outputs": [{"name": "score"}]}, "outputs"),
    ],
)
def test_a_body_that_fits_no_form_is_named_by_its_field(world: World, path: str, body: Any, field: str):
    document = assert_problem(world.http.post(path, json=body), 422, "invalid-request")
    assert field in {error["field"] for error in document["errors"]}
    assert world.logged() == []


@pytest.mark.parametrize("path", [BATCH, INVOCATIONS, INFER])
def test_more_than_is_read_is_refused_whole(world: World, path: str):
    rows = [QUESTION] * (MAX_ROWS + 1)
    body = {BATCH: {"rows": rows}, INVOCATIONS: split(rows), INFER: tensors(rows)}[path]
    assert "at most 1000" in str(assert_problem(world.http.post(path, json=body), 413, "too-large")["detail"])
    document = assert_problem(world.http.post(path, content=b" " * (MAX_BATCH_BYTES + 1)), 413, "too-large")
    assert f"more than {MAX_BATCH_BYTES} bytes" in str(document["detail"])
    assert world.logged() == []


def test_a_whole_batch_of_the_largest_size_is_answered(world: World):
    assert by_batch(world, [QUESTION] * MAX_ROWS) == [pytest.approx(PROBAS[0], abs=1e-12)] * MAX_ROWS
    assert len({record.prediction_id for record in world.logged()}) == MAX_ROWS


def binary(values: list[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(struct.pack("<I", len(value)) + value for value in encoded)


def send_binary(world: World, parts: list[bytes], inputs: list[dict[str, Any]], *, length: str = "") -> Any:
    head = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": length or str(len(head))}
    return world.http.post(INFER, content=head + b"".join(parts), headers=headers)


def binary_tensor(name: str, part: bytes, *, rows: int = 2, datatype: str = "BYTES") -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [rows], "parameters": {"binary_data_size": len(part)}}


def test_tensors_as_bytes_after_the_json_are_read(world: World):
    parts = [binary(ENTITIES), binary(MOMENTS)]
    answer = send_binary(world, parts, [binary_tensor("user_id", parts[0]), binary_tensor("as_of", parts[1])])
    assert output(answer, "proba") == pytest.approx(PROBAS, abs=1e-12)
    numbers = struct.pack("<2q", 4, 7)
    inputs = [binary_tensor("user_id", numbers, datatype="INT64"), tensor("as_of", MOMENTS)]
    assert output(send_binary(world, [numbers], inputs), "proba") == pytest.approx(PROBAS, abs=1e-12)


@pytest.mark.parametrize(
    ("part", "length", "field"),
    [
        (b"\x09\x00\x00\x004", "", "user_id"),
        (b"\x01\x00", "", "user_id"),
        (b"\x01\x00\x00\x00\xff", "", "user_id"),
        (binary(["4"]), "-1", "inference-header-content-length"),
        (binary(["4"]), "100000", "inference-header-content-length"),
    ],
    ids=["ends within a value", "ends within a length", "no UTF-8", "no length", "longer than the body"],
)
def test_bytes_that_are_no_tensor_are_named(world: World, part: bytes, length: str, field: str):
    inputs = [binary_tensor("user_id", part, rows=1), tensor("as_of", MOMENTS[:1])]
    document = assert_problem(send_binary(world, [part], inputs, length=length), 422, "invalid-request")
    assert document["errors"][0]["field"] == field


def test_bytes_that_belong_to_no_tensor_are_refused(world: World):
    answer = send_binary(world, [b"left over"], tensors(ROWS)["inputs"])
    assert "has 9 bytes after its last tensor" in str(assert_problem(answer, 422, "invalid-request")["detail"])


def test_outputs_are_those_that_are_asked_for(world: World):
    asked = {**tensors(ROWS), "id": "q-1", "outputs": [{"name": "model_version"}, {"name": "proba"}]}
    body = world.http.post(INFER, json=asked).json()
    assert (body["model_name"], body["model_version"], body["id"]) == (MODEL, "1", "q-1")
    assert [(found["name"], found["datatype"], found["shape"]) for found in body["outputs"]] == [
        ("model_version", "INT64", [2]),
        ("proba", "FP64", [2]),
    ]


def test_server_and_model_say_what_they_are(world: World):
    assert world.http.get("/v2").json()["name"] == "boucle"
    assert world.http.get("/v2/health/live").json() == {"live": True}
    assert world.http.get("/v2/health/ready").json() == {"ready": True}
    described = world.http.get(f"/v2/models/{MODEL}").json()
    assert (described["name"], described["versions"]) == (MODEL, ["1"])
    assert [found["name"] for found in described["inputs"]] == ["user_id", "as_of"]
    assert {found["name"]: found["datatype"] for found in described["outputs"]}["proba"] == "FP64"
    for path in ("", "/versions/1"):
        assert world.http.get(f"/v2/models/{MODEL}{path}/ready").json() == {"name": MODEL, "ready": True}
    assert math.isclose(
        output(world.http.post(f"/v2/models/{MODEL}/versions/1/infer", json=tensors(ROWS)), "proba")[0], PROBAS[0]
    )


@pytest.mark.parametrize("path", ["churn", f"{MODEL}/versions/2", f"{MODEL}/versions/x"])
def test_a_model_or_version_that_is_not_served_is_unknown(world: World, path: str):
    for answer in (
        world.http.get(f"/v2/models/{path}"),
        world.http.get(f"/v2/models/{path}/ready"),
        world.http.post(f"/v2/models/{path}/infer", json=tensors(ROWS)),
    ):
        document = assert_problem(answer, 404, "unknown-model")
        assert document["error"] == document["detail"]


def test_without_a_model_nothing_is_ready_and_nothing_answers(tmp_path: Path):
    world = World(tmp_path)
    assert world.http.get("/v2/health/ready").status_code == 503
    for path, body in ((BATCH, {"rows": ROWS}), (INVOCATIONS, split(ROWS)), (INFER, tensors(ROWS))):
        assert_problem(world.http.post(path, json=body), 503, "no-production-model")
