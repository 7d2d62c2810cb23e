"""Parts that a graph puts its outputs together from."""

from __future__ import annotations

from onnx import ModelProto, NodeProto

_SATURATE = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh"}
# Operators that hand on the entries of their first input as they are.
_MOVE = {"Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"}
# Operators that only shift and stretch where the other operand is stored.
_SCALE = {"Add", "Sub", "Mul", "Div"}
_LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def judged_parts(proto: ModelProto, output: str | None = None) -> list[str]:
    """Values that tell of an error best: what the outputs, or one of them, are put together from.

    The walk goes back through data movement, concatenation and constant factors, so that a part
    of small scale counts beside a large one, and through a final Softmax or Sigmoid, where a few
    samples near a border would decide alone. Pairs of Quantize and Dequantize are transparent,
    so an 8-bit version has the same parts in the same order.
    """
    parts = _Parts(proto)
    for name in [v.name for v in proto.graph.output] if output is None else [output]:
        if name not in parts.stored:
            parts.walk(name)
    return parts.found


def output_values(proto: ModelProto) -> set[str]:
    """The outputs, and the values whose entries they hold, moved, joined or scaled.

    What a Softmax or Sigmoid makes of a value does not count: there the far ends of a range say
    little.
    """
    parts = _Parts(proto, through=_MOVE)
    for output in proto.graph.output:
        parts.walk(output.name)
    return parts.passed


class _Parts:
    def __init__(self, proto: ModelProto, *, through: set[str] = _MOVE | _SATURATE) -> None:
        self.through = through
        self.passed: set[str] = set()
        self.stored = {tensor.name for tensor in proto.graph.initializer}
        self.known = self.stored | {value.name for value in proto.graph.input}
        self.producer = {name: node for node in proto.graph.node for name in node.output}
        self.found: list[str] = []

    def walk(self, output: str) -> None:
        """Add the parts of an output; one that only hands on inputs stays whole."""
        before = len(self.found)
        self._walk(output)
        if len(self.found) == before:
            self.found.append(output)

    def _walk(self, value: str) -> None:
        if self._is_given(value):
            return
        self.passed.add(value)
        node = self.producer[self._before_8_bits(value)]
        inputs = self._operands(node)
        if inputs is None or node.domain not in ("", "ai.onnx"):
            self.found.append(value)
            return
        for name in inputs:
            self._walk(name)

    def _operands(self, node: NodeProto) -> list[str] | None:
        """The inputs that the parts come from; ``None`` where the walk ends."""
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
        """Whether what is added to a value may be the bias of the layer that makes it."""
        node = self.producer.get(self._before_8_bits(value))
        return node is not None and node.op_type in _LAYERS

    def _is_given(self, value: str) -> bool:
        return value in self.known or self._before_8_bits(value) not in self.producer

    def _is_stored(self, value: str) -> bool:
        node = self.producer.get(value)
        if node is not None and node.op_type == "DequantizeLinear":
            value = node.input[0]
            node = self.producer.get(value)
        return (node is None and value in self.stored) or (
            node is not None and node.op_type == "Constant"
        )

    def _before_8_bits(self, value: str) -> str:
        """The float value that a Dequantize of a Quantize stands for, else itself."""
        node = self.producer.get(value)
        if node is None or node.op_type != "DequantizeLinear":
            return value
        quantize = self.producer.get(node.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear":
            return value
        source: str = quantize.input[0]
        return source
