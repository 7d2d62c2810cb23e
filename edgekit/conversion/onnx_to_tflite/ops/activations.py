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
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Tensor

# Bounds for which TFLite has an operator.
_CLAMPS: dict[tuple[float, float], str] = {
    (0.0, math.inf): "RELU",
    (0.0, 6.0): "RELU6",
    (-1.0, 1.0): "RELU_N1_TO_1",
    (0.0, 1.0): "RELU_0_TO_1",
}


def clamp_by_activation(low: Lowering, tensor: Tensor, least: float, most: float) -> Tensor:
    """Clamp a tensor to bounds, by a single activation operator if TFLite has one.

    Args:
        low: receives the operators.
        tensor: of any numeric type.
        least: lower bound, ``-inf`` for none.
        most: upper bound, ``inf`` for none.
    """
    kind = _CLAMPS.get((least, most))
    if kind is not None and tensor.dtype == "float32":
        return emit_unary(low, kind, tensor)
    bounds = (None if math.isinf(bound) else bound for bound in (least, most))
    return clamp(low, tensor, *bounds)


def _relu(low: Lowering, tensor: Tensor) -> Tensor:
    return clamp_by_activation(low, tensor, 0, math.inf)


def clip(low: Lowering, node: NodeProto) -> None:
    """Convert Clip, whose bounds are attributes, constants or computed inputs."""
    value = low.value(node, 0, mixed=True)
    made = value.tensor
    bounds: list[float] = []
    for place, (name, none, kind) in enumerate(
        (("min", -math.inf, "MAXIMUM"), ("max", math.inf, "MINIMUM")), start=1
    ):
        given = low.constant(node, place)
        if low.has(node, place) and given is None:
            made = emit_binary(low, kind, made, low.plain(node, place))
        bound = get_attribute(node, name, none) if given is None else given.item()
        bounds.append(_effective_bound(bound, made.dtype))
    low.bind(
        node, clamp_by_activation(low, made, bounds[0], bounds[1]), value.order, mixed=value.mixed
    )


def _effective_bound(bound: float, dtype: str) -> float:
    """Return a bound, or an infinite one if no value of the type lies beyond it."""
    if dtype == "float32":
        return bound if abs(bound) < np.finfo(np.float32).max else math.copysign(math.inf, bound)
    limits = np.iinfo(dtype)
    if bound <= limits.min:
        return -math.inf
    return math.inf if bound >= limits.max else bound


def leaky_relu(low: Lowering, node: NodeProto) -> None:
    """Convert LeakyRelu to LEAKY_RELU."""
    value = low.value(node, 0, mixed=True)
    options = {"alpha": get_attribute(node, "alpha", 0.01)}
    made = emit_unary(low, "LEAKY_RELU", value.tensor, options=options)
    low.bind(node, made, value.order, mixed=value.mixed)


def prelu(low: Lowering, node: NodeProto) -> None:
    """Convert PRelu, whose slopes broadcast against the input."""
    value = low.value(node, 0)
    slope = align_value(low, low.value(node, 1), value.order)
    x = value.tensor
    if x.dtype == "float32" and low.is_stored(slope):
        low.bind(node, low.emit("PRELU", [x, slope], x.shape), value.order)
        return
    negative = emit_binary(low, "MUL", slope, clamp(low, x, None, 0))
    low.bind(node, emit_binary(low, "ADD", clamp(low, x, 0, None), negative), value.order)


def _scaled_elu(low: Lowering, x: Tensor, *, alpha: float, inner: float, gamma: float) -> Tensor:
    """Compute ``gamma * (max(x, 0) + alpha * (exp(min(x, 0) * inner) - 1))``."""
    below = clamp(low, x, None, 0.0)
    if inner != 1:
        below = emit_binary(low, "MUL", below, inner)
    below = emit_binary(low, "MUL", emit_unary(low, "ELU", below), alpha)
    made = emit_binary(low, "ADD", emit_unary(low, "RELU", x), below)
    return made if gamma == 1 else emit_binary(low, "MUL", made, gamma)


def elu(low: Lowering, node: NodeProto) -> None:
    """Convert Elu: to ELU alone if alpha is 1, otherwise with a scaled negative part."""
    value = low.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    if alpha == 1:
        low.bind(node, emit_unary(low, "ELU", value.tensor), value.order)
        return
    made = _scaled_elu(low, value.tensor, alpha=alpha, inner=1.0, gamma=1.0)
    low.bind(node, made, value.order)


def selu(low: Lowering, node: NodeProto) -> None:
    """Convert Selu to a scaled ELU."""
    value = low.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.67326319217681884765625)
    gamma = get_attribute(node, "gamma", 1.05070102214813232421875)
    made = _scaled_elu(low, value.tensor, alpha=alpha, inner=1.0, gamma=gamma)
    low.bind(node, made, value.order)


