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
class _GraphRewriter:
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
        tensor = next((t for t in self.proto.graph.initializer if t.name == name), None)
        return None if tensor is None else numpy_helper.to_array(tensor)

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
    rewriter = _GraphRewriter(proto=proto, ranks=ranks)
    for node in list(proto.graph.node):
        rule = _RULES.get(node.op_type) if node.domain == _ML else None
        if rule is None or not rule(rewriter, node, _read_attributes(node)):
            rewriter.nodes.append(node)
    nodes = [NodeProto.FromString(n.SerializeToString()) for n in rewriter.nodes]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto


def _read_attributes(node: NodeProto) -> dict[str, Any]:
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def _rewrite_scaler(rewriter: _GraphRewriter, node: NodeProto, attributes: dict[str, Any]) -> bool:
    out = node.output[0]
    offset = rewriter.constant(f"{out}/offset", np.array(attributes["offset"], np.float32))
    scale = rewriter.constant(f"{out}/scale", np.array(attributes["scale"], np.float32))
    shifted = rewriter.add("Sub", [node.input[0], offset], f"{out}/moved")
    rewriter.add("Mul", [shifted, scale], out)
    return True


def _rewrite_normalizer(
    rewriter: _GraphRewriter, node: NodeProto, attributes: dict[str, Any]
) -> bool:
    if attributes.get("norm", "MAX") != "L1" or rewriter.ranks.get(node.input[0], 2) != 2:
        return False
    out = node.output[0]
    if any(n.op_type == "Softmax" and node.input[0] in n.output for n in rewriter.nodes):
        rewriter.add("Identity", [node.input[0]], out)  # rows of a Softmax sum to 1 already
        return True
    axes = rewriter.constant(f"{out}/axes", np.array([1], np.int64))
    least = rewriter.constant(f"{out}/least", np.array(_LEAST))
    size = rewriter.add("Abs", [node.input[0]], f"{out}/abs")
    total = rewriter.add("ReduceSum", [size, axes], f"{out}/sum", keepdims=1)
    rewriter.add("Div", [node.input[0], rewriter.add("Max", [total, least], f"{out}/norm")], out)
    return True


def _rewrite_regressor(
    rewriter: _GraphRewriter, node: NodeProto, attributes: dict[str, Any]
) -> bool:
    if attributes.get("post_transform", "NONE") != "NONE":
        return False
    _add_gemm(
        rewriter,
        node.input[0],
        attributes,
        rows=int(attributes.get("targets", 1)),
        out=node.output[0],
    )
    return True


def _add_gemm(
    rewriter: _GraphRewriter, x: str, attributes: dict[str, Any], *, rows: int, out: str
) -> str:
    weights = np.array(attributes["coefficients"], np.float32).reshape(rows, -1)
    bias = np.array(attributes.get("intercepts", [0.0] * rows), np.float32)
    stored = [rewriter.constant(f"{out}/weight", weights), rewriter.constant(f"{out}/bias", bias)]
    return rewriter.add("Gemm", [x, *stored], out, transB=1)


def _rewrite_classifier(
    rewriter: _GraphRewriter, node: NodeProto, attributes: dict[str, Any]
) -> bool:
    """Write a linear classifier as Gemm, an activation for the scores, and ArgMax for the label."""
    label, scores = node.output
    numbers = list(attributes.get("classlabels_ints", []))
    classes = len(numbers or attributes.get("classlabels_strings", []))
    after = attributes.get("post_transform", "NONE")
    rows = len(attributes.get("intercepts", []))
    labeled = rewriter.is_read(label)
    if after not in _AFTER or rows != classes or (labeled and not numbers):
        return False
    operator = _AFTER[after]
    sums = _add_gemm(rewriter, node.input[0], attributes, rows=rows, out=f"{scores}/sums")
    if operator is None:
        rewriter.add("Identity", [sums], scores)
    else:
        rewriter.add(operator, [sums], scores, **({"axis": 1} if operator == "Softmax" else {}))
    if labeled:
        largest = rewriter.add("ArgMax", [sums], f"{label}/largest", axis=1, keepdims=0)
        class_labels = rewriter.constant(f"{label}/classes", np.array(numbers, np.int64))
        rewriter.add("Gather", [class_labels, largest], label)
    return True


def _rewrite_selection(
    rewriter: _GraphRewriter, node: NodeProto, attributes: dict[str, Any]
) -> bool:
    """Write a selection of constant columns, or of entries of a stored list, as Gather."""
    del attributes
    values, chosen = node.input
    out = node.output[0]
    columns, listed = rewriter.read_constant(chosen), rewriter.read_constant(values)
    if columns is not None and rewriter.ranks.get(values) == 2:
        flat = rewriter.constant(f"{out}/columns", columns.reshape(-1).astype(np.int64))
        rewriter.add("Gather", [values, flat], out, axis=1)
        return True
    if listed is not None and listed.ndim == 1:
        row = rewriter.constant(f"{out}/row", np.array([1, -1], np.int64))
        rewriter.add(
            "Reshape", [rewriter.add("Gather", [values, chosen], f"{out}/entries"), row], out
        )
        return True
    return False


_Rule = Callable[[_GraphRewriter, NodeProto, dict[str, Any]], bool]
_RULES: dict[str, _Rule] = {
    "ArrayFeatureExtractor": _rewrite_selection,
    "LinearClassifier": _rewrite_classifier,
    "LinearRegressor": _rewrite_regressor,
    "Normalizer": _rewrite_normalizer,
    "Scaler": _rewrite_scaler,
}
