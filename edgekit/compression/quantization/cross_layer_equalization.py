"""Cross-layer equalization, applied where it lowers the 8-bit error of the second layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from edgekit.compression.quantization.affine import (
    Affine,
    Floats,
    compute_symmetric_scales,
    compute_unsigned_affine,
    to_int8,
)
from edgekit.compression.quantization.calibration.fake_quantization import FakeQuantCopies
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.io import get_opset
from edgekit.onnx_graph.output_differences import SquaredErrors
from edgekit.onnx_graph.qdq_placement import Placement, WeightedNode
from edgekit.onnx_graph.runs.activations import feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_offloaded
from edgekit_agent.samples import Samples

# f(s x) = s f(x) for every s > 0, channel by channel. Pools keep the channels of a Conv apart, but
# mix those of a MatMul, which are on the last axis.
_HOMOGENEOUS = {"Relu", "LeakyRelu"}
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool"}
# Largest scale of a channel; channels below this share of the largest range are not scaled.
_MOST = 100.0
_DEAD = 1e-4
# The squared error must halve, because equalizing one pair shifts the ranges of other layers.
_LOWERS = 0.5
# Since 18 the axes of ReduceMax are an input.
_AXES_AS_INPUT = 18


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two layers between which a scale per channel changes nothing."""

    first: WeightedNode
    second: WeightedNode

    @property
    def value(self) -> str:
        """Return the input of the second layer."""
        name: str = self.second.node.input[0]
        return name


def equalize_channels(
    index: GraphIndex,
    placement: Placement,
    *,
    largest: int,
    estimating: Sequence[Samples],
    judging: Sequence[Samples],
) -> int:
    """Equalize the channels between pairs of layers, in place.

    The outputs of the first layer are divided by a scale per channel, and the weights of the
    second are multiplied by it. The scale is the square root of the activation range over the
    weight range. Where each input channel of the second layer has weights, and so a scale, of its
    own, these take the whole range. The index is out of date afterwards.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.1; Xiao et al. 2023 (SmoothQuant) for ranges of activations.

    Args:
        index: the float graph, its weights offloaded.
        placement: the layers to quantize.
        largest: magnitude of the largest integer of weights.
        estimating: samples that the activation ranges are taken from.
        judging: samples that decide which pairs are scaled.

    Returns:
        The number of scaled pairs: those whose 8-bit output is closer to float on the judging
        samples.
    """
    pairs = find_pairs(index, placement)
    if not pairs:
        return 0
    ranges = measure_channel_ranges(index, pairs, estimating)
    scales = [_compute_scales(index, pair, *each) for pair, each in zip(pairs, ranges, strict=True)]
    helps = _judge(index, placement, pairs, ranges, scales, largest, judging)
    for pair, scale, helped in zip(pairs, scales, helps, strict=True):
        if helped:
            _apply(index, pair, scale)
    return sum(helps)


def find_pairs(index: GraphIndex, placement: Placement) -> list[Pair]:
    """Find the pairs of layers of a graph whose weights no other node reads."""
    seconds = {w.node.input[0]: w for w in placement.weighted}
    pairs = []
    for first in placement.weighted:
        value = first.node.output[0]
        between = _HOMOGENEOUS | (_POOLS if first.node.op_type == "Conv" else set())
        reader = index.only_reader(value)
        while reader is not None and reader.op_type in between and len(reader.output) == 1:
            value = reader.output[0]
            reader = index.only_reader(value)
        second = seconds.get(value)
        if second is None or reader is None or reader is not second.node:
            continue
        both_conv = first.node.op_type == "Conv", second.node.op_type == "Conv"
        if both_conv[0] == both_conv[1] and _is_free(index, first) and _is_free(index, second):
            pairs.append(Pair(first=first, second=second))
    return pairs


def _is_free(index: GraphIndex, weighted: WeightedNode) -> bool:
    names = [n for n in (weighted.weight, weighted.bias) if n is not None]
    return weighted.qdq_weight is None and all(index.only_reader(n) is weighted.node for n in names)


def measure_channel_ranges(
    index: GraphIndex, pairs: Sequence[Pair], parts: Sequence[Samples]
) -> list[tuple[Floats, Floats]]:
    """Measure the smallest and largest entry of each input channel of the second layers.

    Args:
        index: the float graph, its weights offloaded.
        pairs: the pairs of layers.
        parts: samples to run.

    Returns:
        For each pair the smallest and the largest entries, [channels] each.
    """
    additions = Additions()
    names = []
    for number, pair in enumerate(pairs):
        for op in ("ReduceMin", "ReduceMax"):
            output = f"edgekit:{op}:{number}"
            additions.add(pair.value, *_reduce(index, additions, op, pair, output))
            names.append(output)
    additions.outputs += names
    session = open_offloaded(index, additions)
    low: dict[str, NDArray[np.generic]] = {}
    for _, run in feed(session, get_input_tensors(index.proto), parts):
        for name, found in run(names, {}).items():
            pick = np.minimum if "ReduceMin" in name else np.maximum
            low[name] = pick(low[name], found) if name in low else found
    flat = [low[name].astype(np.float32) for name in names]
    for pair, each in zip(pairs, flat[::2], strict=True):
        if each.shape != (channels := _count_input_channels(index, pair),):
            raise ValueError(f"{pair.value}: ranges of shape {each.shape} for {channels} channels")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _count_input_channels(index: GraphIndex, pair: Pair) -> int:
    grouped = _group_weight(pair.second, index.float_constant(pair.second.weight))
    return int(grouped.shape[0] * grouped.shape[2])


