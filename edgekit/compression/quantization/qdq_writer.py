"""Writer of QuantizeLinear and DequantizeLinear nodes, with int8 weights and int32 biases."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from edgekit.compression.quantization.affine import (
    Affine,
    Floats,
    compute_symmetric_scales,
    to_int8,
)
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import Placement, WeightedNode

_INT32 = 2**31 - 1
_SMALLEST = np.finfo(np.float32).tiny


class QdqWriter:
    """Writer of the QDQ nodes of one graph."""

    def __init__(
        self,
        index: GraphIndex,
        placement: Placement,
        parameters: dict[str, Affine],
        *,
        largest: int,
    ) -> None:
        self.largest = largest
        self.index = index
        self.placement = placement
        self.parameters = parameters
        self.dequantized: dict[str, str] = {}  # value -> its dequantized copy
        self.weights: dict[tuple[str, int], tuple[str, Floats]] = {}
        self.constants: dict[tuple[str, bytes], str] = {}
        self.nodes: list[NodeProto] = []

    def write(self) -> ModelProto:
        """Insert the QDQ nodes and return the model; the index must not be used afterwards."""
        graph = self.index.graph
        by_output = {w.node.output[0]: w for w in self.placement.weighted}
        for value in graph.input:
            self._quantize(value.name)
        for node in list(graph.node):
            self._read_dequantized(node)
            if weighted := by_output.get(node.output[0]):
                self._quantize_weight(weighted)
            self.nodes.append(node)
            for name in list(node.output):
                self._quantize(name, maker=node)
        del graph.node[:]
        graph.node.extend(_drop_unread(self.nodes, self.index.outputs | self.index.inner_reads))
        self.index.drop_unread_constants()
        return self.index.proto

    def _quantize(self, name: str, maker: NodeProto | None = None) -> None:
        if name not in self.parameters:
            return
        source, dequantized = name, self.index.fresh(f"{name}_d")
        if name in self.index.outputs and maker is not None:
            # The graph's output keeps its name: the dequantized value takes it.
            source, dequantized = self.index.fresh(f"{name}_f"), name
            maker.output[list(maker.output).index(name)] = source
        integer = self.index.fresh(f"{name}_q")
        affine = self.parameters[name]
        scale = self._add_constant("s", np.float32(affine.scale))
        zero = self._add_constant("z", np.uint8(affine.zero_point))
        self.nodes.append(helper.make_node("QuantizeLinear", [source, scale, zero], [integer]))
        self.nodes.append(
            helper.make_node("DequantizeLinear", [integer, scale, zero], [dequantized])
        )
        self.dequantized[name] = dequantized

    def _read_dequantized(self, node: NodeProto) -> None:
        for position, name in enumerate(node.input):
            node.input[position] = self.dequantized.get(name, name)

    def _quantize_weight(self, weighted: WeightedNode) -> None:
        node = weighted.node
        source = self._find_input_affine(node.input[0])
        bias = None if weighted.bias is None else self.index.float_constant(weighted.bias)
        integer, scales = self._store_weight(weighted, bias, float(source.scale))
        # onnxruntime fuses a Gemm only where the zero points of the weight are spelled out.
        node.input[1] = self._dequantize(
            integer, scales, weighted.axis, spell_zeros=node.op_type == "Gemm"
        )
        if bias is not None:
            # Where the product is too small for a float, so is the bias (see _store_weight).
            bias_scales = np.maximum(scales * source.scale, _SMALLEST).astype(np.float32)
            integers = np.clip(np.rint(bias / bias_scales.astype(np.float64)), -_INT32, _INT32)
            stored = self.index.add_constant("b", integers.astype(np.int32))
            node.input[2] = self._dequantize(stored, bias_scales, 0)

    def _find_input_affine(self, dequantized: str) -> Affine:
        name = next(name for name, other in self.dequantized.items() if other == dequantized)
        return self.parameters[name]

    def _store_weight(
        self, weighted: WeightedNode, bias: Floats | None, input_scale: float
    ) -> tuple[str, Floats]:
        """Store the int8 weight and return its name and scales; a shared weight is stored once."""
        key = (weighted.weight, weighted.axis)
        if weighted.qdq_weight is not None:
            kept_scales = self.index.float_constant(weighted.qdq_weight.scales)
            if bias is None or _fits(bias, kept_scales * np.float64(input_scale)):
                return weighted.qdq_weight.integers, kept_scales
        if key not in self.weights or bias is not None:
            weight = self._read_float_weight(weighted)
            scales = compute_symmetric_scales(weight, weighted.axis, self.largest)
            if bias is not None:
                # A bias that is huge against the weights must still fit 32 bits.
                least = np.abs(bias.astype(np.float64)) / (input_scale * _INT32)
                scales = np.maximum(scales, least * 1.001).astype(np.float32)
            integers = to_int8(weight, scales, weighted.axis, self.largest)
            name = self._add_constant("w", integers)
            self.weights[key] = (name, scales)
        return self.weights[key]

    def _read_float_weight(self, weighted: WeightedNode) -> Floats:
        weight = self.index.float_constant(weighted.weight)
        if weighted.qdq_weight is None:
            return weight
        shape = [1] * weight.ndim
        shape[weighted.axis] = -1
        return weight * self.index.float_constant(weighted.qdq_weight.scales).reshape(shape)

    def _dequantize(
        self, integer: str, scales: Floats, axis: int, *, spell_zeros: bool = False
    ) -> str:
        dequantized = self.index.fresh("d")
        inputs = [integer, self._add_constant("s", scales)]
        # A missing zero point is 0 of the integer's type (ONNX DequantizeLinear).
        if spell_zeros:
            inputs.append(self._add_constant("z", np.zeros(scales.shape, np.int8)))
        self.nodes.append(helper.make_node("DequantizeLinear", inputs, [dequantized], axis=axis))
        return dequantized

    def _add_constant(self, stem: str, value: NDArray[np.generic] | np.generic) -> str:
        """Return the name of an initializer with this value; equal ones are stored once."""
        array = np.asarray(value)
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.index.add_constant(stem, array)
        return self.constants[key]


def _fits(bias: Floats, scales: NDArray[np.floating]) -> bool:
    """Return whether a bias with these scales fits into 32 bits."""
    return bool((np.abs(bias.astype(np.float64)) <= _INT32 * scales).all())


def _drop_unread(nodes: list[NodeProto], outputs: set[str]) -> list[NodeProto]:
    """Return the nodes without a DequantizeLinear whose output is no longer read."""
    read = {name for node in nodes for name in node.input} | outputs
    return [n for n in nodes if n.op_type != "DequantizeLinear" or n.output[0] in read]
