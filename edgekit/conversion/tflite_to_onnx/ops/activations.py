"""Conversion rules of activation functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

from edgekit.conversion.tflite_to_onnx.graph_builder import Lifting, Rule
from edgekit.conversion.tflite_to_onnx.ops.axes import align_inputs
from edgekit.tflite.ir import Op


def make_unary_rule(kind: str, attributes: Mapping[str, Any] | None = None) -> Rule:
    """Make the rule of a unary operator that becomes one ONNX node.

    Args:
        kind: ONNX operator type.
        attributes: of the node.
    """
    return partial(_lift_unary, kind=kind, attributes=attributes)


def _lift_unary(
    lifting: Lifting, op: Op, *, kind: str, attributes: Mapping[str, Any] | None
) -> None:
    order = lifting.order(op, 0)
    name = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, lifting.node(kind, [name], attributes), order)


def make_clip_rule(low: float | None, high: float | None) -> Rule:
    """Make the rule of an activation that clips values to limits.

    Args:
        low: lower limit; ``None`` = none.
        high: upper limit; ``None`` = none.
    """
    return partial(_lift_clip, low=low, high=high)


def _lift_clip(lifting: Lifting, op: Op, *, low: float | None, high: float | None) -> None:
    order = lifting.order(op, 0)
    name = lifting.read(lifting.tensor(op, 0), order)
    lifting.bind(op, lifting.clip(name, low, high), order)


def leaky_relu(lifting: Lifting, op: Op) -> None:
    """Convert LEAKY_RELU to LeakyRelu."""
    _lift_unary(lifting, op, kind="LeakyRelu", attributes={"alpha": op.options["alpha"]})


def prelu(lifting: Lifting, op: Op) -> None:
    """Convert PRELU to PRelu; the slopes broadcast against the values."""
    inputs, order = align_inputs(lifting, op, [0, 1])
    lifting.bind(op, lifting.node("PRelu", inputs), order)


def softmax(lifting: Lifting, op: Op) -> None:
    """Convert SOFTMAX over the last axis; values are multiplied by ``beta`` first."""
    order, tensor = lifting.order(op, 0), lifting.tensor(op, 0)
    name = lifting.read(tensor, order)
    beta = op.options.get("beta", 1.0)
    if beta != 1.0:
        name = lifting.node("Mul", [name, lifting.scalar(beta)])
    axis = {"axis": order.index(len(order) - 1)}
    lifting.bind(op, lifting.node("Softmax", [name], axis), order)


def log_softmax(lifting: Lifting, op: Op) -> None:
    """Convert LOG_SOFTMAX over the last axis."""
    order = lifting.order(op, 0)
    _lift_unary(lifting, op, kind="LogSoftmax", attributes={"axis": order.index(len(order) - 1)})


def gelu(lifting: Lifting, op: Op) -> None:
    """Convert GELU, exact (Erf) or approximated (Tanh), to primitive operators.

    Source: Hendrycks and Gimpel, Gaussian Error Linear Units (GELUs), 2016.
    """
    order = lifting.order(op, 0)
    x = lifting.read(lifting.tensor(op, 0), order)
    if op.options.get("approximate", False):
        cube = lifting.node("Mul", [lifting.node("Mul", [x, x]), x])
        cube = lifting.node("Mul", [cube, lifting.scalar(0.044715)])
        inner = lifting.node("Add", [x, cube])
        inner = lifting.node("Mul", [inner, lifting.scalar(math.sqrt(2 / math.pi))])
        share = lifting.node("Tanh", [inner])
    else:
        share = lifting.node("Erf", [lifting.node("Div", [x, lifting.scalar(math.sqrt(2))])])
    share = lifting.node("Add", [share, lifting.scalar(1.0)])
    made = lifting.node("Mul", [lifting.node("Mul", [x, share]), lifting.scalar(0.5)])
    lifting.bind(op, made, order)


LIFTS: dict[str, Rule] = {
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
