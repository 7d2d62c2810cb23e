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
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder, get_attribute
from edgekit.tflite.ir import Shape, Tensor


def batch_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert BatchNormalization at inference to one factor and one summand per channel."""
    if get_attribute(node, "training_mode", 0) or any(node.output[1:]):
        raise builder.refusal(
            node, "is in training mode (batch statistics)", hint="export the model for inference"
        )
    value = builder.value(node, 0)
    scale, bias, mean, variance = (builder.plain(node, position) for position in range(1, 5))
    spread = emit_unary(
        builder, "SQRT", emit_binary(builder, "ADD", variance, get_attribute(node, "epsilon", 1e-5))
    )
    factor = emit_binary(builder, "DIV", scale, spread)
    summand = emit_binary(builder, "SUB", bias, emit_binary(builder, "MUL", mean, factor))
    shape = _channel_shape(value.order.index(1), len(value.order), factor.shape[0])
    result = emit_binary(builder, "MUL", value.tensor, builder.reshape(factor, shape))
    builder.bind(
        node, emit_binary(builder, "ADD", result, builder.reshape(summand, shape)), value.order
    )


def _channel_shape(axis: int, rank: int, channels: int) -> Shape:
    return tuple(channels if position == axis else 1 for position in range(rank))


def _standardize(
    builder: TfliteGraphBuilder, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize a tensor to mean 0 and variance 1; also return its mean and 1 / deviation."""
    mean = reduce_axes(builder, "MEAN", x, axes)
    centered = emit_binary(builder, "SUB", x, mean)
    variance = reduce_axes(builder, "MEAN", emit_unary(builder, "SQUARE", centered), axes)
    inverse = emit_unary(builder, "RSQRT", emit_binary(builder, "ADD", variance, epsilon))
    return emit_binary(builder, "MUL", centered, inverse), mean, inverse


def instance_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert InstanceNormalization, which normalizes each channel of each sample."""
    value = builder.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(2, rank)]
    result, _, _ = _standardize(builder, value.tensor, axes, get_attribute(node, "epsilon", 1e-5))
    shape = _channel_shape(value.axis(1), rank, value.shape[1])
    result = emit_binary(builder, "MUL", result, builder.reshape(builder.plain(node, 1), shape))
    result = emit_binary(builder, "ADD", result, builder.reshape(builder.plain(node, 2), shape))
    builder.bind(node, result, value.order)


def group_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert GroupNormalization, with scales per channel, or per group before opset 21."""
    value = builder.value(node, 0)
    groups = get_attribute(node, "num_groups")
    batch, channels, *space = value.shape
    group_size, area = channels // groups, math.prod(space)
    is_last = value.order == channels_last(len(value.order))
    tensor = value.tensor if is_last else builder.to_order(value, None)
    split = (batch, area, groups, group_size) if is_last else (batch, groups, group_size, area)
    axes = [1, 3] if is_last else [2, 3]
    grouped = builder.reshape(tensor, split)
    result, _, _ = _standardize(builder, grouped, axes, get_attribute(node, "epsilon", 1e-5))
    channel_axis = 2 if is_last else 1
    for op_type, position in (("MUL", 1), ("ADD", 2)):
        parameter = builder.plain(node, position)
        shape = [1, 1, 1, 1]
        shape[channel_axis] = groups
        if parameter.shape[0] == channels and builder.opset >= 21:
            shape[channel_axis + 1] = group_size
        result = emit_binary(builder, op_type, result, builder.reshape(parameter, tuple(shape)))
    builder.bind(node, builder.reshape(result, tensor.shape), value.order if is_last else None)


