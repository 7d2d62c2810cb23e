"""Rewrite of ai.onnx.ml operators for linear models as standard ONNX operators.

Passes and runtimes support the standard operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

_ML = "ai.onnx.ml"
# Operator for each post-transform of a linear classifier; None = no operator.
_AFTER: dict[str, str | None] = {"NONE": None, "SOFTMAX": "Softmax", "LOGISTIC": "Sigmoid"}
_LEAST = np.float32(1e-30)


@dataclass(kw_only=True)
class _Rewriting:
    """A graph that is rewritten node by node."""

    proto: ModelProto
    ranks: dict[str, int]
    nodes: list[NodeProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add an initializer and return its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        """Add a node with one output and return the output's name."""
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output

    def read_constant(self, name: str) -> NDArray[Any] | None:
        """Return the array of an initializer; ``None`` for other values."""
        found = next((t for t in self.proto.graph.initializer if t.name == name), None)
        return None if found is None else numpy_helper.to_array(found)

    def is_read(self, name: str) -> bool:
        """Return whether a value is read by a node or is an output of the graph."""
        graph = self.proto.graph
        return any(name in n.input for n in graph.node) or any(o.name == name for o in graph.output)


def replace_ml_operators(proto: ModelProto) -> ModelProto:
    """Replace Scaler, Normalizer, linear models and column selections by standard operators.

    Operators without a standard form here, such as trees and kernel machines, stay.

    Source: operators of ai.onnx.ml, versions 1 to 3.
    """
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    ranks = {
        v.name: len(v.type.tensor_type.shape.dim)
        for v in values
        if v.type.tensor_type.HasField("shape")
    }
    work = _Rewriting(proto=proto, ranks=ranks)
    for node in list(proto.graph.node):
        rule = _RULES.get(node.op_type) if node.domain == _ML else None
        if rule is None or not rule(work, node, _read_attributes(node)):
            work.nodes.append(node)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in work.nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _read_attributes(node: NodeProto) -> dict[str, Any]:
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in found.items()}


def _rewrite_scaler(work: _Rewriting, node: NodeProto, given: dict[str, Any]) -> bool:
    out = node.output[0]
    offset = work.constant(f"{out}/offset", np.array(given["offset"], np.float32))
    scale = work.constant(f"{out}/scale", np.array(given["scale"], np.float32))
    moved = work.add("Sub", [node.input[0], offset], f"{out}/moved")
    work.add("Mul", [moved, scale], out)
    return True


def _rewrite_normalizer(work: _Rewriting, node: NodeProto, given: dict[str, Any]) -> bool:
    if given.get("norm", "MAX") != "L1" or work.ranks.get(node.input[0], 2) != 2:
        return False
    out = node.output[0]
    if any(n.op_type == "Softmax" and node.input[0] in n.output for n in work.nodes):
        work.add("Identity", [node.input[0]], out)  # rows of a Softmax sum to 1 already
        return True
    axes = work.constant(f"{out}/axes", np.array([1], np.int64))
    least = work.constant(f"{out}/least", np.array(_LEAST))
    size = work.add("Abs", [node.input[0]], f"{out}/abs")
    total = work.add("ReduceSum", [size, axes], f"{out}/sum", keepdims=1)
    work.add("Div", [node.input[0], work.add("Max", [total, least], f"{out}/norm")], out)
    return True


def _rewrite_regressor(work: _Rewriting, node: NodeProto, given: dict[str, Any]) -> bool:
    if given.get("post_transform", "NONE") != "NONE":
        return False
    _add_gemm(work, node.input[0], given, rows=int(given.get("targets", 1)), out=node.output[0])
    return True


def _add_gemm(work: _Rewriting, x: str, given: dict[str, Any], *, rows: int, out: str) -> str:
    weights = np.array(given["coefficients"], np.float32).reshape(rows, -1)
    bias = np.array(given.get("intercepts", [0.0] * rows), np.float32)
    stored = [work.constant(f"{out}/weight", weights), work.constant(f"{out}/bias", bias)]
    return work.add("Gemm", [x, *stored], out, transB=1)


def _rewrite_classifier(work: _Rewriting, node: NodeProto, given: dict[str, Any]) -> bool:
    """Write a linear classifier as Gemm, an activation for the scores, and ArgMax for the label."""
    label, scores = node.output
    numbers = list(given.get("classlabels_ints", []))
    classes = len(numbers or given.get("classlabels_strings", []))
    after = given.get("post_transform", "NONE")
    rows = len(given.get("intercepts", []))
    labeled = work.is_read(label)
    if after not in _AFTER or rows != classes or (labeled and not numbers):
        return False
    operator = _AFTER[after]
    sums = _add_gemm(work, node.input[0], given, rows=rows, out=f"{scores}/sums")
    if operator is None:
        work.add("Identity", [sums], scores)
    else:
        work.add(operator, [sums], scores, **({"axis": 1} if operator == "Softmax" else {}))
    if labeled:
        largest = work.add("ArgMax", [sums], f"{label}/largest", axis=1, keepdims=0)
        known = work.constant(f"{label}/classes", np.array(numbers, np.int64))
        work.add("Gather", [known, largest], label)
    return True


def _rewrite_selection(work: _Rewriting, node: NodeProto, given: dict[str, Any]) -> bool:
    """Write a selection of constant columns, or of entries of a stored list, as Gather."""
    del given
    values, chosen = node.input
    out = node.output[0]
    columns, listed = work.read_constant(chosen), work.read_constant(values)
    if columns is not None and work.ranks.get(values) == 2:
        flat = work.constant(f"{out}/columns", columns.reshape(-1).astype(np.int64))
        work.add("Gather", [values, flat], out, axis=1)
        return True
    if listed is not None and listed.ndim == 1:
        row = work.constant(f"{out}/row", np.array([1, -1], np.int64))
        work.add("Reshape", [work.add("Gather", [values, chosen], f"{out}/entries"), row], out)
        return True
    return False


_Rule = Callable[[_Rewriting, NodeProto, dict[str, Any]], bool]
_RULES: dict[str, _Rule] = {
    "ArrayFeatureExtractor": _rewrite_selection,
    "LinearClassifier": _rewrite_classifier,
    "LinearRegressor": _rewrite_regressor,
    "Normalizer": _rewrite_normalizer,
    "Scaler": _rewrite_scaler,
}