def _reduce(
    index: GraphIndex, additions: Additions, op: str, pair: Pair, output: str
) -> list[NodeProto]:
    """Build the reduction over all axes but the channels: axis 1 of Conv, else the last one."""
    read, axes, nodes = pair.value, [0], []
    if pair.second.node.op_type == "Conv":
        axes = [0, *range(2, len(index.initializers[pair.second.weight].dims))]
    else:
        read = f"{output}:rows"
        nodes.append(helper.make_node("Flatten", [pair.value], [read], axis=-1))
    if get_opset(index.proto) < _AXES_AS_INPUT:
        return [*nodes, helper.make_node(op, [read], [output], axes=axes, keepdims=0)]
    stored = f"{output}:axes"
    additions.constants.append(helper.make_tensor(stored, 7, [len(axes)], axes))
    return [*nodes, helper.make_node(op, [read, stored], [output], keepdims=0)]


def _compute_scales(index: GraphIndex, pair: Pair, low: Floats, high: Floats) -> Floats:
    """Compute the divisor of each channel of the value; 1 for nearly dead channels."""
    activation = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    grouped = _group_weight(pair.second, index.float_constant(pair.second.weight))
    weight = np.abs(grouped).max(axis=(1, 3)).ravel().astype(np.float64)
    alive = (activation > _DEAD * activation.max()) & (weight > _DEAD * weight.max())
    own = grouped.shape[2] == 1
    wanted = activation if own else np.sqrt(activation / np.where(alive, weight, 1.0))
    if not alive.any():
        return np.ones_like(low)
    wanted = wanted / np.exp(np.log(wanted[alive]).mean())
    scales: Floats = np.where(alive, np.clip(wanted, 1 / _MOST, _MOST), 1.0).astype(np.float32)
    return scales


def _group_weight(weighted: WeightedNode, weight: Floats) -> Floats:
    """Return a weight as [groups, outputs of a group, inputs of a group, kernel positions]."""
    if weighted.node.op_type != "Conv":
        return np.moveaxis(weight, weighted.axis, 0)[None, :, :, None]
    group = read_attribute(weighted.node, "group", 1)
    groups = group if isinstance(group, int) else 1
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _scale_weight(weighted: WeightedNode, weight: Floats, scales: Floats) -> Floats:
    """Return the weight with each input channel multiplied by its scale."""
    if weighted.node.op_type != "Conv":
        return weight * (scales[:, None] if weighted.axis == 1 else scales[None, :])
    grouped = _group_weight(weighted, weight)
    product = grouped * scales.reshape(grouped.shape[0], 1, grouped.shape[2], 1)
    return product.reshape(weight.shape)


def _judge(
    index: GraphIndex,
    placement: Placement,
    pairs: Sequence[Pair],
    ranges: Sequence[tuple[Floats, Floats]],
    scales: Sequence[Floats],
    largest: int,
    parts: Sequence[Samples],
) -> list[bool]:
    """Return for each second layer whether the scales lower its 8-bit error (weight and input)."""
    shadows = FakeQuantCopies(index, placement)
    compared = []
    for pair, (low, high), scale in zip(pairs, ranges, scales, strict=True):
        versions = (np.ones_like(scale), scale)
        compared.append(
            [
                _add_shadow(shadows, pair, _fit_affine(low / s, high / s), s, largest)
                for s in versions
            ]
        )
    session = open_offloaded(index, shadows.additions)
    sums = SquaredErrors[tuple[str, str]]()
    for _, run in feed(session, get_input_tensors(index.proto), parts):
        made = run(shadows.additions.outputs, {})
        for error, size in (names for both in compared for names in both):
            sums.add((error, size), float(made[error]), float(made[size]))
    return [
        sums.compute_relative(after) < _LOWERS * sums.compute_relative(before)
        for before, after in compared
    ]


def _fit_affine(low: Floats, high: Floats) -> Affine:
    return compute_unsigned_affine(float(low.min()), float(high.max()))


def _add_shadow(
    shadows: FakeQuantCopies, pair: Pair, affine: Affine, scale: Floats, largest: int
) -> tuple[str, str]:
    """Add a scaled 8-bit copy of the second layer; return the names of squared error and size."""
    second = pair.second
    weight = _scale_weight(second, shadows.index.float_constant(second.weight), scale)
    steps = compute_symmetric_scales(weight, second.axis, largest)
    integers = shadows.constant(to_int8(weight, steps, second.axis, largest))
    shape = (-1, *[1] * (weight.ndim - 2)) if second.node.op_type == "Conv" else (-1,)
    divided, stored = shadows.fresh("divided"), shadows.fresh("weight")
    nodes = [
        helper.make_node("Div", [pair.value, shadows.constant(scale.reshape(shape))], [divided]),
        helper.make_node(
            "DequantizeLinear", [integers, shadows.constant(steps)], [stored], axis=second.axis
        ),
    ]
    parameters = shadows.constant(affine.scale), shadows.constant(affine.zero_point)
    quantized, dequantized = shadows.build_fake_quant(divided, *parameters)
    nodes += quantized
    nodes.append(shadows.copy(second.node, {pair.value: dequantized, second.node.input[1]: stored}))
    return shadows.compare(second.node.output[0], nodes[-1].output[0], nodes)


def _apply(index: GraphIndex, pair: Pair, scales: Floats) -> None:
    first, second = pair.first.node, pair.second.node
    weight = index.float_constant(first.input[1])
    shape = [1] * weight.ndim
    shape[pair.first.axis] = -1
    first.input[1] = index.add_constant("w", weight / scales.reshape(shape))
    if pair.first.bias is not None:
        bias = index.float_constant(first.input[2])
        first.input[2] = index.add_constant("b", bias / scales.reshape(bias.shape))
    weight = index.float_constant(second.input[1])
    second.input[1] = index.add_constant("w", _scale_weight(pair.second, weight, scales))