def celu(low: Lowering, node: NodeProto) -> None:
    """Convert Celu to a scaled ELU."""
    value = low.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    made = _scaled_elu(low, value.tensor, alpha=alpha, inner=1 / alpha, gamma=1.0)
    low.bind(node, made, value.order)


def hard_sigmoid(low: Lowering, node: NodeProto) -> None:
    """Convert HardSigmoid: ``alpha * x + beta``, clamped to [0, 1]."""
    value = low.value(node, 0)
    made = emit_binary(low, "MUL", value.tensor, get_attribute(node, "alpha", 0.2))
    made = emit_binary(low, "ADD", made, get_attribute(node, "beta", 0.5))
    low.bind(node, clamp_by_activation(low, made, 0, 1), value.order)


def swish(low: Lowering, node: NodeProto) -> None:
    """Convert Swish: ``x * sigmoid(alpha * x)``."""
    value = low.value(node, 0)
    alpha = get_attribute(node, "alpha", 1.0)
    inner = value.tensor if alpha == 1 else emit_binary(low, "MUL", value.tensor, alpha)
    made = emit_binary(low, "MUL", value.tensor, emit_unary(low, "LOGISTIC", inner))
    low.bind(node, made, value.order)


def gelu(low: Lowering, node: NodeProto) -> None:
    """Convert Gelu to GELU, exact or approximated by tanh."""
    value = low.value(node, 0)
    options = {"approximate": get_attribute(node, "approximate", "none") == "tanh"}
    low.bind(node, emit_unary(low, "GELU", value.tensor, options=options), value.order)


def thresholded_relu(low: Lowering, node: NodeProto) -> None:
    """Convert ThresholdedRelu: keep entries above ``alpha``, and make the others zero."""
    value = low.value(node, 0)
    above = emit_binary(
        low, "GREATER", value.tensor, get_attribute(node, "alpha", 1.0), dtype="bool"
    )
    low.bind(node, select(low, above, value.tensor, 0.0), value.order)


def shrink(low: Lowering, node: NodeProto) -> None:
    """Convert Shrink: zero within ``lambd``, beyond it moved towards zero by ``bias``."""
    value = low.value(node, 0)
    x, lambd, bias = (
        value.tensor,
        get_attribute(node, "lambd", 0.5),
        get_attribute(node, "bias", 0.0),
    )
    real = low.cast(x, "float32")
    above = emit_binary(low, "GREATER", real, lambd, dtype="bool")
    below = emit_binary(low, "LESS", real, -lambd, dtype="bool")
    made = select(low, below, emit_binary(low, "ADD", real, bias), 0.0)
    made = select(low, above, emit_binary(low, "SUB", real, bias), made)
    low.bind(node, low.cast(made, x.dtype), value.order)


def make_softmax_rule(kind: str) -> Callable[[Lowering, NodeProto], None]:
    """Make the rule of Softmax, LogSoftmax or Hardmax.

    They work along one axis, before opset 13 over all axes from the given one on.

    Args:
        kind: TFLite operator type; ``ARG_MAX`` for Hardmax.
    """
    return partial(_lower_softmax, kind=kind)


def _lower_softmax(low: Lowering, node: NodeProto, *, kind: str) -> None:
    value = low.value(node, 0)
    axis = get_attribute(node, "axis", -1 if low.opset >= 13 else 1) % max(len(value.order), 1)
    if low.opset < 13 and math.prod(value.shape[axis + 1 :]) > 1:
        tensor = low.to_order(value, None)
        rows = math.prod(tensor.shape[:axis])
        flat = low.reshape(tensor, (rows, math.prod(tensor.shape[axis:])))
        made = _emit_along_last(low, kind, flat)
        low.bind(node, low.reshape(made, tensor.shape))
        return
    order = move_last(value.order, axis)
    low.bind(node, _emit_along_last(low, kind, low.to_order(value, order)), order)


def move_last(order: Order, axis: int) -> Order:
    """Move an axis to the end of a storage order."""
    return (*(a for a in order if a != axis), axis)


def _emit_along_last(low: Lowering, kind: str, tensor: Tensor) -> Tensor:
    if kind == "ARG_MAX":
        return _hardmax(low, tensor)
    options = {"beta": 1.0} if kind == "SOFTMAX" else {}
    return low.emit(kind, [tensor], tensor.shape, options=options)


def _hardmax(low: Lowering, tensor: Tensor) -> Tensor:
    """Mark the first of the largest entries along the last axis with 1, all others with 0."""
    axis = len(tensor.shape) - 1
    inputs = [tensor, low.int32(axis)]
    options = {"output_type": "int32"}
    place = low.emit("ARG_MAX", inputs, tensor.shape[:-1], dtype="int32", options=options)
    parts = [place, low.int32(tensor.shape[-1]), low.float32(1.0), low.float32(0.0)]
    return low.emit("ONE_HOT", parts, tensor.shape, options={"axis": axis})


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
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
