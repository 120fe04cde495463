"""Release bundles that pass their warm-up and are wrong on what callers ask, for showing that they are stopped."""

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from boucle.contracts.bundle import (
    CONTRACT_FILE,
    MANIFEST_FILE,
    MODEL_FILE,
    ONNX_INPUT,
    ONNX_OUTPUT,
    WARMUP_FILE,
    BundleManifest,
    WarmUp,
)
from boucle.contracts.ids import Digest, ModelName
from boucle.errors import ConfigurationError
from boucle_adapters.home import Home

Rows = NDArray[np.float64]
_WAS = "was"
"""What the sound model answers, in a spoilt graph."""
SLOW_TURNS = 12_000
"""Rounds of a loop that does nothing, some ten milliseconds in all, for each call."""


class Fault(StrEnum):
    """What is wrong with a version."""

    SLOW = "slow"
    CRASHING = "crashing"
    SHIFTED = "shifted"
    WORSE = "worse"
    CONSTANT = "constant"


@dataclass(frozen=True)
class _Graph:
    """Nodes that turn the sound answer into the wrong one, and the constants that they need."""

    nodes: Sequence[onnx.NodeProto]
    constants: Sequence[onnx.TensorProto]


def spoilt_bundle(home: Home, model: ModelName, sound: Digest, fault: Fault, *, asked: Rows) -> Digest:
    """Store a bundle that is a sound one with a fault added to its graph.

    Args:
        home: Where bundles are.
        model: Of which.
        sound: The bundle to spoil.
        fault: What is to be wrong.
        asked: Feature rows that callers will ask about, in the contract's order, shape (n, features).

    Raises:
        ConfigurationError: It would not pass its warm-up.
    """
    directory = home.bundles.fetch(sound)
    warm_up = WarmUp.model_validate_json((directory / WARMUP_FILE).read_bytes())
    recorded = np.array([[np.nan if v is None else v for v in one.features] for one in warm_up.requests])
    graph = _FAULTS[fault](asked, _scores(directory / MODEL_FILE, asked))
    model_bytes = _spoilt(onnx.load(str(directory / MODEL_FILE)), graph)
    requests = tuple(
        one.model_copy(update={"expected": answer})
        for one, answer in zip(warm_up.requests, _answers(model_bytes, recorded), strict=True)
        if answer is not None
    )
    if not requests:
        raise ConfigurationError("Every recorded request fails with this fault: it would not pass its warm-up.")
    files = {
        MODEL_FILE: model_bytes,
        CONTRACT_FILE: (directory / CONTRACT_FILE).read_bytes(),
        WARMUP_FILE: warm_up.model_copy(update={"requests": requests}).canonical(),
    }
    digests = {name: Digest(hashlib.sha256(content).hexdigest()) for name, content in sorted(files.items())}
    files[MANIFEST_FILE] = BundleManifest(model=model, files=digests).canonical()
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            (Path(scratch) / name).write_bytes(content)
        return home.bundles.put(Path(scratch), model)


def _spoilt(sound: onnx.ModelProto, graph: _Graph) -> bytes:
    for node in sound.graph.node:
        for place, name in enumerate(node.output):
            if name == ONNX_OUTPUT:
                node.output[place] = _WAS
    sound.graph.node.extend(graph.nodes)
    sound.graph.initializer.extend(graph.constants)
    return bytes(sound.SerializeToString())


def _scores(model: Path, rows: Rows) -> Rows:
    """What a sound model answers."""
    return np.array(_answers(model.read_bytes(), rows), dtype=np.float64)


def _answers(model: bytes, rows: Rows) -> list[float | None]:
    """What a model answers for each row; None for those it fails on."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    found: list[float | None] = []
    for row in rows:
        try:
            found.append(float(session.run([ONNX_OUTPUT], {ONNX_INPUT: row[np.newaxis]})[0][0]))
        except Exception:  # noqa: BLE001 - onnxruntime has an exception for each kind of failure
            found.append(None)
    return found


def _number(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype=np.float64), name)


def _clipped(node: onnx.NodeProto, *constants: onnx.TensorProto) -> _Graph:
    """A node that makes `wrong`, kept within what a probability may be."""
    kept = helper.make_node("Clip", ["wrong", "least", "most"], [ONNX_OUTPUT])
    return _Graph([node, kept], [*constants, _number("least", 0.001), _number("most", 0.999)])


def _shifted(_asked: Rows, scores: Rows) -> _Graph:
    return _clipped(helper.make_node("Add", [_WAS, "shift"], ["wrong"]), _number("shift", 0.5 * scores.std()))


def _worse(_asked: Rows, scores: Rows) -> _Graph:
    """Mirrored at the mean: the same average answer and spread, for the wrong ones."""
    return _clipped(helper.make_node("Sub", ["twice", _WAS], ["wrong"]), _number("twice", 2 * scores.mean()))


def _constant(_asked: Rows, scores: Rows) -> _Graph:
    """The average for everybody."""
    nodes = [
        helper.make_node("Mul", [_WAS, "nothing"], ["none"]),
        helper.make_node("Add", ["none", "average"], [ONNX_OUTPUT]),
    ]
    return _Graph(nodes, [_number("nothing", 0.0), _number("average", scores.mean())])


def _crashing(asked: Rows, _scores: Rows) -> _Graph:
    """Reads beyond a table for the larger half of one feature; its recorded requests are of the other half."""
    place = int(np.nanstd(asked, axis=0).argmax())
    nodes = [
        helper.make_node("Gather", [ONNX_INPUT, "place"], ["value"], axis=1),
        helper.make_node("Greater", ["value", "known"], ["is_beyond"]),
        helper.make_node("Cast", ["is_beyond"], ["row"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["added"]),
        helper.make_node("Add", [_WAS, "added"], [ONNX_OUTPUT]),
    ]
    constants = [
        numpy_helper.from_array(np.array(place, dtype=np.int64), "place"),
        _number("known", float(np.nanmedian(asked[:, place]))),
        numpy_helper.from_array(np.array([0.0]), "table"),
    ]
    return _Graph(nodes, constants)


def _slow(_asked: Rows, _scores: Rows) -> _Graph:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["value"], ["same"])],
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
    constants = [
        numpy_helper.from_array(np.array(SLOW_TURNS, dtype=np.int64), "turns"),
        numpy_helper.from_array(np.array(True), "yes"),
    ]
    return _Graph([helper.make_node("Loop", ["turns", "yes", _WAS], [ONNX_OUTPUT], body=body)], constants)


_FAULTS: dict[Fault, Callable[[Rows, Rows], _Graph]] = {
    Fault.SLOW: _slow,
    Fault.CRASHING: _crashing,
    Fault.SHIFTED: _shifted,
    Fault.WORSE: _worse,
    Fault.CONSTANT: _constant,
}
