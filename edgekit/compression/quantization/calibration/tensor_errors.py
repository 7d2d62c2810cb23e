"""Output error of each 8-bit tensor alone."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, ValueInfoProto, helper

from edgekit.compression.checks.output_errors import OutputErrors
from edgekit.compression.quantization.affine import Affine, compute_symmetric_scales
from edgekit.compression.quantization.calibration.fake_quantization import FakeQuantCopies
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.output_differences import compute_squared_error
from edgekit.onnx_graph.output_parts import find_output_parts
from edgekit.onnx_graph.qdq_placement import Placement
from edgekit.onnx_graph.runs.activations import Tick, feed, get_input_tensors
from edgekit.onnx_graph.runs.instrumented_session import open_offloaded
from edgekit_agent.samples import Samples

# Groups with a smaller part of the error are not divided.
_SMALL = 0.02
# Largest number of runs over all samples, and the number of groups at the start.
_MOST_RUNS = 96
_GROUPS = 24
_PARTS = 4


def measure_tensor_errors(
    index: GraphIndex,
    placement: Placement,
    parameters: Mapping[str, Affine],
    *,
    largest: int,
    judging: Sequence[Samples],
    tick: Tick,
) -> dict[str, float]:
    """Measure the output error of each tensor alone in 8 bits, by the name of a value or weight.

    Neighboring tensors are quantized in groups. Groups with the largest errors are divided until
    single tensors are left; the error of an undivided group is shared evenly.

    Args:
        index: index of the float model; not changed.
        placement: the values and weights that become 8-bit.
        parameters: quantization parameters of the values.
        largest: magnitude of the largest integer weight.
        judging: a few samples to run.
        tick: called with the number of runs done and the largest number of runs.
    """
    switches = _Switches(index, placement, parameters, largest)
    tensors = list(switches.names)
    size = max(1, -(-len(tensors) // _GROUPS))
    groups = [tuple(tensors[i : i + size]) for i in range(0, len(tensors), size)]
    errors = dict(zip(groups, switches.errors(groups, judging), strict=True))
    runs = len(groups)
    heap = [(-error, number, group) for number, (group, error) in enumerate(errors.items())]
    heapq.heapify(heap)
    while heap and runs < _MOST_RUNS:
        tick(runs, _MOST_RUNS)
        error, _, group = heapq.heappop(heap)
        if -error <= _SMALL * sum(errors.values()):
            break
        if len(group) == 1:
            continue
        step = -(-len(group) // _PARTS)
        parts = [group[i : i + step] for i in range(0, len(group), step)]
        found = switches.errors(parts, judging)
        del errors[group]
        for part, each in zip(parts, found, strict=True):
            errors[part] = each
            runs += 1
            heapq.heappush(heap, (-each, runs + len(groups), part))
    return {name: error / len(group) for group, error in errors.items() for name in group}


class _Switches:
    """Float model with an If at each tensor that switches its fake quantization on."""

    def __init__(
        self,
        index: GraphIndex,
        placement: Placement,
        parameters: Mapping[str, Affine],
        largest: int,
    ) -> None:
        self.index = index
        self.shadows = FakeQuantCopies(index, placement)
        self.names: dict[str, str] = {}  # tensor -> its switch, in the order of the graph
        order = _sort_by_graph(index, placement)
        weights = {w.weight: w for w in placement.weighted if w.qdq_weight is None}
        first = index.graph.input[0].name
        for name in order:
            if name in weights:
                axis = weights[name].axis
                scales = compute_symmetric_scales(index.float_constant(name), axis, largest)
                zeros = np.zeros(scales.shape, np.int8)
                self._add(name, first, scales, zeros, axis=axis)
            else:
                affine = parameters[name]
                self._add(name, name, affine.scale, affine.zero_point)
        reads = self.shadows.additions.reads
        self.judged = [reads.get(name, name) for name in find_output_parts(index.proto)]
        self.shadows.additions.outputs += list(dict.fromkeys(self.judged))
        self.session = open_offloaded(index, self.shadows.additions)

    def _add(
        self,
        name: str,
        behind: str,
        scale: NDArray[np.generic] | np.generic,
        zero: NDArray[np.generic] | np.generic,
        **axis: int,
    ) -> None:
        shadows = self.shadows
        switch, read = shadows.fresh("switch"), shadows.fresh("switched")
        parameters = shadows.constant(scale), shadows.constant(zero)
        nodes, dequantized = shadows.build_fake_quant(name, *parameters)
        for node in nodes:
            node.attribute.extend(helper.make_attribute(k, v) for k, v in axis.items())
        plain = shadows.fresh("float")
        identity = helper.make_node("Identity", [name], [plain])
        branches = {"then_branch": (nodes, dequantized), "else_branch": ([identity], plain)}
        node = helper.make_node("If", [switch], [read])
        for key, (body, output) in branches.items():
            graph = helper.make_graph(body, key, [], [ValueInfoProto(name=output)])
            node.attribute.append(helper.make_attribute(key, graph))
        shadows.additions.add(behind, node)
        shadows.additions.reads[name] = read
        shadows.additions.inputs.append(helper.make_tensor_value_info(switch, TensorProto.BOOL, []))
        self.names[name] = switch

    def errors(self, groups: Sequence[Sequence[str]], parts: Sequence[Samples]) -> list[float]:
        """Measure the output error of each group with its tensors in 8 bits."""
        off: dict[str, NDArray[np.generic]] = {
            switch: np.array(False) for switch in self.names.values()
        }
        table = []
        for _, run in feed(self.session, get_input_tensors(self.index.proto), parts):
            before = run(self.judged, dict(off))
            rows = []
            for group in groups:
                on = {self.names[name]: np.array(True) for name in group}
                after = run(self.judged, off | on)
                rows.append(
                    [compute_squared_error(before[name], after[name]) for name in self.judged]
                )
            table.append(rows)
        found = np.array(table, np.float64).reshape(len(table), len(groups), -1, 2)
        return [
            OutputErrors(error=found[:, g, :, 0], size=found[:, g, :, 1]).total
            for g in range(len(groups))
        ]


def _sort_by_graph(index: GraphIndex, placement: Placement) -> Iterator[str]:
    """Yield the tensors that become 8-bit, in graph order."""
    values = {name for name in placement.values if name not in placement.parameter_source}
    weights = {w.weight for w in placement.weighted if w.qdq_weight is None}
    names = [value.name for value in index.graph.input]
    names += [n for node in index.graph.node for n in (*node.input, *node.output)]
    found = values | weights
    yield from (name for name in dict.fromkeys(names) if name in found)
