"""Bias correction: mean errors of weight rounding and activation clipping, moved into biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper

from edgekit.compression.quantization.affine import (
    Affine,
    Floats,
    compute_symmetric_scales,
    to_int8,
)
from edgekit.compression.quantization.calibration.fake_quantization import FakeQuantCopies
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_differences import SquaredErrors
from edgekit.onnx_graph.qdq_placement import Placement, WeightedNode
from edgekit.onnx_graph.runs.activations import feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import open_offloaded
from edgekit_agent.samples import Samples

# A correction must lower the error by this factor on samples that it was not computed from.
_LOWERS = 0.99

# Mean of the float minus the quantized output [channels], by the output of the node.
Shifts = dict[str, Floats]


@dataclass(frozen=True, kw_only=True)
class _Probe:
    """Value names of one fake-quantized node: correction, sum and size of differences, errors."""

    correction: str
    shape: tuple[int, ...]  # of the correction
    total: str
    size: str
    before: tuple[str, str]
    after: tuple[str, str]


def find_shifts(
    index: GraphIndex,
    placement: Placement,
    parameters: Mapping[str, Affine],
    *,
    largest: int,
    estimating: Sequence[Samples],
    judging: Sequence[Samples],
    tick: Callable[[int, int], None] | None = None,
) -> Shifts:
    """Measure the mean error of each weighted node's output, and keep it where adding it helps.

    Each node is quantized alone, weight and input, and reads the float input. A shift is returned
    where adding it lowers the squared error on the judging samples.

    Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.2, here from calibration samples.

    Args:
        index: the float graph, its weights offloaded.
        placement: the nodes to quantize.
        parameters: of each quantized activation.
        largest: magnitude of the largest integer of weights.
        estimating: samples that the shifts are computed from.
        judging: samples that decide whether a shift helps.
        tick: called with the number of samples done.
    """
    shadows = FakeQuantCopies(index, placement)
    found = [w for w in placement.weighted if find_bias_holder(index, w) is not None]
    probes = {
        w.node.output[0]: _add_shadow(shadows, w, parameters[w.node.input[0]], largest)
        for w in found
    }
    if not probes:
        return {}
    session = open_offloaded(index, shadows.additions)
    tensors = get_input_tensors(index.proto)
    nothing: dict[str, NDArray[np.generic]] = {
        probe.correction: np.zeros(probe.shape, np.float32) for probe in probes.values()
    }
    totals = {name: np.zeros(probe.shape) for name, probe in probes.items()}
    sizes = dict.fromkeys(probes, 0)
    outputs = shadows.additions.outputs
    for _, run in feed(session, tensors, estimating, tick=tick):
        made = run(outputs, nothing)
        for name, probe in probes.items():
            totals[name] += made[probe.total].reshape(probe.shape).astype(np.float64)
            sizes[name] += int(made[probe.size])
    shifts = {
        name: (total / max(sizes[name] // total.size, 1)).astype(np.float32)
        for name, total in totals.items()
    }
    corrections = {probe.correction: shifts[name] for name, probe in probes.items()}
    sums = SquaredErrors[tuple[str, str]]()
    for _, run in feed(session, tensors, judging, tick=tick):
        made = run(outputs, dict(corrections))
        for error, size in (pair for p in probes.values() for pair in (p.before, p.after)):
            sums.add((error, size), float(made[error]), float(made[size]))
    return {
        name: shifts[name].ravel()
        for name, probe in probes.items()
        if sums.compute_relative(probe.after) < _LOWERS * sums.compute_relative(probe.before)
        and np.isfinite(shifts[name]).all()
    }


def _add_shadow(
    shadows: FakeQuantCopies, weighted: WeightedNode, affine: Affine, largest: int
) -> _Probe:
    node, index = weighted.node, shadows.index
    weight = index.float_constant(weighted.weight)
    channels = weight.shape[weighted.axis]
    shape = (channels, *[1] * (weight.ndim - 2)) if node.op_type == "Conv" else (channels,)
    parameters = (shadows.constant(affine.scale), shadows.constant(affine.zero_point))
    nodes, dequantized = shadows.build_fake_quant(node.input[0], *parameters)
    reads = {node.input[0]: dequantized}
    if weighted.qdq_weight is None:
        nodes.append(_build_dequantize_node(shadows, weight, weighted.axis, largest))
        reads[node.input[1]] = nodes[-1].output[0]
    nodes.append(shadows.copy(node, reads))
    names = ("difference", "rows", "total", "size", "corrected", "correction")
    difference, rows, total, size, corrected, correction = map(shadows.fresh, names)
    shadows.additions.inputs.append(
        helper.make_tensor_value_info(correction, TensorProto.FLOAT, shape)
    )
    first, output = shadows.constant(np.array([0])), nodes[-1].output[0]
    nodes += [
        helper.make_node("Sub", [node.output[0], output], [difference]),
        _build_rows_node(shadows, node, difference, rows, weight, weighted.axis),
        helper.make_node("ReduceSum", [rows, first], [total], keepdims=0),
        helper.make_node("Size", [difference], [size]),
        helper.make_node("Add", [output, correction], [corrected]),
    ]
    shadows.additions.outputs += [total, size]
    before = _compare(shadows, weighted, output, nodes)
    after = _compare(shadows, weighted, corrected, [])
    return _Probe(
        correction=correction, shape=shape, total=total, size=size, before=before, after=after
    )


def _compare(
    shadows: FakeQuantCopies, weighted: WeightedNode, dequantized: str, nodes: list[NodeProto]
) -> tuple[str, str]:
    """Add a comparison with the node's output, after the activation function that follows it."""
    value = weighted.node.output[0]
    if weighted.output != value:
        nodes.append(shadows.copy(shadows.index.producer[weighted.output], {value: dequantized}))
        value, dequantized = weighted.output, nodes[-1].output[0]
    return shadows.compare(value, dequantized, nodes)


