"""Conversion rules of normalization, by stored statistics or by those of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgekit.conversion.onnx_to_tflite.layout import channels_last
from edgekit.conversion.onnx_to_tflite.ops.activations import move_last
from edgekit.conversion.onnx_to_tflite.ops.arithmetic import (
    clamp,
    emit_binary,
    emit_unary,
    reduce_axes,
)
from edgekit.conversion.onnx_to_tflite.ops.elementwise import align_value
from edgekit.conversion.onnx_to_tflite.tflite_builder import Lowering, get_attribute
from edgekit.tflite.ir import Shape, Tensor


def batch_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert BatchNormalization at inference to one factor and one summand per channel."""
    if get_attribute(node, "training_mode", 0) or any(node.output[1:]):
        raise low.refusal(
            node, "is in training mode (batch statistics)", hint="export the model for inference"
        )
    value = low.value(node, 0)
    scale, bias, mean, variance = (low.plain(node, place) for place in range(1, 5))
    spread = emit_unary(
        low, "SQRT", emit_binary(low, "ADD", variance, get_attribute(node, "epsilon", 1e-5))
    )
    factor = emit_binary(low, "DIV", scale, spread)
    summand = emit_binary(low, "SUB", bias, emit_binary(low, "MUL", mean, factor))
    shape = _channel_shape(value.order.index(1), len(value.order), factor.shape[0])
    made = emit_binary(low, "MUL", value.tensor, low.reshape(factor, shape))
    low.bind(node, emit_binary(low, "ADD", made, low.reshape(summand, shape)), value.order)


def _channel_shape(axis: int, rank: int, channels: int) -> Shape:
    return tuple(channels if place == axis else 1 for place in range(rank))


