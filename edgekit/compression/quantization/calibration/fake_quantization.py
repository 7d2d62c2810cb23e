"""Fake-quantized copies of nodes beside the unchanged graph, to measure quantization errors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from edgekit.compression.quantization.affine import Affine
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_inner_graphs
from edgekit.onnx_graph.qdq_placement import Placement
from edgekit.onnx_graph.runs.instrumented_session import Additions

# Readers with one float output, whose error is more relevant than that of the value itself.
_JUDGES = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Concat", "Relu",
    "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu",
    "Softmax", "AveragePool", "GlobalAveragePool", "LayerNormalization", "ReduceMean", "Resize",
    "Pad",
}  # fmt: skip


class FakeQuantCopies:
    """Builder of fake-quantized copies of nodes, with outputs for their errors."""

    def __init__(self, index: GraphIndex, placement: Placement) -> None:
        self.index = index
        self.placement = placement
        self.additions = Additions()
        self._after = {w.node.output[0]: w.output for w in placement.weighted}
        self._count = 0

    def fresh(self, stem: str) -> str:
        """Return a new name for an added value."""
        self._count += 1
        return f"edgekit:{stem}:{self._count}"

    def copy_readers(self, root: str, affine: Affine) -> list[tuple[str, str]]:
        """Add copies of the readers of ``root`` that read it fake-quantized.

        Each copy runs from end to end before the next, so that few values are alive at once.

        Returns:
            Pairs of output names: squared error, squared size.
        """
        scale, zero = self.constant(affine.scale), self.constant(affine.zero_point)
        readers = self._find_reader_paths(root) or [[]]
        return [self._add_copy(root, path, (scale, zero)) for path in readers]

    def _find_reader_paths(self, value: str) -> list[list[NodeProto]]:
        """Find the node paths from a value to each output to compare; the empty path is itself."""
        paths: list[list[NodeProto]] = [[]] if value in self.index.outputs else []
        for reader in self.index.readers.get(value, ()):
            if len(reader.output) != 1 or any(iter_inner_graphs(reader)):
                continue
            output = reader.output[0]
            if self.placement.parameter_source.get(output) == value:
                paths += [[reader, *path] for path in self._find_reader_paths(output)]
            elif reader.op_type in _JUDGES:
                after = self._after.get(output, output)
                absorbed = [] if after == output else [self.index.producer[after]]
                paths.append([reader, *absorbed])
        return paths

    def _add_copy(
        self, root: str, path: list[NodeProto], parameters: tuple[str, str]
    ) -> tuple[str, str]:
        nodes, dequantized = self.build_fake_quant(root, *parameters)
        value = root
        for node in path:
            nodes.append(self.copy(node, {value: dequantized}))
            value, dequantized = node.output[0], nodes[-1].output[0]
        return self.compare(value, dequantized, nodes)

    def copy(self, node: NodeProto, reads: dict[str, str]) -> NodeProto:
        """Copy a node, with other inputs and an output of its own; the copy is not yet added."""
        shadow = NodeProto()
        shadow.CopyFrom(node)
        shadow.ClearField("name")
        for position, name in enumerate(node.input):
            shadow.input[position] = reads.get(name, name)
        shadow.output[0] = self.fresh("shadow")
        return shadow

    def compare(self, value: str, dequantized: str, nodes: list[NodeProto]) -> tuple[str, str]:
        """Add the nodes of a dequantized value, and outputs: its squared error and squared size."""
        error, size, difference = (self.fresh(stem) for stem in ("error", "size", "difference"))
        self.additions.add(
            value,
            *nodes,
            helper.make_node("Sub", [dequantized, value], [difference]),
            helper.make_node("ReduceSumSquare", [difference], [error], keepdims=0),
            helper.make_node("ReduceSumSquare", [value], [size], keepdims=0),
        )
        self.additions.outputs += [error, size]
        return error, size

    def build_fake_quant(self, value: str, scale: str, zero: str) -> tuple[list[NodeProto], str]:
        """Build QuantizeLinear and DequantizeLinear, not yet added; return them and the output."""
        integer, dequantized = self.fresh("integer"), self.fresh("dequantized")
        return [
            helper.make_node("QuantizeLinear", [value, scale, zero], [integer]),
            helper.make_node("DequantizeLinear", [integer, scale, zero], [dequantized]),
        ], dequantized

    def constant(self, value: NDArray[np.generic] | np.generic) -> str:
        """Add a constant and return its name."""
        name = self.fresh("constant")
        self.additions.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name
