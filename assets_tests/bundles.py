"""A real, tiny release bundle for tests: logistic regression in ONNX, and the worlds around it."""

import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MODEL_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    WARMUP_FILE,
    BundleContract,
    FeatureSpec,
    KeySpec,
    OutputSpec,
    RecordedRequest,
    WarmUp,
)
from boucle.contracts.decision import DecisionKind, NewDecision
from boucle.contracts.ids import Digest, EntityKey, ModelName, ModelVersion
from boucle.contracts.service import ServiceObjectives
from boucle.contracts.traffic_plan import Arm, NewPlan, Role, Strategy, TrafficPlan
from boucle.ports import BundleStore, StateStore
from boucle_adapters.online_store import publish_snapshot

MODEL = ModelName("repurchase")
FEATURES = ("orders", "recency_days")
OCTOBER = datetime(1997, 10, 1, tzinfo=UTC)
NOVEMBER = datetime(1997, 11, 1, tzinfo=UTC)


def sigmoid(value: float) -> float:
    """The logistic function, as the bundle's model computes it."""
    return 1 / (1 + math.exp(-value))


USER_KEY = KeySpec(max_length=64, pattern="^[0-9]+$", description="The customer")


def write_bundle(
    directory: Path,
    *,
    weights: Sequence[float],
    features: Sequence[str] = FEATURES,
    model: ModelName = MODEL,
    entity: str = "user_id",
    key: KeySpec = USER_KEY,
    expected_offset: float = 0.0,
    minimum: float = 0.0,
) -> Path:
    """Files of a bundle whose answer is `sigmoid(weights . features)`; an offset makes its recorded answer wrong.

    Answers below `minimum` break its contract; the recorded request is about the features 1, 2, and so on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MODEL_FILE).write_bytes(_logistic(weights).SerializeToString())
    contract = BundleContract(
        model=model,
        entity=entity,
        key=key,
        features=tuple(FeatureSpec(name=name, dtype="float64", nullable=False) for name in features),
        output=OutputSpec(description="orders again within the horizon", minimum=minimum),
        max_feature_age_days=45,
    )
    row = tuple(float(position + 1) for position in range(len(features)))
    expected = sigmoid(sum(w * x for w, x in zip(weights, row, strict=True))) + expected_offset
    warm_up = WarmUp(requests=(RecordedRequest(entity_key=EntityKey("4"), features=row, expected=expected),))
    (directory / CONTRACT_FILE).write_bytes(contract.canonical())
    (directory / WARMUP_FILE).write_bytes(warm_up.canonical())
    return directory


def put_bundle(
    store: BundleStore, scratch: Path, *, weights: Sequence[float], model: ModelName = MODEL, minimum: float = 0.0
) -> Digest:
    """Write a bundle below `scratch` and store it."""
    name = "-".join(f"{weight:g}" for weight in weights)
    return store.put(write_bundle(scratch / f"{model}-{name}", weights=weights, model=model, minimum=minimum), model)


def publish_users(directory: Path, *, watermark: datetime = NOVEMBER) -> None:
    """Users 4 and 7 with rows of October and November; `directory` is `<online>/<model>`."""
    publish_snapshot(
        directory,
        entity_keys=["4", "7", "4"],
        as_of=[OCTOBER, NOVEMBER, NOVEMBER],
        features=np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 5.0]]),
        feature_names=FEATURES,
        watermark=watermark,
        source_digests=[],
    )


def promote(
    state: StateStore,
    *,
    version: int,
    digest: Digest,
    model: ModelName = MODEL,
    service: ServiceObjectives | None = None,
) -> TrafficPlan:
    """Record the promotion and put all traffic on the version; the one before stays as warm standby."""
    before = state.plan(model)
    new = NewDecision(
        kind=DecisionKind.PROMOTE,
        model=model,
        at=NOVEMBER + timedelta(hours=version),
        actor="test",
        reason=f"version {version} is better",
        from_version=before.production.version if before else None,
        to_version=ModelVersion(version),
        bundle_digest=digest,
    )
    arms: tuple[Arm, ...] = (
        Arm(version=ModelVersion(version), bundle_digest=digest, weight=100, role=Role.PRODUCTION),
    )
    if before is not None and before.production.version != version:
        arms += (before.production.model_copy(update={"weight": 0, "role": Role.STANDBY}),)
    return state.record_with_plan(
        new, expected_production=new.from_version, plan=NewPlan(strategy=Strategy.DIRECT, arms=arms, service=service)
    )[1]


def flip_last_byte(file: Path) -> None:
    """Change one byte of a file."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def replace_in_json(file: Path, **values: object) -> None:
    """Change some top-level fields of a JSON file."""
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def _logistic(weights: Sequence[float]) -> onnx.ModelProto:
    column = np.array(weights, dtype=np.float64)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", [ONNX_INPUT, "weights"], ["logit"]),
            helper.make_node("Sigmoid", ["logit"], [ONNX_OUTPUT]),
        ],
        "logistic",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.DOUBLE, [None, len(weights)])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.DOUBLE, [None])],
        [numpy_helper.from_array(column, "weights")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
