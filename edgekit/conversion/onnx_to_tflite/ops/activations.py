"""Conversion rules of activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import Order
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import clamp, emit_binary, emit_unary, select
from edgekit.conversion.onnx_to_tflite.ops.elementwise import (
    align_value,
    make_composite_rule,
    make_unary_rule,
)
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Tensor

# Bounds for which TFLite has an operator.
_CLAMPS: dict[tuple[float, float], str] = {
    (0.0, math.inf): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 1.0): "RELU_0_TO_1",
}


def clamp_by_activation(
    builder: TfliteGraphBuilder, tensor: Tensor, least: float, most: float
) -> Tensor:
    """Clamp a tensor to bounds, by a single activation operator if TFLite has one.

    Args:
        builder: receives the operators.
        tensor: of any numeric type.
        least: lower bound, ``-inf`` for none.
        most: upper bound, ``inf`` for none.
    """
    op_type = _CLAMPS.get((least, most))
    if op_type is not None and tensor.dtype == "float32":
        return emit_unary(builder, op_type, tensor)
    bounds = (None if math.isinf(bound) else bound for bound in (least, most))
    return clamp(builder, tensor, *bounds)


def _relu(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    return clamp_by_activation(builder, tensor, 0, math.inf)


def clip(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Clip, whose bounds are attributes, constants or computed inputs."""
    value = builder.value(node, 0, mixed=True)
    result = value.tensor
    bounds: list[float] = []
    for position, (name, default, op_type) in enumerate(
        (("min", -math.inf, "MAXIMUM"), ("max", math.inf, "MINIMUM")), start=1
    ):
        constant = builder.constant(node, position)
        if builder.has(node, position) and constant is None:
            result = emit_binary(builder, op_type, result, builder.plain(node, position))
        bound = get_attribute(node, name, default) if constant is None else constant.item()
        bounds.append(_effective_bound(bound, result.dtype))
    builder.bind(
        node,
        clamp_by_activation(builder, result, bounds[0], bounds[1]),
        value.order,
        mixed=value.mixed,
    )


def _effective_bound(bound: float, dtype: str) -> float:
    """Return a bound, or an infinite one if no value of the type lies beyond it."""
    if dtype == "float32":
        return bound if abs(bound) < np.finfo(np.float32).max else math.copysign(math.inf, bound)
    limits = np.iinfo(dtype)
    if bound <= limits.min:
        return -math.inf
    return math.inf if bound >= limits.max else bound


def leaky_relu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert LeakyRelu to LEAKY_RELU."""
    value = builder.value(node, 0, mixed=True)
    options = {"alpha": get_attribute(node, "alpha", 0.01)}
    result = emit_unary(builder, "LEAKY_RELU", value.tensor, options=options)
    builder.bind(node, result, value.order, mixed=value.mixed)


def prelu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert PRelu, whose slopes broadcast against the input."""
    value = builder.value(node, 0)
    slope = align_value(builder, builder.value(node, 1), value.order)
    x = value.tensor
    if x.dtype == "float32" and builder.is_stored(slope):
        builder.bind(node, builder.emit("PRELU", [x, slope], x.shape), value.order)
        return
    negative = emit_binary(builder, "MUL", slope, clamp(builder, x, None, 0))
    builder.bind(
        node, emit_binary(builder, "ADD", clamp(builder, x, 0, None), negative), value.order
    )


def _scaled_elu(
    builder: TfliteGraphBuilder, x: Tensor, *, alpha: float, inner: float, gamma: float
) -> Tensor:
    """Compute ``gamma * (max(x, 0) + alpha * (exp(min(x, 0) * inner) - 1))``."""
    below = clamp(builder, x, None, 0.0)
    if inner != 1:
        below = emit_binary(builder, "MUL", below, inner)
    below = emit_binary(builder, "MUL", emit_unary(builder, "ELU", below), alpha)
    result = emit_binary(builder, "ADD", emit_unary(builder, "RELU", x), below)
    return result if gamma == 1 else emit_binary(builder, "MUL", result, gamma)


def elu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Elu: to ELU alone if alpha is 1, otherwise with a scaled negative part."""
    value = builder.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    if alpha == 1:
        builder.bind(node, emit_unary(builder, "ELU", value.tensor), value.order)
        return
    result = _scaled_elu(builder, value.tensor, alpha=alpha, inner=1.0, gamma=1.0)
    builder.bind(node, result, value.order)


def selu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Selu to a scaled ELU."""
    value = builder.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.67326319217681884765625)
    gamma = get_attribute(node, "gamma", 1.05070102214813232421875)
    result = _scaled_elu(builder, value.tensor, alpha=alpha, inner=1.0, gamma=gamma)
    builder.bind(node, result, value.order)


def celu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Celu to a scaled ELU."""
    value = builder.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    result = _scaled_elu(builder, value.tensor, alpha=alpha, inner=1 / alpha, gamma=1.0)
    builder.bind(node, result, value.order)


def hard_sigmoid(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert HardSigmoid: ``alpha * x + beta``, clamped to [0, 1]."""
    value = builder.value(node, 0)
    result = emit_binary(builder, "MUL", value.tensor, get_attribute(node, "alpha", 0.2))
    result = emit_binary(builder, "ADD", result, get_attribute(node, "beta", 0.5))
    builder.bind(node, clamp_by_activation(builder, result, 0, 1), value.order)


