"""Described columns as nodes of an ONNX graph, in double precision, and few of them: each node costs a microsecond.

Columns with the same kinds of steps are computed side by side. Columns that look up the same keys share one search.
"""

# ruff: noqa: PLC0415 - heavy libraries are imported where they are used, so that a code server starts in seconds

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.contracts.bundle import ONNX_INPUT
from boucle.training.columns import Column, Fill, Single, Standardise, Step, Stretch

Places = NDArray[np.int64]
"""For each described column, where it is in the matrix that the graph computes."""


@dataclass(kw_only=True)
class Graph:
    """Nodes and constants of an ONNX graph while they are put together."""

    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def columns_graph(graph: Graph, columns: Sequence[Column], feature_count: int) -> tuple[str, Places]:
    """Add what computes the columns from the input; the name of the matrix [n, columns], and where each column is."""
    if not any(column.steps or column.table for column in columns):
        # The names are those of the first bundles, so that their digests stay.
        return _picked(graph, columns, feature_count, order="order", output="columns"), np.arange(len(columns))
    groups: dict[object, list[int]] = {}
    for number, column in enumerate(columns):
        groups.setdefault(_kind(column), []).append(number)
    parts = [
        _group(graph, [columns[number] for number in members], feature_count, f"part{part}")
        for part, members in enumerate(groups.values())
    ]
    order = np.array([number for members in groups.values() for number in members], dtype=np.int64)
    matrix = parts[0] if len(parts) == 1 else graph.node("Concat", parts, "columns", axis=1)
    return matrix, np.argsort(order).astype(np.int64)


def _kind(column: Column) -> object:
    """Columns of one kind are computed side by side."""
    if column.table is None:
        return tuple(type(step) for step in column.steps)
    return column.source, column.steps, column.table.keys


def _group(graph: Graph, columns: Sequence[Column], feature_count: int, prefix: str) -> str:
    if columns[0].table is not None:
        return _looked_up(graph, columns, prefix)
    values = _picked(graph, columns, feature_count, order=f"{prefix}_order", output=f"{prefix}_picked")
    for number, steps in enumerate(zip(*(column.steps for column in columns), strict=True)):
        values = _step(graph, values, steps, f"{prefix}_step{number}")
    return values


def _picked(graph: Graph, columns: Sequence[Column], feature_count: int, *, order: str, output: str) -> str:
    sources = np.array([column.source for column in columns], dtype=np.int64)
    if np.array_equal(sources, np.arange(feature_count)):
        return ONNX_INPUT
    return graph.node("Gather", [ONNX_INPUT, graph.constant(order, sources)], output, axis=1)


def _looked_up(graph: Graph, columns: Sequence[Column], prefix: str) -> str:
    """One search for the keys, and a row of values for each: the last for a missing value, the first for another."""
    from onnx import numpy_helper

    source = graph.constant(f"{prefix}_source", np.array(columns[0].source, dtype=np.int64))
    values = graph.node("Gather", [ONNX_INPUT, source], f"{prefix}_picked", axis=1)
    for number, step in enumerate(columns[0].steps):
        values = _step(graph, values, [step], f"{prefix}_step{number}")
    tables = [column.table for column in columns if column.table is not None]
    keys = np.array([*tables[0].keys, np.nan])
    rows = graph.node(
        "LabelEncoder",
        [values],
        f"{prefix}_rows",
        domain="ai.onnx.ml",
        keys_tensor=numpy_helper.from_array(keys, "keys"),
        values_tensor=numpy_helper.from_array(np.arange(1, len(keys) + 1, dtype=np.int64), "values"),
        default_tensor=numpy_helper.from_array(np.array([0], dtype=np.int64), "default"),
    )
    table = np.array([[table.unknown, *table.values, table.missing] for table in tables]).T.copy()
    return graph.node("Gather", [graph.constant(f"{prefix}_table", table), rows], f"{prefix}_values", axis=0)


def _step(graph: Graph, values: str, steps: Sequence[Step], prefix: str) -> str:
    """One step of columns side by side: the same kind for all of them, with a number for each."""
    match steps[0]:
        case Fill():
            missing = graph.node("IsNaN", [values], f"{prefix}_missing")
            return graph.node("Where", [missing, _numbers(graph, steps, "value", prefix), values], f"{prefix}_filled")
        case Standardise():
            centred = graph.node("Sub", [values, _numbers(graph, steps, "mean", prefix)], f"{prefix}_centred")
            return graph.node("Div", [centred, _numbers(graph, steps, "scale", prefix)], f"{prefix}_scaled")
        case Stretch():
            stretched = graph.node("Mul", [values, _numbers(graph, steps, "factor", prefix)], f"{prefix}_stretched")
            return graph.node("Add", [stretched, _numbers(graph, steps, "offset", prefix)], f"{prefix}_shifted")
        case Single():
            return _single(graph, values, prefix)


def _single(graph: Graph, values: str, prefix: str) -> str:
    from onnx import TensorProto

    rounded = graph.node("Cast", [values], f"{prefix}_single", to=TensorProto.FLOAT)
    return graph.node("Cast", [rounded], f"{prefix}_rounded", to=TensorProto.DOUBLE)


def _numbers(graph: Graph, steps: Sequence[Step], name: str, prefix: str) -> str:
    return graph.constant(f"{prefix}_{name}", np.array([getattr(step, name) for step in steps], dtype=np.float64))
