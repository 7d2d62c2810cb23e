"""Copies of a value's readers that see it through 8 bits, beside the untouched graph."""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto, helper

from edgekit.graphs.index import GraphIndex
from edgekit.graphs.instrument import Additions
from edgekit.graphs.onnx_file import inner_graphs
from edgekit.graphs.placement import Placement

# Readers with one float output, whose error is worth more than that of the value itself.
_JUDGES = {
    "Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Concat", "Relu",
    "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Erf", "Gelu",
    "Softmax", "AveragePool", "GlobalAveragePool", "LayerNormalization", "ReduceMean", "Resize",
    "Pad",
}  # fmt: skip


class Shadows:
    """Adds shadows to a graph: ``error(root)`` names the outputs that tell what 8 bits do to it."""

    def __init__(self, index: GraphIndex, placement: Placement) -> None:
        self.index = index
        self.placement = placement
        self.additions = Additions()
        self._after = {w.node.output[0]: w.output for w in placement.weighted}
        self._count = 0

    def fresh(self, stem: str) -> str:
        """A name for an added value."""
        self._count += 1
        return f"edgekit:{stem}:{self._count}"

    def follow(self, root: str, twin: str) -> list[tuple[str, str]]:
        """Copy what reads ``root`` so that it reads ``twin``.

        Returns:
            Pairs of outputs: squared error, squared size.
        """
        pairs = [self._compare(value, other) for value, other in self._judged(root, twin)]
        return pairs or [self._compare(root, twin)]

    def _judged(self, value: str, twin: str) -> Iterator[tuple[str, str]]:
        for reader in self.index.readers.get(value, ()):
            if len(reader.output) != 1 or any(inner_graphs(reader)):
                continue
            output = reader.output[0]
            moved = self.placement.like.get(output) == value
            if not moved and reader.op_type not in _JUDGES:
                continue
            shadow = self._copy(reader, {value: twin})
            if moved:
                yield from self._judged(output, shadow)
            else:
                yield self._absorbed(output, shadow)
        if value in self.index.outputs:
            yield value, twin

    def _copy(self, node: NodeProto, renamed: dict[str, str]) -> str:
        shadow = NodeProto()
        shadow.CopyFrom(node)
        shadow.ClearField("name")
        for position, name in enumerate(node.input):
            shadow.input[position] = renamed.get(name, name)
        shadow.output[0] = self.fresh("shadow")
        self.additions.add(node.output[0], shadow)
        output: str = shadow.output[0]
        return output

    def _absorbed(self, output: str, shadow: str) -> tuple[str, str]:
        """Both after the activation function that the range of the output absorbs."""
        after = self._after.get(output, output)
        if after == output:
            return output, shadow
        return after, self._copy(self.index.producer[after], {output: shadow})

    def _compare(self, value: str, other: str) -> tuple[str, str]:
        error, size = self.fresh("error"), self.fresh("size")
        difference = self.fresh("difference")
        self.additions.add(
            value,
            helper.make_node("Sub", [other, value], [difference]),
            helper.make_node("ReduceSumSquare", [difference], [error], keepdims=0),
            helper.make_node("ReduceSumSquare", [value], [size], keepdims=0),
        )
        self.additions.outputs += [error, size]
        return error, size

    def through_8_bits(self, value: str) -> tuple[str, str, str]:
        """A value through Quantize and Dequantize; names of the result, scale and zero point.

        The parameters are inputs, so that one session judges any number of them.
        """
        scale, zero = self.fresh("scale"), self.fresh("zero")
        self.additions.inputs += [
            helper.make_tensor_value_info(scale, TensorProto.FLOAT, []),
            helper.make_tensor_value_info(zero, TensorProto.UINT8, []),
        ]
        integer, twin = self.fresh("integer"), self.fresh("twin")
        self.additions.add(
            value,
            helper.make_node("QuantizeLinear", [value, scale, zero], [integer]),
            helper.make_node("DequantizeLinear", [integer, scale, zero], [twin]),
        )
        return twin, scale, zero
