"""A fitted estimator as ONNX, in double precision.

The stock converter narrows thresholds to float32, whatever the input type, and some in every thousand ordinary rows
then take another branch. `TreeEnsemble` of `ai.onnx.ml` opset 5 holds doubles.
"""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from boucle.contracts.bundle import ONNX_INPUT, ONNX_OUTPUT
from boucle.training.columns_graph import Graph, Places, columns_graph
from boucle.training.trees import Averaged, Boosted, Description, Tree, Weighted, describe

ONNX_OPSET = 18
ONNX_ML_OPSET = 5
ONNX_IR_VERSION = 10
_BRANCH_IF_AT_MOST = 0


def export_onnx(estimator: object, *, feature_count: int) -> bytes:
    """The bytes of an ONNX model: `features` float64 [n, feature_count] to `proba` float64 [n]. Same model, same bytes.

    Raises:
        ExportError: The estimator is of a kind that cannot be exported exactly.
    """
    from onnx import TensorProto, checker, helper

    name, graph = _graph(describe(estimator, feature_count))
    body = helper.make_graph(
        graph.nodes,
        name,
        [helper.make_tensor_value_info(ONNX_INPUT, TensorProto.DOUBLE, ["rows", feature_count])],
        [helper.make_tensor_value_info(ONNX_OUTPUT, TensorProto.DOUBLE, ["rows"])],
        graph.initializers,
    )
    model = helper.make_model(
        body,
        producer_name="boucle",
        ir_version=ONNX_IR_VERSION,
        opset_imports=[helper.make_opsetid("", ONNX_OPSET), helper.make_opsetid("ai.onnx.ml", ONNX_ML_OPSET)],
    )
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _graph(description: Description) -> tuple[str, Graph]:
    """The name and the nodes of what the description says."""
    match description.model:
        case Boosted() as boosted:
            return "boosted_trees", _boosted(description, boosted)
        case Averaged() as averaged:
            return "averaged_trees", _averaged(description, averaged)
        case Weighted() as weighted:
            return "weighted_columns", _weighted(description, weighted)


def _boosted(description: Description, model: Boosted) -> Graph:
    graph = Graph()
    baseline = graph.constant("baseline", np.array([model.baseline]))
    second_axis = graph.constant("second_axis", np.array([1], dtype=np.int64))
    columns, places = columns_graph(graph, description.columns, description.feature_count)
    sums = graph.node("TreeEnsemble", [columns], "sums", domain="ai.onnx.ml", **_ensemble(model.trees, places))
    logits = graph.node("Add", [sums, baseline], "logits")
    probabilities = graph.node("Sigmoid", [logits], "probabilities")
    graph.node("Squeeze", [probabilities, second_axis], ONNX_OUTPUT)
    return graph


def _averaged(description: Description, model: Averaged) -> Graph:
    graph = Graph()
    tree_count = graph.constant("tree_count", np.array([float(len(model.trees))]))
    second_axis = graph.constant("second_axis", np.array([1], dtype=np.int64))
    columns, places = columns_graph(graph, description.columns, description.feature_count)
    sums = graph.node("TreeEnsemble", [columns], "sums", domain="ai.onnx.ml", **_ensemble(model.trees, places))
    probabilities = graph.node("Div", [sums, tree_count], "probabilities")
    graph.node("Squeeze", [probabilities, second_axis], ONNX_OUTPUT)
    return graph


def _weighted(description: Description, model: Weighted) -> Graph:
    graph = Graph()
    columns, places = columns_graph(graph, description.columns, description.feature_count)
    weights = np.empty((len(places), 1))
    weights[places, 0] = model.weights
    intercept = graph.constant("intercept", np.array([model.intercept]))
    second_axis = graph.constant("second_axis", np.array([1], dtype=np.int64))
    sums = graph.node("MatMul", [columns, graph.constant("weights", weights)], "sums")
    logits = graph.node("Add", [sums, intercept], "logits")
    probabilities = graph.node("Sigmoid", [logits], "probabilities")
    graph.node("Squeeze", [probabilities, second_axis], ONNX_OUTPUT)
    return graph


@dataclass
class _Arrays:
    """The attributes of `TreeEnsemble` while they are filled; inner nodes and leaves are numbered apart."""

    places: Places
    roots: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    splits: list[float] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    true_ids: list[int] = field(default_factory=list)
    false_ids: list[int] = field(default_factory=list)
    true_leafs: list[int] = field(default_factory=list)
    false_leafs: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, tree: Tree) -> None:
        """Append one tree. A tree that is a single leaf becomes a node with that leaf on both sides."""
        first_node, first_leaf = len(self.features), len(self.weights)
        self.roots.append(first_node)
        self.weights += [float(value) for value in tree.value[tree.is_leaf]]
        if tree.is_leaf[0]:
            self._add_node(0, 0.0, missing=True, left=(first_leaf, True), right=(first_leaf, True))
            return
        place = np.where(
            tree.is_leaf, first_leaf + np.cumsum(tree.is_leaf) - 1, first_node + np.cumsum(~tree.is_leaf) - 1
        )
        for node in np.flatnonzero(~tree.is_leaf):
            left, right = tree.left[node], tree.right[node]
            self._add_node(
                int(self.places[tree.feature[node]]),
                float(tree.threshold[node]),
                missing=bool(tree.missing_left[node]),
                left=(int(place[left]), bool(tree.is_leaf[left])),
                right=(int(place[right]), bool(tree.is_leaf[right])),
            )

    def _add_node(
        self, feature: int, split: float, *, missing: bool, left: tuple[int, bool], right: tuple[int, bool]
    ) -> None:
        self.features.append(feature)
        self.splits.append(split)
        self.missing_true.append(int(missing))
        self.true_ids.append(left[0])
        self.true_leafs.append(int(left[1]))
        self.false_ids.append(right[0])
        self.false_leafs.append(int(right[1]))


def _ensemble(trees: tuple[Tree, ...], places: Places) -> dict[str, Any]:
    from onnx import numpy_helper

    arrays = _Arrays(places)
    for tree in trees:
        arrays.add(tree)
    modes = np.full(len(arrays.features), _BRANCH_IF_AT_MOST, dtype=np.uint8)
    return {
        "n_targets": 1,
        "tree_roots": arrays.roots,
        "nodes_featureids": arrays.features,
        "nodes_modes": numpy_helper.from_array(modes, "nodes_modes"),
        "nodes_splits": numpy_helper.from_array(np.array(arrays.splits, dtype=np.float64), "nodes_splits"),
        "nodes_missing_value_tracks_true": arrays.missing_true,
        "nodes_truenodeids": arrays.true_ids,
        "nodes_trueleafs": arrays.true_leafs,
        "nodes_falsenodeids": arrays.false_ids,
        "nodes_falseleafs": arrays.false_leafs,
        "leaf_targetids": [0] * len(arrays.weights),
        "leaf_weights": numpy_helper.from_array(np.array(arrays.weights, dtype=np.float64), "leaf_weights"),
    }
