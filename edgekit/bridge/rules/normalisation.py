"""Conversion rules of normalization, by stored statistics or by those of the input."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from onnx import NodeProto

from edgekit.bridge.graph import Shape, Tensor
from edgekit.bridge.layout import channels_last
from edgekit.bridge.lowering import Lowering, attr
from edgekit.bridge.rules.activations import last
from edgekit.bridge.rules.elementwise import aligned
from edgekit.bridge.rules.maths import clamped, pair, reduced, single


def batch_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert BatchNormalization at inference to one factor and one summand per channel."""
    if attr(node, "training_mode", 0) or any(node.output[1:]):
        raise low.refusal(
            node, "computes statistics of its batch", hint="export the model for inference"
        )
    value = low.value(node, 0)
    scale, bias, mean, variance = (low.plain(node, place) for place in range(1, 5))
    spread = single(low, "SQRT", pair(low, "ADD", variance, attr(node, "epsilon", 1e-5)))
    factor = pair(low, "DIV", scale, spread)
    summand = pair(low, "SUB", bias, pair(low, "MUL", mean, factor))
    shape = _per_channel(value.order.index(1), len(value.order), factor.shape[0])
    made = pair(low, "MUL", value.tensor, low.reshaped(factor, shape))
    low.bind(node, pair(low, "ADD", made, low.reshaped(summand, shape)), value.order)


def _per_channel(axis: int, rank: int, channels: int) -> Shape:
    return tuple(channels if place == axis else 1 for place in range(rank))


