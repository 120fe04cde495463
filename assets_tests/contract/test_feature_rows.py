"""Rows that bring their features: the answer that look-up gives, the contract's limits, a log that says so."""

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from assets_tests.bundles import FEATURES, MODEL, promote, sigmoid
from assets_tests.contract.test_http import NOON, QUESTION, WEIGHTS_1, World, assert_problem
from boucle.contracts.bundle import BundleContract, FeatureSpec, OutputSpec
from boucle.training.bundle import bundle_files
from boucle_serving.problems import InvalidRequestError
from boucle_serving.questions import FeatureRow, QuestionReader

ROW = {"orders": 3, "recency_days": 5.0}  # what November's snapshot says of user 4
PROBA = sigmoid(0.1 * 3 - 0.2 * 5)
INVOCATIONS, INFER, BATCH = "/invocations", f"/v2/models/{MODEL}/infer", f"/models/{MODEL}/predict/batch"


@pytest.fixture
def bare(tmp_path: Path) -> World:
    """A model in traffic, and no online features at all."""
    made = World(tmp_path)
    made.promote(1, weights=WEIGHTS_1)
    made.poll()
    return made


def tensor(name: str, datatype: str, data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": [len(data)], "data": data}


TENSORS = {"inputs": [tensor("orders", "INT64", [3]), tensor("recency_days", "FP64", [5.0])]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", ROW),
        (BATCH, {"rows": [ROW]}),
        (INVOCATIONS, {"dataframe_split": {"columns": list(FEATURES), "data": [[3, 5.0]]}}),
        (INVOCATIONS, {"dataframe_records": [ROW]}),
        (INVOCATIONS, {"instances": [ROW]}),
        (INVOCATIONS, {"inputs": {"orders": [3], "recency_days": [5.0]}}),
        (INFER, TENSORS),
    ],
)
def test_every_protocol_answers_a_row_that_brings_its_features(bare: World, path: str, body: dict[str, Any]):
    assert bare.http.post(path, json=body).status_code == 200
    (record,) = bare.logged()
    assert record.proba == pytest.approx(PROBA, abs=1e-12)
    assert record.features == (3.0, 5.0)
    assert (record.entity_key, record.features_as_of, record.as_of, record.at) == (None, None, NOON, NOON)
    assert (record.assigned_role, record.propensity) == ("production", 1.0)


def test_a_row_may_say_about_whom_and_of_when_it_is(bare: World):
    answer = bare.http.post("/predict", json=ROW | QUESTION).json()
    (record,) = bare.logged()
    assert (record.entity_key, record.as_of.isoformat()) == ("4", "1997-11-01T00:00:00+00:00")
    assert record.features_as_of is None
    assert answer | ROW | QUESTION == answer


@pytest.fixture
def forest(tmp_path: Path) -> World:
    """A model to which a value that is missing is a value like any other."""
    rows = np.arange(80.0).reshape(40, 2)
    contract = BundleContract(
        model=MODEL,
        entity="user_id",
        features=tuple(FeatureSpec(name=name, dtype="float64", nullable=True) for name in FEATURES),
        output=OutputSpec(description=""),
        max_feature_age_days=1,
    )
    estimator = HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=5).fit(rows, np.arange(40) % 2)
    made = World(tmp_path)
    (tmp_path / "files").mkdir()
    for name, content in bundle_files(estimator, contract, rows=rows, entities=[str(n) for n in range(40)]).items():
        (tmp_path / "files" / name).write_bytes(content)
    promote(made.state, version=1, digest=made.bundles.put(tmp_path / "files", MODEL))
    made.poll()
    return made


@pytest.mark.parametrize("sent", [b"null", b"NaN"])
def test_a_missing_value_comes_back_as_null_and_never_as_broken_json(forest: World, sent: bytes):
    row = b'{"orders": 3, "recency_days": %b}' % sent
    alone = forest.http.post("/predict", content=row)
    (in_batch,) = json.loads(forest.http.post(BATCH, content=b'{"rows": [%b]}' % row).content, parse_constant=str)[
        "rows"
    ]
    answer = json.loads(alone.content, parse_constant=str)
    assert (answer["recency_days"], in_batch["recency_days"]) == (None, None)
    assert answer["proba"] == in_batch["proba"]


def test_rows_of_both_kinds_are_answered_beside_each_other(bare: World):
    rows = bare.http.post(BATCH, json={"rows": [ROW, QUESTION]}).json()["rows"]
    assert rows[0]["proba"] == pytest.approx(PROBA, abs=1e-12)
    assert rows[1]["error"]["type"] == "urn:boucle:problem:features-unavailable"