def swish(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Swish: ``x * sigmoid(alpha * x)``."""
    value = builder.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    inner = value.tensor if alpha == 1 else emit_binary(builder, "MUL", value.tensor, alpha)
    result = emit_binary(builder, "MUL", value.tensor, emit_unary(builder, "LOGISTIC", inner))
    builder.bind(node, result, value.order)


def gelu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Gelu to GELU, exact or approximated by tanh."""
    value = builder.value(node, 0)
    options = {"approximate": get_attribute(node, "approximate", "none") == "tanh"}
    builder.bind(node, emit_unary(builder, "GELU", value.tensor, options=options), value.order)


def thresholded_relu(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert ThresholdedRelu: keep entries above ``alpha``, and make the others zero."""
    value = builder.value(node, 0)
    above = emit_binary(
        builder, "GREATER", value.tensor, get_attribute(node, "alpha", 1.0), dtype="bool"
    )
    builder.bind(node, select(builder, above, value.tensor, 0.0), value.order)


def shrink(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert Shrink: zero within ``lambd``, beyond it moved towards zero by ``bias``."""
    value = builder.value(node, 0)
    x, lambd, bias = (
        value.tensor,
        get_attribute(node, "lambd", 0.5),
        get_attribute(node, "bias", 0.0),
    )
    x_float = builder.cast(x, "float32")
    above = emit_binary(builder, "GREATER", x_float, lambd, dtype="bool")
    below = emit_binary(builder, "LESS", x_float, -lambd, dtype="bool")
    result = select(builder, below, emit_binary(builder, "ADD", x_float, bias), 0.0)
    result = select(builder, above, emit_binary(builder, "SUB", x_float, bias), result)
    builder.bind(node, builder.cast(result, x.dtype), value.order)


def make_softmax_rule(op_type: str) -> Callable[[TfliteGraphBuilder, NodeProto], None]:
    """Make the rule of Softmax, LogSoftmax or Hardmax.

    They work along one axis, before opset 13 over all axes from the given one on.

    Args:
        op_type: TFLite operator type; ``ARG_MAX`` for Hardmax.
    """
    return partial(_convert_softmax, op_type=op_type)


def _convert_softmax(builder: TfliteGraphBuilder, node: NodeProto, *, op_type: str) -> None:
    value = builder.value(node, 0)
    axis = get_attribute(node, "axis", -1 if builder.opset >= 13 else 1) % max(len(value.order), 1)
    if builder.opset < 13 and math.prod(value.shape[axis + 1 :]) > 1:
        tensor = builder.to_order(value, None)
        rows = math.prod(tensor.shape[:axis])
        flat = builder.reshape(tensor, (rows, math.prod(tensor.shape[axis:])))
        result = _emit_along_last(builder, op_type, flat)
        builder.bind(node, builder.reshape(result, tensor.shape))
        return
    order = move_last(value.order, axis)
    builder.bind(node, _emit_along_last(builder, op_type, builder.to_order(value, order)), order)


def move_last(order: Order, axis: int) -> Order:
    """Move an axis to the end of a storage order."""
    return (*(a for a in order if a != axis), axis)


def _emit_along_last(builder: TfliteGraphBuilder, op_type: str, tensor: Tensor) -> Tensor:
    if op_type == "ARG_MAX":
        return _hardmax(builder, tensor)
    options = {"beta": 1.0} if op_type == "SOFTMAX" else {}
    return builder.emit(op_type, [tensor], tensor.shape, options=options)


def _hardmax(builder: TfliteGraphBuilder, tensor: Tensor) -> Tensor:
    """Mark the first of the largest entries along the last axis with 1, all others with 0."""
    axis = len(tensor.shape) - 1
    inputs = [tensor, builder.int32(axis)]
    options = {"output_type": "int32"}
    index = builder.emit("ARG_MAX", inputs, tensor.shape[:-1], dtype="int32", options=options)
    parts = [index, builder.int32(tensor.shape[-1]), builder.float32(1.0), builder.float32(0.0)]
    return builder.emit("ONE_HOT", parts, tensor.shape, options={"axis": axis})


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "Celu": celu,
    "Clip": clip,
    "Elu": elu,
    "Gelu": gelu,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": make_unary_rule("HARD_SWISH"),
    "Hardmax": make_softmax_rule("ARG_MAX"),
    "LeakyRelu": leaky_relu,
    "LogSoftmax": make_softmax_rule("LOG_SOFTMAX"),
    "PRelu": prelu,
    "Relu": make_composite_rule(_relu),
    "Selu": selu,
    "Shrink": shrink,
    "Sigmoid": make_unary_rule("LOGISTIC"),
    "Softmax": make_softmax_rule("SOFTMAX"),
    "Swish": swish,
    "Tanh": make_unary_rule("TANH"),
    "ThresholdedRelu": thresholded_relu,
}
