"""Release bundles that pass their warm-up and go wrong on what callers ask: real ONNX graphs, no mocks."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from assets_tests.bundles import MODEL, sigmoid, write_bundle
from boucle.contracts.bundle import (
    MODEL_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    WARMUP_FILE,
    RecordedRequest,
    WarmUp,
)
from boucle.contracts.ids import Digest, EntityKey
from boucle.ports import BundleStore

WEIGHTS = (0.3, -0.1)


def put_crashing_bundle(store: BundleStore, scratch: Path) -> Digest:
    """Answers customers with at most two orders, and fails for everybody else."""
    table = numpy_helper.from_array(np.array([0.1, 0.2, 0.3]), "table")
    nodes = [*_orders(), helper.make_node("Gather", ["table", "whole"], [ONNX_OUTPUT])]
    return _put(store, scratch / "crashing", nodes, [table, *_column()], expected=0.2)


def put_stalling_bundle(store: BundleStore, scratch: Path, *, turns: int) -> Digest:
    """Turns round `turns` times for each order beyond the first before it answers 0.5: about a microsecond a turn."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["value"], ["same"]),
        ],
        "turn",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.DOUBLE, [None]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("same", TensorProto.DOUBLE, [None]),
        ],
    )
    nodes = [
        *_orders(),
        helper.make_node("ReduceMax", ["whole"], ["most"], keepdims=0),
        helper.make_node("Sub", ["most", "one"], ["beyond"]),
        helper.make_node("Mul", ["beyond", "turns"], ["times"]),
        helper.make_node("Mul", ["orders", "zero"], ["nothing"]),
        helper.make_node("Loop", ["times", "yes", "nothing"], ["still"], body=body),
        helper.make_node("Sigmoid", ["still"], [ONNX_OUTPUT]),
    ]
    constants = [
        numpy_helper.from_array(np.array(1, dtype=np.int64), "one"),
        numpy_helper.from_array(np.array(turns, dtype=np.int64), "turns"),
        numpy_helper.from_array(np.array(0.0), "zero"),
        numpy_helper.from_array(np.array(True), "yes"),
        *_column(),
    ]
    return _put(store, scratch / f"stalling-{turns}", nodes, constants, expected=sigmoid(0.0))


def _orders() -> list[onnx.NodeProto]:
    """The first feature, as it is and as a whole number."""
    return [
        helper.make_node("Gather", [ONNX_INPUT, "first"], ["orders"], axis=1),
        helper.make_node("Cast", ["orders"], ["whole"], to=TensorProto.INT64),
    ]


def _column() -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.array(0, dtype=np.int64), "first")]


def _put(
    store: BundleStore,
    directory: Path,
    nodes: list[onnx.NodeProto],
    constants: list[onnx.TensorProto],
    *,
    expected: float,
) -> Digest:
    write_bundle(directory, weights=WEIGHTS)
    graph = helper.make_graph(
        nodes,
        "bad",
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.DOUBLE, [None, len(WEIGHTS)])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.DOUBLE, [None])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (directory / MODEL_FILE).write_bytes(model.SerializeToString())
    recorded = RecordedRequest(entity_key=EntityKey("4"), features=(1.0, 2.0), expected=expected)
    (directory / WARMUP_FILE).write_bytes(WarmUp(requests=(recorded,)).canonical())
    return store.put(directory, MODEL)