def test_binary_tensors_of_numbers_are_read(bare: World):
    values = struct.pack("<d", 5.0)
    asked = {
        "inputs": [
            tensor("orders", "FP32", [3]),
            {"name": "recency_days", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": len(values)}},
        ]
    }
    head = json.dumps(asked).encode()
    answer = bare.http.post(INFER, content=head + values, headers={"inference-header-content-length": str(len(head))})
    assert answer.json()["outputs"][0]["data"] == pytest.approx([PROBA], abs=1e-12)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"orders": None}, "orders", "never missing"),
        ({"orders": "3"}, "orders", "must be a number or null, not '3'"),
        ({"orders": True}, "orders", "must be a number or null, not True"),
        ({"orders": [3]}, "orders", "must be a number or null"),
        ({"weight": 1}, "weight", "is not known; GET /models names the features"),
        ({"user_id": "bob"}, "user_id", "must match"),
        ({"as_of": "soon"}, "as_of", "must be an ISO 8601"),
    ],
)
def test_a_row_that_breaks_the_contract_is_told_which_field_and_why(
    bare: World, change: dict[str, object], field: str, says: str
):
    document = assert_problem(bare.http.post("/predict", json=ROW | change), 422, "invalid-request")
    assert [(error["field"], says in error["message"]) for error in document["errors"]] == [(field, True)]  # type: ignore[attr-defined]
    assert bare.logged() == []


def test_a_row_that_lacks_a_feature_is_told_which(bare: World):
    document = assert_problem(bare.http.post("/predict", json={"orders": 3}), 422, "invalid-request")
    assert document["errors"] == [{"field": "recency_days", "message": "is required"}]


def reader(**spec: Any) -> QuestionReader:
    """For one feature `x`."""
    feature = FeatureSpec(**({"name": "x", "dtype": "float64", "nullable": True} | spec))
    return QuestionReader(
        BundleContract(
            model=MODEL,
            entity="user_id",
            features=(feature,),
            output=OutputSpec(description=""),
            max_feature_age_days=1,
        )
    )


@pytest.mark.parametrize("sent", [None, float("nan")])
def test_a_missing_value_of_a_feature_that_may_be_missing_is_nan(sent: float | None):
    row = reader().read({"x": sent})
    assert isinstance(row, FeatureRow)
    assert math.isnan(row.values[0])
    with pytest.raises(InvalidRequestError, match="x: must be a number: it is never missing"):
        reader(nullable=False).read({"x": sent})


@pytest.mark.parametrize("sent", [float("inf"), float("-inf"), 10**400])
def test_a_value_beyond_all_numbers_is_refused(sent: float):
    with pytest.raises(InvalidRequestError, match="x: must be finite"):
        reader().read({"x": sent})


@pytest.mark.parametrize(
    ("spec", "inside", "outside", "says"),
    [
        ({"minimum": 0.0}, 0.0, -0.5, "must be at least 0, not -0.5"),
        ({"maximum": 7.0}, 7.0, 8, "must be at most 7, not 8.0"),
        ({"dtype": "int64"}, 3.0, 3.5, "must be a whole number, not 3.5"),
    ],
)
def test_a_value_is_within_the_range_of_the_contract(spec: dict[str, Any], inside: float, outside: float, says: str):
    row = reader(**spec).read({"x": inside})
    assert isinstance(row, FeatureRow)
    assert row.values == [inside]
    with pytest.raises(InvalidRequestError, match=says):
        reader(**spec).read({"x": outside})


AIRPORTS = ("EWR", "JFK", "LGA")


@pytest.mark.parametrize(("sent", "place"), [("EWR", 0.0), ("LGA", 2.0), (1, 1.0)])
def test_a_category_is_sent_by_its_name_or_its_place(sent: object, place: float):
    row = reader(categories=AIRPORTS).read({"x": sent})
    assert isinstance(row, FeatureRow)
    assert row.values == [place]


def test_an_unknown_category_is_missing_if_it_may_be_and_else_refused():
    row = reader(categories=AIRPORTS).read({"x": "ORD"})
    assert isinstance(row, FeatureRow)
    assert math.isnan(row.values[0])
    with pytest.raises(InvalidRequestError, match="x: must be one of EWR, JFK, LGA, not 'ORD'"):
        reader(categories=AIRPORTS, nullable=False).read({"x": "ORD"})


@pytest.mark.parametrize("sent", [3, -1, 0.5])
def test_a_place_without_a_name_is_refused(sent: float):
    with pytest.raises(InvalidRequestError, match="must be one of EWR, JFK, LGA, or its place from 0"):
        reader(categories=AIRPORTS).read({"x": sent})