def _standardised(
    low: Lowering, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalize a tensor to mean 0 and variance 1; also return its mean and 1 / deviation."""
    mean = reduced(low, "MEAN", x, axes)
    centred = pair(low, "SUB", x, mean)
    variance = reduced(low, "MEAN", single(low, "SQUARE", centred), axes)
    inverse = single(low, "RSQRT", pair(low, "ADD", variance, epsilon))
    return pair(low, "MUL", centred, inverse), mean, inverse


def instance_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert InstanceNormalization, which normalizes each channel of each sample."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(2, rank)]
    made, _, _ = _standardised(low, value.tensor, axes, attr(node, "epsilon", 1e-5))
    shape = _per_channel(value.axis(1), rank, value.shape[1])
    made = pair(low, "MUL", made, low.reshaped(low.plain(node, 1), shape))
    made = pair(low, "ADD", made, low.reshaped(low.plain(node, 2), shape))
    low.bind(node, made, value.order)


def group_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert GroupNormalization, with scales per channel, or per group before opset 21."""
    value = low.value(node, 0)
    groups = attr(node, "num_groups")
    batch, channels, *space = value.shape
    each, area = channels // groups, math.prod(space)
    is_last = value.order == channels_last(len(value.order))
    tensor = value.tensor if is_last else low.ordered(value, None)
    split = (batch, area, groups, each) if is_last else (batch, groups, each, area)
    axes = [1, 3] if is_last else [2, 3]
    grouped = low.reshaped(tensor, split)
    made, _, _ = _standardised(low, grouped, axes, attr(node, "epsilon", 1e-5))
    place = 2 if is_last else 1
    for kind, position in (("MUL", 1), ("ADD", 2)):
        given = low.plain(node, position)
        shape = [1, 1, 1, 1]
        shape[place] = groups
        if given.shape[0] == channels and low.opset >= 21:
            shape[place + 1] = each
        made = pair(low, kind, made, low.reshaped(given, tuple(shape)))
    low.bind(node, low.reshaped(made, tensor.shape), value.order if is_last else None)


def layer_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert LayerNormalization over the last axes, and its statistics if they are outputs."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(attr(node, "axis", -1) % rank, rank)]
    made, mean, inverse = _standardised(low, value.tensor, axes, attr(node, "epsilon", 1e-5))
    made = pair(low, "MUL", made, aligned(low, low.value(node, 1), value.order))
    if low.has(node, 2):
        made = pair(low, "ADD", made, aligned(low, low.value(node, 2), value.order))
    low.bind(node, made, value.order)
    for output, statistic in ((1, mean), (2, inverse)):
        if len(node.output) > output and node.output[output]:
            low.bind(node, statistic, value.order, output=output)


def rms_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert RMSNormalization: divide by the root mean square over the last axes."""
    value = low.value(node, 0)
    rank = len(value.order)
    axes = [value.axis(axis) for axis in range(attr(node, "axis", -1) % rank, rank)]
    mean = reduced(low, "MEAN", single(low, "SQUARE", value.tensor), axes)
    inverse = single(low, "RSQRT", pair(low, "ADD", mean, attr(node, "epsilon", 1e-5)))
    made = pair(low, "MUL", value.tensor, inverse)
    made = pair(low, "MUL", made, aligned(low, low.value(node, 1), value.order))
    low.bind(node, made, value.order)


def lp_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert LpNormalization: divide by the 1-norm or 2-norm along an axis; zeros stay zeros."""
    value = low.value(node, 0)
    axes = [value.axis(attr(node, "axis", -1))]
    if attr(node, "p", 2) == 1:
        norm = reduced(low, "SUM", single(low, "ABS", value.tensor), axes)
    else:
        squares = reduced(low, "SUM", single(low, "SQUARE", value.tensor), axes)
        norm = single(low, "SQRT", squares)
    norm = clamped(low, norm, float(np.finfo(np.float32).tiny), None)
    low.bind(node, pair(low, "DIV", value.tensor, norm), value.order)


def mean_variance_normalization(low: Lowering, node: NodeProto) -> None:
    """Convert MeanVarianceNormalization over given axes."""
    value = low.value(node, 0)
    axes = [value.axis(axis) for axis in attr(node, "axes", [0, 2, 3])]
    centred = pair(low, "SUB", value.tensor, reduced(low, "MEAN", value.tensor, axes))
    variance = reduced(low, "MEAN", single(low, "SQUARE", centred), axes)
    spread = pair(low, "ADD", single(low, "SQRT", variance), 1e-9)
    low.bind(node, pair(low, "DIV", centred, spread), value.order)


def local_response(low: Lowering, node: NodeProto) -> None:
    """Convert LRN, which scales each entry by the squares of the channels around it."""
    value = low.value(node, 0)
    size, beta = attr(node, "size"), attr(node, "beta", 0.75)
    alpha, bias = attr(node, "alpha", 1e-4) / size, attr(node, "bias", 1.0)
    order = last(value.order, 1)
    x = low.ordered(value, order)
    if size % 2 and len(order) == 4:
        options = {"radius": size // 2, "bias": bias, "alpha": alpha, "beta": beta}
        made = low.emit("LOCAL_RESPONSE_NORMALIZATION", [x], x.shape, options=options)
        low.bind(node, made, order)
        return
    total = _sum_around(low, single(low, "SQUARE", x), (size - 1) // 2, size)
    base = pair(low, "ADD", pair(low, "MUL", total, alpha), bias)
    low.bind(node, pair(low, "MUL", x, pair(low, "POW", base, -beta)), order)


def _sum_around(low: Lowering, x: Tensor, before: int, size: int) -> Tensor:
    """Sum ``size`` entries along the last axis, from ``before`` entries ahead of each entry on."""
    flat = low.reshaped(x, (math.prod(x.shape[:-1]), x.shape[-1]))
    paddings = np.asarray([[0, 0], [before, size - 1 - before]], np.int32)
    wide = (flat.shape[0], flat.shape[1] + size - 1)
    padded = low.emit("PAD", [flat, low.stored(paddings)], wide)
    parts = [
        low.emit("SLICE", [padded, low.int32([0, place]), low.int32(flat.shape)], flat.shape)
        for place in range(size)
    ]
    made = parts[0]
    for part in parts[1:]:
        made = pair(low, "ADD", made, part)
    return low.reshaped(made, x.shape)


RULES: dict[str, Callable[[Lowering, NodeProto], None]] = {
    "BatchNormalization": batch_normalization,
    "GroupNormalization": group_normalization,
    "InstanceNormalization": instance_normalization,
    "LRN": local_response,
    "LayerNormalization": layer_normalization,
    "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance_normalization,
    "RMSNormalization": rms_normalization,
}