def _standardize(
    low: Lowering, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize a tensor to mean 0 and variance 1; also return its mean and 1 / deviation."""
    mean = reduce_axes(low, "MEAN", x, axes)
    centered = emit_binary(low, "SUB", x, mean)
    variance = reduce_axes(low, "MEAN", emit_unary(low, "SQUARE", centered), axes)
    inverse = emit_unary(low, "RSQRT", emit_binary(low, "ADD", variance, epsilon))
    return emit_binary(low, "MUL", centered, inverse), mean, inverse


def instance_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert InstanceNormalization, which normalizes each channel of each sample."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(2, rank)]
    made, _, _ = _standardize(low, value.tensor, axes, get_attribute(node, "epsilon", 1e-5))
    shape = _channel_shape(value.axis(1), rank, value.shape[1])
    made = emit_binary(low, "MUL", made, low.reshape(low.plain(node, 1), shape))
    made = emit_binary(low, "ADD", made, low.reshape(low.plain(node, 2), shape))
    low.bind(node, made, value.order)


def group_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert GroupNormalization, with scales per channel, or per group before opset 21."""
    value = low.value(node, 0)
    groups = get_attribute(node, "num_groups")
    batch, channels, *space = value.shape
    each, area = channels // groups, math.prod(space)
    is_last = value.order == channels_last(len(value.order))
    tensor = value.tensor if is_last else low.to_order(value, None)
    split = (batch, area, groups, each) if is_last else (batch, groups, each, area)
    axes = [1, 3] if is_last else [2, 3]
    grouped = low.reshape(tensor, split)
    made, _, _ = _standardize(low, grouped, axes, get_attribute(node, "epsilon", 1e-5))
    place = 2 if is_last else 1
    for kind, position in (("MUL", 1), ("ADD", 2)):
        given = low.plain(node, position)
        shape = [1, 1, 1, 1]
        shape[place] = groups
        if given.shape[0] == channels and low.opset >= 21:
            shape[place + 1] = each
        made = emit_binary(low, kind, made, low.reshape(given, tuple(shape)))
    low.bind(node, low.reshape(made, tensor.shape), value.order if is_last else None)


def layer_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert LayerNormalization over the last axes, and its statistics if they are outputs."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(get_attribute(node, "axis", -1) % rank, rank)]
    made, mean, inverse = _standardize(
        low, value.tensor, axes, get_attribute(node, "epsilon", 1e-5)
    )
    made = emit_binary(low, "MUL", made, align_value(low, low.value(node, 1), value.order))
    if low.has(node, 2):
        made = emit_binary(low, "ADD", made, align_value(low, low.value(node, 2), value.order))
    low.bind(node, made, value.order)
    for output, statistic in ((1, mean), (2, inverse)):
        if len(node.output) > output and node.output[output]:
            low.bind(node, statistic, value.order, output=output)


def rms_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert RMSNormalization: divide by the root mean square over the last axes."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(get_attribute(node, "axis", -1) % rank, rank)]
    mean = reduce_axes(low, "MEAN", emit_unary(low, "SQUARE", value.tensor), axes)
    inverse = emit_unary(
        low, "RSQRT", emit_binary(low, "ADD", mean, get_attribute(node, "epsilon", 1e-5))
    )
    made = emit_binary(low, "MUL", value.tensor, inverse)
    made = emit_binary(low, "MUL", made, align_value(low, low.value(node, 1), value.order))
    low.bind(node, made, value.order)


def lp_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert LpNormalization: divide by the 1-norm or 2-norm along an axis; zeros stay zeros."""
    value = low.value(node, 0)
    axes = [value.axis(get_attribute(node, "axis", -1))]
    if get_attribute(node, "p", 2) == 1:
        norm = reduce_axes(low, "SUM", emit_unary(low, "ABS", value.tensor), axes)
    else:
        squares = reduce_axes(low, "SUM", emit_unary(low, "SQUARE", value.tensor), axes)
        norm = emit_unary(low, "SQRT", squares)
    norm = clamp(low, norm, float(np.finfo(np.float32).tiny), None)
    low.bind(node, emit_binary(low, "DIV", value.tensor, norm), value.order)


def mean_variance_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert MeanVarianceNormalization over given axes."""
    value = low.value(node, 0)
    axes = [value.axis(axis) for axis in get_attribute(node, "axes", [0, 2, 3])]
    centered = emit_binary(low, "SUB", value.tensor, reduce_axes(low, "MEAN", value.tensor, axes))
    variance = reduce_axes(low, "MEAN", emit_unary(low, "SQUARE", centered), axes)
    spread = emit_binary(low, "ADD", emit_unary(low, "SQRT", variance), 1e-9)
    low.bind(node, emit_binary(low, "DIV", centered, spread), value.order)


def lrn(low: Lowering, node: NodeProto) -> None:
    """Convert LRN, which scales each entry by the squares of the channels around it."""
    value = low.value(node, 0)
    size, beta = get_attribute(node, "size"), get_attribute(node, "beta", 0.75)
    alpha, bias = get_attribute(node, "alpha", 1e-4) / size, get_attribute(node, "bias", 1.0)
    order = move_last(value.order, 1)
    x = low.to_order(value, order)
    if size % 2 and len(order) == 4:
        options = {"radius": size // 2, "bias": bias, "alpha": alpha, "beta": beta}
        made = low.emit("LOCAL_RESPONSE_NORMALIZATION", [x], x.shape, options=options)
        low.bind(node, made, order)
        return
    total = _sum_around(low, emit_unary(low, "SQUARE", x), (size - 1) // 2, size)
    base = emit_binary(low, "ADD", emit_binary(low, "MUL", total, alpha), bias)
    low.bind(node, emit_binary(low, "MUL", x, emit_binary(low, "POW", base, -beta)), order)


def _sum_around(low: Lowering, x: Tensor, before: int, size: int) -> Tensor:
    """Sum ``size`` entries along the last axis, from ``before`` entries ahead of each entry on."""
    flat = low.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    paddings = np.asarray([[0, 0], [before, size - 1 - before]], np.int32)
    wide = (flat.shape[0], flat.shape[1] + size - 1)
    padded = low.emit("PAD", [flat, low.store(paddings)], wide)
    parts = [
        low.emit("SLICE", [padded, low.int32([0, place]), low.int32(flat.shape)], flat.shape)
        for place in range(size)
    ]
    made = parts[0]
    for part in parts[1:]:
        made = emit_binary(low, "ADD", made, part)
    return low.reshape(made, x.shape)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
}