def layer_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert LayerNormalization over the last axes, and its statistics if they are outputs."""
    value = builder.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(get_attribute(node, "axis", -1) % rank, rank)]
    result, mean, inverse = _standardize(
        builder, value.tensor, axes, get_attribute(node, "epsilon", 1e-5)
    )
    result = emit_binary(
        builder, "MUL", result, align_value(builder, builder.value(node, 1), value.order)
    )
    if builder.has(node, 2):
        result = emit_binary(
            builder, "ADD", result, align_value(builder, builder.value(node, 2), value.order)
        )
    builder.bind(node, result, value.order)
    for output, statistic in ((1, mean), (2, inverse)):
        if len(node.output) > output and node.output[output]:
            builder.bind(node, statistic, value.order, output=output)


def rms_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert RMSNormalization: divide by the root mean square over the last axes."""
    value = builder.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(get_attribute(node, "axis", -1) % rank, rank)]
    mean = reduce_axes(builder, "MEAN", emit_unary(builder, "SQUARE", value.tensor), axes)
    inverse = emit_unary(
        builder, "RSQRT", emit_binary(builder, "ADD", mean, get_attribute(node, "epsilon", 1e-5))
    )
    result = emit_binary(builder, "MUL", value.tensor, inverse)
    result = emit_binary(
        builder, "MUL", result, align_value(builder, builder.value(node, 1), value.order)
    )
    builder.bind(node, result, value.order)


def lp_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert LpNormalization: divide by the 1-norm or 2-norm along an axis; zeros stay zeros."""
    value = builder.value(node, 0)
    axes = [value.axis(get_attribute(node, "axis", -1))]
    if get_attribute(node, "p", 2) == 1:
        norm = reduce_axes(builder, "SUM", emit_unary(builder, "ABS", value.tensor), axes)
    else:
        squares = reduce_axes(builder, "SUM", emit_unary(builder, "SQUARE", value.tensor), axes)
        norm = emit_unary(builder, "SQRT", squares)
    norm = clamp(builder, norm, float(np.finfo(np.float32).tiny), None)
    builder.bind(node, emit_binary(builder, "DIV", value.tensor, norm), value.order)


def mean_variance_normalization(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert MeanVarianceNormalization over given axes."""
    value = builder.value(node, 0)
    axes = [value.axis(axis) for axis in get_attribute(node, "axes", [0, 2, 3])]
    centered = emit_binary(
        builder, "SUB", value.tensor, reduce_axes(builder, "MEAN", value.tensor, axes)
    )
    variance = reduce_axes(builder, "MEAN", emit_unary(builder, "SQUARE", centered), axes)
    spread = emit_binary(builder, "ADD", emit_unary(builder, "SQRT", variance), 1e-9)
    builder.bind(node, emit_binary(builder, "DIV", centered, spread), value.order)


def lrn(builder: TfliteGraphBuilder, node: NodeProto) -> None:
    """Convert LRN, which scales each entry by the squares of the channels around it."""
    value = builder.value(node, 0)
    size, beta = get_attribute(node, "size"), get_attribute(node, "beta", 0.75)
    alpha, bias = get_attribute(node, "alpha", 1e-4) / size, get_attribute(node, "bias", 1.0)
    order = move_last(value.order, 1)
    x = builder.to_order(value, order)
    if size % 2 and len(order) == 4:
        options = {"radius": size // 2, "bias": bias, "alpha": alpha, "beta": beta}
        result = builder.emit("LOCAL_RESPONSE_NORMALIZATION", [x], x.shape, options=options)
        builder.bind(node, result, order)
        return
    total = _sum_around(builder, emit_unary(builder, "SQUARE", x), (size - 1) // 2, size)
    base = emit_binary(builder, "ADD", emit_binary(builder, "MUL", total, alpha), bias)
    builder.bind(
        node, emit_binary(builder, "MUL", x, emit_binary(builder, "POW", base, -beta)), order
    )


def _sum_around(builder: TfliteGraphBuilder, x: Tensor, before: int, size: int) -> Tensor:
    """Sum ``size`` entries along the last axis, from ``before`` entries ahead of each entry on."""
    flat = builder.reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    paddings = np.asarray([[0, 0], [before, size - 1 - before]], np.int32)
    padded_shape = (flat.shape[0], flat.shape[1] + size - 1)
    padded = builder.emit("PAD", [flat, builder.store(paddings)], padded_shape)
    parts = [
        builder.emit(
            "SLICE", [padded, builder.int32([0, offset]), builder.int32(flat.shape)], flat.shape
        )
        for offset in range(size)
    ]
    result = parts[0]
    for part in parts[1:]:
        result = emit_binary(builder, "ADD", result, part)
    return builder.reshape(result, x.shape)


RULES: dict[str, Callable[[TfliteGraphBuilder, NodeProto], None]] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": lrn,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
}
