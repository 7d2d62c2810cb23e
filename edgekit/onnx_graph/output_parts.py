"""Values that model outputs are concatenated, moved or scaled from."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

from edgekit.onnx_graph.operators import PRODUCT_OPS, is_standard

_SATURATE = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"}
# Operators that move the entries of their first input without changing them.
MOVING_OPS = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
# Operators that only scale and shift where the other operand is stored.
_SCALE = {"Add", "Sub", "Mul", "Div"}


def find_output_parts(proto: ModelProto, output: str | None = None) -> list[str]:
    """Find the values to measure output errors on: the sources of all outputs, or of one.

    The walk goes back through data movement, concatenation and constant factors, so that a part of
    small scale counts beside one of large scale. It also goes back through a final Softmax or
    Sigmoid, behind which a few samples near the decision boundary would dominate the error.
    QuantizeLinear and DequantizeLinear pairs are skipped, so an 8-bit version has the same parts in
    the same order.

    Args:
        proto: the model.
        output: name of one output; ``None`` = all.
    """
    parts = _PartFinder(proto)
    for name in [v.name for v in proto.graph.output] if output is None else [output]:
        if name not in parts.stored:
            parts.walk(name)
    return parts.found


def find_output_values(proto: ModelProto) -> set[str]:
    """Find the outputs and the values whose entries they move, concatenate or scale.

    Inputs of a Softmax or Sigmoid do not count: the far ends of their ranges hardly matter.
    """
    parts = _PartFinder(proto, through=MOVING_OPS)
    for output in proto.graph.output:
        parts.walk(output.name)
    return parts.passed


class _PartFinder:
    def __init__(self, proto: ModelProto, *, through: set[str] = MOVING_OPS | _SATURATE) -> None:
        self.through = through
        self.passed: set[str] = set()
        self.stored = {tensor.name for tensor in proto.graph.initializer}
        self.known = self.stored | {value.name for value in proto.graph.input}
        self.producer = {name: node for node in proto.graph.node for name in node.output}
        self.found: list[str] = []

    def walk(self, output: str) -> None:
        """Add the parts of an output; if it has none (only inputs and constants), add itself."""
        before = len(self.found)
        self._walk(output)
        if len(self.found) == before:
            self.found.append(output)

    def _walk(self, value: str) -> None:
        if self._is_given(value):
            return
        self.passed.add(value)
        node = self.producer[self._skip_qdq(value)]
        inputs = self._find_operands(node)
        if inputs is None or not is_standard(node):
            self.found.append(value)
            return
        for name in inputs:
            self._walk(name)

    def _find_operands(self, node: NodeProto) -> list[str] | None:
        """Return the inputs through which the walk goes on; ``None`` where it ends."""
        if node.op_type in self.through:
            return [node.input[0]]
        if node.op_type == "Concat":
            return list(node.input)
        if node.op_type in _SCALE:
            stored = [self._is_stored(name) for name in node.input]
            if sum(stored) == 1 and not self._is_bias(node.input[stored.index(False)]):
                return [node.input[stored.index(False)]]
        return None

    def _is_bias(self, value: str) -> bool:
        """Return whether an Add on a value may be the bias of the layer that computes it."""
        node = self.producer.get(self._skip_qdq(value))
        return node is not None and node.op_type in PRODUCT_OPS

    def _is_given(self, value: str) -> bool:
        return value in self.known or self._skip_qdq(value) not in self.producer

    def _is_stored(self, value: str) -> bool:
        node = self.producer.get(value)
        if node is not None and node.op_type == "DequantizeLinear":
            value = node.input[0]
            node = self.producer.get(value)
        return (node is None and value in self.stored) or (
            node is not None and node.op_type == "Constant"
        )

    def _skip_qdq(self, value: str) -> str:
        """Return the value in front of a QuantizeLinear, DequantizeLinear pair, else itself."""
        node = self.producer.get(value)
        if node is None or node.op_type != "DequantizeLinear":
            return value
        quantize = self.producer.get(node.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return value
        source: str = quantize.input[0]
        return source