def _build_rows_node(
    shadows: FakeQuantCopies, node: NodeProto, value: str, output: str, weight: Floats, axis: int
) -> NodeProto:
    """Build the node that reshapes an output to one row per sample or position, channels last."""
    if node.op_type == "Conv" and weight.ndim > 2:
        spatial = shadows.constant(np.arange(2, weight.ndim))
        return helper.make_node("ReduceSum", [value, spatial], [output], keepdims=0)
    shape = shadows.constant(np.array([-1, weight.shape[axis]]))
    return helper.make_node("Reshape", [value, shape], [output])


def _build_dequantize_node(
    shadows: FakeQuantCopies, weight: Floats, axis: int, largest: int
) -> NodeProto:
    scales = compute_symmetric_scales(weight, axis, largest)
    integers = shadows.constant(to_int8(weight, scales, axis, largest))
    inputs = [integers, shadows.constant(scales)]
    return helper.make_node("DequantizeLinear", inputs, [shadows.fresh("weight")], axis=axis)


def find_bias_holder(index: GraphIndex, weighted: WeightedNode) -> tuple[NodeProto, int] | None:
    """Find the node, and the position of its input, that holds or may hold the bias of a layer."""
    node = weighted.node
    if node.op_type in ("Conv", "Gemm"):
        return node, 2
    reader = index.only_reader(node.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    for position, name in enumerate(reader.input):
        tensor = index.initializers.get(name)
        if tensor is None or tensor.data_type != TensorProto.FLOAT:
            continue
        if math.prod(tensor.dims) == tensor.dims[-1:][0] == _count_channels(index, weighted):
            return reader, position
    return None


def _count_channels(index: GraphIndex, weighted: WeightedNode) -> int:
    return int(index.initializers[weighted.weight].dims[weighted.axis])


def apply_shifts(index: GraphIndex, placement: Placement, shifts: Shifts) -> None:
    """Add shifts to biases, in place; a node without a bias gets one."""
    for weighted in placement.weighted:
        shift = shifts.get(weighted.node.output[0])
        found = find_bias_holder(index, weighted)
        if shift is None or found is None:
            continue
        node, position = found
        if len(node.input) <= position or not node.input[position]:
            del node.input[position:]
            node.input.append(index.add_constant("b", shift))
        else:
            old = index.float_constant(node.input[position])
            node.input[position] = index.add_constant("b", old + shift.reshape(old.shape))
