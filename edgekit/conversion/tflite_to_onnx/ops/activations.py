"""Conversion rules of activation functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def make_unary_rule(op_type: str, attributes: Mapping[str, Any] | None = None) -> Rule:
    """Make the rule of a unary operator that becomes one ONNX node.

    Args:
        op_type: ONNX operator type.
        attributes: of the node.
    """
    return partial(_convert_unary, op_type=op_type, attributes=attributes)


def _convert_unary(
    builder: OnnxGraphBuilder, op: Op, *, op_type: str, attributes: Mapping[str, Any] | None
) -> None:
    order = builder.order(op, 0)
    name = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, builder.node(op_type, [name], attributes), order)


def make_clip_rule(low: float | None, high: float | None) -> Rule:
    """Make the rule of an activation that clips values to limits.

    Args:
        low: lower limit; ``None`` = none.
        high: upper limit; ``None`` = none.
    """
    return partial(_convert_clip, low=low, high=high)


def _convert_clip(
    builder: OnnxGraphBuilder, op: Op, *, low: float | None, high: float | None
) -> None:
    order = builder.order(op, 0)
    name = builder.read(builder.tensor(op, 0), order)
    builder.bind(op, builder.clip(name, low, high), order)


def leaky_relu(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert LEAKY_RELU to LeakyRelu."""
    _convert_unary(builder, op, op_type="LeakyRelu", attributes={"alpha": op.options["alpha"]})


def prelu(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert PRELU to PRelu; the slopes broadcast against the values."""
    inputs, order = align_inputs(builder, op, [0, 1])
    builder.bind(op, builder.node("PRelu", inputs), order)


def softmax(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert SOFTMAX over the last axis; values are multiplied by ``beta`` first."""
    order, tensor = builder.order(op, 0), builder.tensor(op, 0)
    name = builder.read(tensor, order)
    beta = op.options.get("beta", 1.0)
    if beta != 1.0:
        name = builder.node("Mul", [name, builder.scalar(beta)])
    axis = {"axis": order.index(len(order) - 1)}
    builder.bind(op, builder.node("Softmax", [name], axis), order)


def log_softmax(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert LOG_SOFTMAX over the last axis."""
    order = builder.order(op, 0)
    _convert_unary(
        builder, op, op_type="LogSoftmax", attributes={"axis": order.index(len(order) - 1)}
    )


def gelu(builder: OnnxGraphBuilder, op: Op) -> None:
    """Convert GELU, exact (Erf) or approximated (Tanh), to primitive operators.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (GELUs), 2016.
    """
    order = builder.order(op, 0)
    x = builder.read(builder.tensor(op, 0), order)
    if op.options.get("approximate", False):
        cube = builder.node("Mul", [builder.node("Mul", [x, x]), x])
        cube = builder.node("Mul", [cube, builder.scalar(0.044715)])
        inner = builder.node("Add", [x, cube])
        inner = builder.node("Mul", [inner, builder.scalar(math.sqrt(2 / math.pi))])
        share = builder.node("Tanh", [inner])
    else:
        share = builder.node("Erf", [builder.node("Div", [x, builder.scalar(math.sqrt(2))])])
    share = builder.node("Add", [share, builder.scalar(1.0)])
    result = builder.node("Mul", [builder.node("Mul", [x, share]), builder.scalar(0.5)])
    builder.bind(op, result, order)


RULES: dict[str, Rule] = {
    "ELU": make_unary_rule("Elu"),
    "GELU": gelu,
    "HARD_SWISH": make_unary_rule("HardSwish"),
    "LEAKY_RELU": leaky_relu,
    "LOGISTIC": make_unary_rule("Sigmoid"),
    "LOG_SOFTMAX": log_softmax,
    "PRELU": prelu,
    "RELU": make_clip_rule(0.0, None),
    "RELU6": make_clip_rule(0.0, 6.0),
    "RELU_0_TO_1": make_clip_rule(0.0, 1.0),
    "RELU_N1_TO_1": make_clip_rule(-1.0, 1.0),
    "SOFTMAX": softmax,
    "TANH": make_unary_rule("Tanh"),
}
