"""Names of ONNX domains, operators and types that several modules treat alike."""

from __future__ import annotations

from onnx import NodeProto

# Both names of the domain of the standard operators.
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
# Layers with an optional bias as third input.
BIASED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm"})
# Products of two matrices.
MATRIX_OPS = frozenset({"MatMul", "Gemm"})
# Layers of one product with a weight.
PRODUCT_OPS = BIASED_OPS | MATRIX_OPS
RECURRENT_OPS = frozenset({"LSTM", "GRU", "RNN"})
# All operators that multiply with weights.
MULTIPLYING_OPS = PRODUCT_OPS | RECURRENT_OPS | {"Einsum"}
# Types that a quantized weight may be stored in.
INTEGER_TYPES = frozenset({"int4", "uint4", "int8", "uint8"})


def is_standard(node: NodeProto) -> bool:
    """Return whether a node belongs to the standard operators, not to those of a runtime."""
    return node.domain in STANDARD_DOMAINS


def get_operator_name(node: NodeProto) -> str:
    """Return the operator name of a node as device profiles write it."""
    return node.op_type if is_standard(node) else f"{node.domain}:{node.op_type}"
