"""Graph of a compressed model in the form in which it learns."""

from __future__ import annotations

from onnx import ModelProto, TensorProto

from edgekit.model import Model
from edgekit.onnx_graph.io import get_opset, load
from edgekit.onnx_graph.rewrites.dequantization import (
    dequantize_at_load,
    dequantize_by_operator,
)

# Since this opset DequantizeLinear has a scale per channel.
_OPSET = 13


class StudentGraph:
    """A compressed model whose integer weights are read by DequantizeLinear, so that they learn.

    Attributes:
        proto: the graph.
        is_quantized: weights are stored as integers.
    """

    def __init__(self, model: Model) -> None:
        self.proto = load(model.path)
        before = _list_dequantized(self.proto)
        if get_opset(self.proto) >= _OPSET:
            dequantize_by_operator(self.proto)
        after = _list_dequantized(self.proto)
        self._changed = after - before
        self.is_quantized = bool(after)

    def restore(self, learned: ModelProto) -> ModelProto:
        """Return a learned graph in the form of the model, changed in place."""
        if self._changed:
            dequantize_at_load(learned, only=self._changed)
        return learned


def _list_dequantized(proto: ModelProto) -> set[str]:
    """List the values that are dequantized from stored integers."""
    stored = {t.name for t in proto.graph.initializer if t.data_type != TensorProto.FLOAT}
    return {
        node.output[0]
        for node in proto.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in stored
    }
