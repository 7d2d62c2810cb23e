"""Conversion of an ONNX graph with fixed shapes to a TFLite graph, one rule for each operator."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto

from edgekit.conversion.onnx_to_tflite.layout import Value
from edgekit.conversion.onnx_to_tflite.ops import RULES
from edgekit.conversion.onnx_to_tflite.tflite_graph_builder import TfliteGraphBuilder
from edgekit.onnx_graph.operators import get_operator_name, is_standard
from edgekit.tflite.ir import LiteGraph

_NATIVE_HINT = (
    "use quantize-weights with container=int8, which .tflite files support; "
    "native kernels are onnxruntime's own"
)
_OWN_HINTS = {
    "MatMulNBits": _NATIVE_HINT,
    "GatherBlockQuantized": _NATIVE_HINT,
    "DynamicQuantizeLSTM": "its weights are computed in the graph; store them as constants, or "
    "run the model with onnxruntime",
}


def convert_nodes(proto: ModelProto) -> LiteGraph:
    """Convert an ONNX graph to a TFLite graph operator by operator, without folding or fusion.

    Args:
        proto: Result of ``static_shapes.fix_shapes``: constants are initializers, and every
            value has a fixed, stored shape.

    Raises:
        PassRefused: An operator, or a use of one, has no TFLite counterpart; the message names the
            node and a remedy.
    """
    return convert_nodes_with_values(proto)[0]


def convert_nodes_with_values(proto: ModelProto) -> tuple[LiteGraph, Mapping[str, Value]]:
    """Convert as ``convert_nodes``; also return the TFLite value of each ONNX value by name."""
    builder = TfliteGraphBuilder(proto)
    for node in proto.graph.node:
        name = get_operator_name(node)
        if not is_standard(node) and name not in RULES:
            hint = _OWN_HINTS.get(node.op_type, "") if node.domain == "com.microsoft" else ""
            raise builder.refusal(node, "is not a standard ONNX operator", hint=hint)
        rule = RULES.get(name)
        if rule is None:
            raise builder.refusal(node, "has no TFLite counterpart")
        rule(builder, node)
    return builder.finish(), builder.values
